"""What a message costs as its group grows: one group of each size, everybody online, messages at one modest rate.

Straight is: a + b * deliveries. `a` is the message's own way into the log, `b` one more member who is given it and acknowledges it.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from bench.figures import Figures
from bench.growth_line import fit
from bench.growth_meter import Cpu, Meter
from bench.mesh import Target, fleet
from bench.remote import generator

SIZES = (2, 10, 30, 100, 300, 1000)
_SENDERS = 4
_WARM_UP = (10.0, 1.0)  # messages a second, and seconds
_MESSAGE_BYTES = 120


@dataclass(frozen=True, slots=True)
class MembersOptions:
    """What to measure.

    Attributes:
        sizes: members of each group.
        rate: messages a second.
        seconds: length of each measured span.
    """

    sizes: tuple[int, ...] = SIZES
    rate: float = 20.0
    seconds: float = 8.0


def run(options: MembersOptions) -> Figures:
    """Measure.

    Raises:
        GeneratorFailedError, TimeoutError, OSError: the mesh did not serve.
    """
    settings = {"mode": "fleet", "rate": options.rate, "seconds": options.seconds, "bytes": _MESSAGE_BYTES}
    figures = Figures("growth-members", settings)
    with fleet() as target:
        found = [_group(figures, target, size, options) for size in options.sizes]
    _note(figures, options, found)
    return figures


def _group(figures: Figures, target: Target, size: int, options: MembersOptions) -> tuple[Cpu, dict[str, Any]]:
    """One group: what a message cost, microseconds by service, and the account."""
    meter, prefix = Meter(target.pids), f"bench-{secrets.token_hex(4)}"
    tokens = {name: target.token(name) for name in (f"{prefix}-{n}" for n in range(size))}
    with generator("bench.members") as members:
        members.do("connect", url=target.url, tokens=tokens)
        members.do("group", senders=min(_SENDERS, size), message_bytes=_MESSAGE_BYTES)
        members.do("span", rate=_WARM_UP[0], seconds=_WARM_UP[1])
        idle = meter.rest()
        meter.begin()
        account = members.do("span", rate=options.rate, seconds=options.seconds)
        spent = meter.end()
    figures.add(f"{size:,} members: at rest", sum(idle.values()) * 1e3, "ms CPU a second", note="taken off below")
    for name, count in account["faults"].items():
        figures.faults[name] = figures.faults.get(name, 0) + count
    return {service: cpu / account["sent"] * 1e6 for service, cpu in spent.items()}, account


def _note(figures: Figures, options: MembersOptions, found: list[tuple[Cpu, dict[str, Any]]]) -> None:
    costs = {size: cost for size, (cost, _) in zip(options.sizes, found, strict=True)}
    for size, (cost, account) in zip(options.sizes, found, strict=True):
        parts = ", ".join(f"{service} {micros:.0f}" for service, micros in cost.items() if micros >= 1)
        figures.add(f"{size:,} members: CPU a message", sum(cost.values()), "µs", note=parts)
        figures.add(f"{size:,} members: CPU a delivery", sum(cost.values()) / (size - 1), "µs")
        late = account["latency"]
        figures.add(f"{size:,} members: until delivered, p50", late["p50"], "ms", note=f"p95 {late['p95']:.1f}")
        figures.add(f"{size:,} members: until delivered, p99", late["p99"], "ms", note=f"{account['delivered']:,} deliveries")
    figures.series["members"] = list(options.sizes)
    services = sorted(costs[options.sizes[0]])
    for service in services:
        figures.series[f"{service}, ns a message"] = [round(cost[service] * 1e3) for cost in costs.values()]
    for name in ("p50", "p99"):
        figures.series[f"{name}, µs"] = [round(account["latency"][name] * 1e3) for _, account in found]
    _lines(figures, costs)


def _lines(figures: Figures, costs: dict[int, Cpu]) -> None:
    """The line through all sizes."""
    line = fit([(size - 1, sum(cost.values())) for size, cost in costs.items()])
    figures.add("line: a message's own", line.base, "µs", note="a of a + b * deliveries")
    figures.add("line: each delivery", line.slope, "µs", note="b")
    figures.add("line: largest deviation", line.deviation * 100, "%", note=f"at {line.at + 1:,.0f} members")

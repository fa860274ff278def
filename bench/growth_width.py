"""What a message costs as the mesh grows wider: 1 to 4 edges, or 1 to 4 routers, all else one of each.

All share the same cores, so throughput cannot grow here. What can be seen is whether the work of a message stays the same: CPU
microseconds by service, all its processes together, at one rate that presses none of them.
"""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from bench.figures import Figures
from bench.growth_meter import Cpu, Meter
from bench.mesh import Target, edge_for, fleet
from bench.remote import generator
from bench.servers import START_SECONDS

COUNTS = (1, 2, 3, 4)
_WARM_UP = (100.0, 2.0)  # messages a second, and seconds
_MESSAGE_BYTES = 120


@dataclass(frozen=True, slots=True)
class WidthOptions:
    """What to measure.

    Attributes:
        service: edge or router.
        counts: how many of it.
        users: connected, in pairs.
        rate: messages a second.
        seconds: length of each measured span.
    """

    service: str = "edge"
    counts: tuple[int, ...] = COUNTS
    users: int = 100
    rate: float = 200.0
    seconds: float = 8.0

    def __post_init__(self) -> None:
        """Refuse what can't be measured, in words."""
        if self.service not in ("edge", "router"):
            raise ValueError(f"service {self.service!r}: use edge or router")


def run(options: WidthOptions) -> Figures:
    """Measure.

    Raises:
        GeneratorFailedError, TimeoutError, OSError: the mesh did not serve.
    """
    settings = {"mode": "fleet", "service": options.service, "users": options.users, "rate": options.rate}
    figures = Figures(f"growth-{options.service}s", settings | {"seconds": options.seconds, "bytes": _MESSAGE_BYTES})
    figures.series["processes"] = list(options.counts)
    for count in options.counts:
        with fleet(counts={options.service: count}) as target:
            _await_edges(target, count if options.service == "edge" else 1)
            _measure(figures, target, count, options)
    return figures


def _measure(figures: Figures, target: Target, count: int, options: WidthOptions) -> None:
    meter, prefix = Meter(target.pids), f"bench-{secrets.token_hex(4)}"
    tokens = {name: target.token(name) for name in (f"{prefix}-{n}" for n in range(options.users))}
    with generator() as load:
        load.do("connect", url=target.url, tokens=tokens, message_bytes=_MESSAGE_BYTES, mix="pairs")
        load.do("step", rate=_WARM_UP[0], seconds=_WARM_UP[1])
        idle = meter.rest()
        meter.begin()
        account = load.do("step", rate=options.rate, seconds=options.seconds)
        spent = meter.end()
        faults = load.do("audit")["delivery"]
    for name, found in faults.items():
        figures.faults[name] = figures.faults.get(name, 0) + found
    _note(figures, f"{count} {options.service}{'s' if count > 1 else ''}", account, spent, idle)


def _note(figures: Figures, name: str, account: dict[str, Any], spent: Cpu, idle: Cpu) -> None:
    cost = {service: cpu / account["stored"] * 1e6 for service, cpu in spent.items()}
    parts = ", ".join(f"{service} {micros:.0f}" for service, micros in cost.items() if micros >= 1)
    figures.add(f"{name}: CPU a message", sum(cost.values()), "µs", note=parts)
    late = account["delivered_latency"]
    figures.add(f"{name}: until delivered, p50", late["p50"], "ms", note=f"p99 {late['p99']:.1f}")
    at_rest = ", ".join(f"{service} {share * 1e3:.0f}" for service, share in idle.items() if share >= 0.001)
    figures.add(f"{name}: at rest", sum(idle.values()) * 1e3, "ms CPU a second", note=at_rest)
    for service, micros in cost.items():
        figures.series.setdefault(f"{service}, ns a message", []).append(round(micros * 1e3))
    for quantile in ("p50", "p99"):
        figures.series.setdefault(f"{quantile}, µs", []).append(round(late[quantile] * 1e3))


def _await_edges(target: Target, count: int) -> None:
    """Until the balancer has given places at so many edges: each edge has told it of itself."""
    seen: set[str] = set()
    until = time.monotonic() + START_SECONDS
    while len(seen) < count:
        if time.monotonic() > until:
            raise TimeoutError(f"the balancer knows {len(seen)} of {count} edges after {START_SECONDS} s")
        seen.add(edge_for(target, f"bench-{secrets.token_hex(4)}"))
        time.sleep(0.02)

"""`tidings bench connect`: every session of an edge is lost at once, and all come back.

Measured: how many a second are back, from the upgrade over Hello to CaughtUp, as fast as it goes: straight at their edge with
their token, as the SDK comes back when its connection was cut, and once by way of the balancer's ticket, as newcomers come; then
how long each takes when attempts are due at a fixed rate, and whether any attempt fails; then what becomes of it when everybody
comes as the SDK's first backoff says. One message was written in each conversation meanwhile, and must have come before CaughtUp.
Beside it: bare WebSocket handshakes with aiohttp, by the same generator.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import headroom
from bench.fan_out import bare_server
from bench.figures import Figures
from bench.mesh import Target, fleet, one_process
from bench.remote import RemoteGenerator, generator
from bench.resources import measure

SESSIONS_PER_SECOND = 1_000.0
RESUMED = "resumed, one edge"
MOST_SESSIONS = 15_000  # what one process may have open, of 20,000 files, beside those that are on their way
GROUP = 100  # users who share a conversation
AT_ONCE = 400  # attempts under way in a closed loop: in truth all are; enough that every process always has work
STORM_SECONDS = 0.5  # the SDK's first wait is at random up to here


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What to measure.

    Attributes:
        sessions: how many.
        rate: attempts a second, where they are paced.
        mode: process or fleet.
        storm: whether to let all come within the SDK's first backoff, too.
    """

    sessions: int = 10_000
    rate: float = SESSIONS_PER_SECOND
    mode: str = "fleet"
    storm: bool = True
    baselines: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't be measured, in words."""
        if not 1 <= self.sessions <= MOST_SESSIONS:
            raise ValueError(f"1 to {MOST_SESSIONS:,} sessions can be measured")


def run(options: ConnectOptions) -> Figures:
    """Measure.

    Raises:
        GeneratorFailedError, TimeoutError, OSError: the mesh did not serve.
        ValueError: the options make no sense.
    """
    settings = {"mode": options.mode, "sessions": options.sessions, "rate": options.rate, "group": GROUP, "storm": options.storm}
    figures = Figures("connect", settings)
    with _mesh(options) as target, generator("bench.returners") as clients:
        _Run(figures, target, clients, options).measure()
    if options.baselines:
        _bare(figures, options)
    return figures


@contextmanager
def _mesh(options: ConnectOptions) -> Iterator[Target]:
    with one_process() if options.mode == "process" else fleet() as target:
        yield target


def _bare(figures: Figures, options: ConnectOptions) -> None:
    with bare_server() as (process, port), generator("bench.returners") as clients:
        before = measure({"server": process.pid})["server"]
        seconds = clients.do("bare", port=port, count=options.sessions, at_once=AT_ONCE)["seconds"]
        cpu = measure({"server": process.pid})["server"].cpu_seconds - before.cpu_seconds
    how = f"aiohttp, nothing else: {cpu / options.sessions * 1e6:.0f} us of CPU each"
    figures.beside("bare handshakes", options.sessions / seconds, "sessions/s", RESUMED, how)
    figures.could_drive(*headroom.of_returners(options.sessions, AT_ONCE, GROUP, figures.value(RESUMED)))


class _Run:
    """Connected sessions, and how they return."""

    def __init__(self, figures: Figures, target: Target, clients: RemoteGenerator, options: ConnectOptions) -> None:
        self._figures = figures
        self._target = target
        self._clients = clients
        self._options = options
        self._pids = {**target.pids, "clients": clients.pid}

    def measure(self) -> None:
        """Connect, then every return."""
        prefix, started = f"bench-{secrets.token_hex(4)}", time.monotonic()
        names = [f"{prefix}-{n}" for n in range(self._options.sessions)]
        tokens = {name: self._target.token(name) for name in names}
        self._clients.do("connect", url=self._target.url, tokens=tokens, group=GROUP)
        first = len(names) / (time.monotonic() - started)
        self._figures.add("connected for the first time", first, "/s", note="new users, groups made")
        placed = self._return("placed anew", at_once=AT_ONCE)
        self._figures.add("resumed, placed anew by the balancer", len(names) / placed["seconds"], "sessions/s")
        fast = self._return("straight back", at_once=AT_ONCE, straight=True)
        rate = len(names) / fast["seconds"]
        self._figures.add(RESUMED, rate, "sessions/s", SESSIONS_PER_SECOND, note=f"straight back, {AT_ONCE} at once")
        self._paced()
        if self._options.storm:
            self._return("storm", within=STORM_SECONDS, straight=True)

    def _paced(self) -> None:
        account = self._return("paced", rate=self._options.rate, straight=True)
        extra = account["attempts"] - account["sessions"] + account["turned_away"]
        self._figures.add("failed attempts, paced", extra, "", 0.0, note=str(account["failures"] or ""))

    def _return(self, name: str, **how: float) -> dict[str, Any]:
        self._clients.do("drop")
        before = measure(self._pids)
        account = self._clients.do("return", **how)
        after = measure(self._pids)
        used = {one: after[one].cpu_seconds - before[one].cpu_seconds for one in self._pids}
        self._figures.spend(name, before, after, account["sessions"], account["seconds"])
        self._figures.drove(account["generator_cpu_share"], account["lateness"]["p99"] if "rate" in how else 0.0)
        self._note(name, account, used)
        return account

    def _note(self, name: str, account: dict[str, Any], used: dict[str, float]) -> None:
        add, latency, count = self._figures.add, account["latency"], account["sessions"]
        tried = f"{account['attempts']:,} attempts for {count:,} sessions, {account['turned_away']:,} turned away"
        add(f"{name}: all back after", account["seconds"], "s", note=tried)
        add(f"{name}: due until caught up, p50", latency["p50"], "ms", note=f"p95 {latency['p95']:.1f}, most {latency['max']:.1f}")
        add(f"{name}: due until caught up, p99", latency["p99"], "ms")
        each = ", ".join(f"{one} {cpu / count * 1e3:.2f}" for one, cpu in used.items() if cpu / count >= 5e-6)
        add(f"{name}: CPU a session", sum(used.values()) / count * 1e3, "ms", note=each)
        self._figures.series[f"{name}: attempts due, by second"] = account["due_by_second"]
        self._figures.series[f"{name}: sessions back, by second"] = account["returned_by_second"]
        faults = self._figures.faults
        for fault in ("missed", "repeated"):
            faults[fault] = faults.get(fault, 0) + account[fault]

"""`tidings bench fanout`: one group of thousands of connected members, a few of whom write many messages a second.

Measured: how many deliveries a second one edge makes of that, and how late they are, at a given rate and then at higher ones until
the edge has no more to give; and what it does to everybody else: pairs chat beside it at a low rate, whose latency is measured with
the group silent and with the group busy. All is counted at real sockets, members acknowledge as the SDK does. Beside it: a bare
fan-out of a frame of the same size to as many WebSockets.
"""

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import headroom
from bench.fan_out import bare_fan_out_rate
from bench.figures import Figures
from bench.mesh import Target, fleet, one_process
from bench.remote import RemoteGenerator, generator
from bench.resources import Usage, measure

DELIVERIES = 60_000.0
MOST = "most deliveries, one edge"
RATES = (12.0, 20.0, 30.0, 45.0)
"""Messages a second, after the rate asked for, until the edge falls behind; with 5,000 members up to 225,000 deliveries."""
_BEHIND = 0.9  # of the deliveries offered: an edge that makes fewer gives all it has
_FRAME_BYTES = 90  # what a message's frame has beside its text
_BARE_FRAMES = 20
_WARM_UP = (5.0, 2.0)  # messages a second, and seconds


@dataclass(frozen=True, slots=True)
class FanoutOptions:
    """What to measure.

    Attributes:
        members: of the group, all connected to one edge.
        rate: messages a second in the group.
        seconds: length of each measured span.
        senders: members who write them.
        chatters: users who chat in pairs beside it.
        chat_rate: their messages a second.
        size: bytes of text.
        mode: process or fleet.
        search: whether to raise the rate until the edge falls behind.
    """

    members: int = 5_000
    rate: float = 20.0
    seconds: float = 15.0
    senders: int = 4
    chatters: int = 40
    chat_rate: float = 40.0
    size: int = 120
    mode: str = "fleet"
    search: bool = True
    baselines: bool = True


def run(options: FanoutOptions) -> Figures:
    """Measure.

    Raises:
        GeneratorFailedError, TimeoutError, OSError: the mesh did not serve.
    """
    settings = {"mode": options.mode, "members": options.members, "senders": options.senders, "bytes": options.size}
    settings |= {"chat_users": options.chatters, "chat_rate": options.chat_rate, "seconds": options.seconds, "rate": options.rate}
    figures = Figures("fanout", settings)
    with _mesh(options) as target, generator("bench.members") as members, generator() as chat:
        _Run(figures, target, members, chat, options).measure()
    if options.baselines:
        bare = bare_fan_out_rate(options.members, options.size + _FRAME_BYTES, _BARE_FRAMES)
        figures.beside("bare fan-out of such a frame", bare, "deliveries/s", MOST, "aiohttp, nothing else, one frame after another")
        made = max(one.value for one in figures.figures if one.name.startswith("deliveries")) / (options.members - 1)
        figures.could_drive(*headroom.of_members(options.members, options.senders, options.size, made))
    return figures


@contextmanager
def _mesh(options: FanoutOptions) -> Iterator[Target]:
    with one_process() if options.mode == "process" else fleet() as target:
        yield target


class _Run:
    """A connected group, with pairs beside it."""

    def __init__(
        self, figures: Figures, target: Target, members: RemoteGenerator, chat: RemoteGenerator, options: FanoutOptions
    ) -> None:
        self._figures = figures
        self._target = target
        self._members = members
        self._chat = chat
        self._options = options
        self._prefix = f"bench-{secrets.token_hex(4)}"
        self._pids = {**target.pids, "members": members.pid, "chatters": chat.pid}

    def measure(self) -> None:
        """Connect, then every span."""
        self._connect()
        quiet = self._chatting(self._options.seconds)
        self._chat_latency("1-1 chat, the group silent", quiet)
        self._span(self._options.rate, "")
        if self._options.search:
            self._search()
        self._figures.faults |= {f"chat: {name}": count for name, count in self._chat.do("audit")["delivery"].items()}

    def _connect(self) -> None:
        options, started = self._options, time.monotonic()
        self._members.do("connect", url=self._target.url, tokens=self._tokens("m", options.members))
        self._figures.add("connected", options.members / (time.monotonic() - started), "sessions/s")
        with self._meter() as used:
            made = self._members.do("group", senders=options.senders, message_bytes=options.size)
        note = ", ".join(f"{name} {usage:.1f}" for name, usage in used.items() if usage >= 0.05)
        self._figures.add("group made, until every member heard of it", made["seconds"], "s", note=f"CPU s: {note}")
        people = self._tokens("c", options.chatters)
        self._chat.do("connect", url=self._target.url, tokens=people, message_bytes=options.size, mix="pairs")
        self._members.do("span", rate=_WARM_UP[0], seconds=_WARM_UP[1])

    def _search(self) -> None:
        """Higher rates, until the edge makes fewer deliveries than it is offered; notes the most it made."""
        best = 0.0
        for rate in (rate for rate in RATES if rate != self._options.rate):
            found = self._span(rate, f" at {rate:g}/s")
            best = max(best, found["delivered_rate"])
            if found["delivered_rate"] < _BEHIND * rate * (self._options.members - 1):
                break
        self._figures.add(MOST, best, "deliveries/s", DELIVERIES)

    def _span(self, rate: float, name: str) -> dict[str, Any]:
        """Both at once: the group at a rate, and the pairs."""
        seconds, before = self._options.seconds, measure(self._pids)
        with ThreadPoolExecutor(1) as beside:
            chatting = beside.submit(self._chatting, seconds)
            found = self._members.do("span", rate=rate, seconds=seconds)
            chat = chatting.result()
        self._note(rate, name, found, chat)
        span = f"{rate:g} messages/s"
        self._figures.spend(span, before, measure(self._pids), found["delivered"], seconds)
        used = {service: cost.cpu_share for service, cost in self._figures.costs[span].items() if cost.cpu_share >= 0.005}
        note = ", ".join(f"{service} {share:.2f}" for service, share in used.items())
        self._figures.add(f"CPU{name}, all", sum(used.values()), "cores", note=note)
        self._figures.drove(found["generator_cpu_share"], found["lateness"]["p99"])
        return found

    def _note(self, rate: float, name: str, found: dict[str, Any], chat: dict[str, Any]) -> None:
        add, latency, last = self._figures.add, found["latency"], found["last_latency"]
        note = f"{rate:g} messages/s: {rate * (self._options.members - 1):,.0f} offered"
        add(f"deliveries{name}", found["delivered_rate"], "/s", note=note)
        add(f"from send to delivery{name}, p50", latency["p50"], "ms", note=f"p95 {latency['p95']:.1f}, p99 {latency['p99']:.1f}")
        add(f"until the last member has it{name}, p50", last["p50"], "ms", note=f"p99 {last['p99']:.1f}, most {last['max']:.1f}")
        spoken = found["acknowledgements"] / found["seconds"]
        add(f"acknowledged{name}", spoken, "frames/s", note=f"{found['receipts']} receipts, {found['generator_cpu_share']} CPU")
        self._chat_latency(f"1-1 chat, the group busy{name}", chat)
        self._figures.faults |= found["faults"]  # of the run so far

    def _chat_latency(self, name: str, step: dict[str, Any]) -> None:
        found = step["delivered_latency"]
        note = f"p95 {found['p95']:.1f}, p99.9 {found['p999']:.1f}, of {found['count']:,}"
        self._figures.add(f"{name}: p50", found["p50"], "ms")
        self._figures.add(f"{name}: p99", found["p99"], "ms", note=note)

    def _chatting(self, seconds: float) -> dict[str, Any]:
        return self._chat.do("step", rate=self._options.chat_rate, seconds=seconds)

    def _tokens(self, kind: str, count: int) -> dict[str, str]:
        return {name: self._target.token(name) for name in (f"{self._prefix}-{kind}{n}" for n in range(count))}

    @contextmanager
    def _meter(self) -> Iterator[dict[str, float]]:
        """CPU seconds of each process; filled in when the context ends."""
        used: dict[str, float] = {}
        before = measure(self._pids)
        yield used
        after: dict[str, Usage] = measure(self._pids)
        used |= {name: after[name].cpu_seconds - before[name].cpu_seconds for name in self._pids}

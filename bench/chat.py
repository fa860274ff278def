"""`tidings bench chat`: how many messages per second the mesh stores and delivers, how late, and at what cost.

Open loop: messages are due at fixed times and latency counts from those. With a rate, one span at that rate. With rate 0, a search
for the knee, which must hold for a whole span, and a span at a quarter of it, or of the first rate tried when there is none (the
latency of a mesh that isn't pressed); then a search for the most that is ever stored per second, and a span past it (the cost when
batches are full).
Afterwards every log is read back and compared with what was answered and delivered.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import headroom
from bench.baselines import run_baselines
from bench.chat_report import CALM, ChatReport, Measurement
from bench.count import count_rows
from bench.crowd import MIXES
from bench.inserts import DRIVERS, lone_inserts, run_insert_baseline
from bench.knee import FIRST_RATE, KneeSearch, Trial
from bench.mesh import Target, fleet, one_process
from bench.remote import RemoteGenerator, generator
from bench.resources import measure

TRIAL_SECONDS = 4.0  # one step of the search: long enough for queues to show that they grow
WARM_UP_SECONDS = 2.0
WARM_UP_RATE = 500.0
MESSAGE_BYTES = 120
OVERLOAD = 1.2  # of the most that was stored: queues stay full, so what comes out is what the mesh can do


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What to measure.

    Attributes:
        users: connected, one device each.
        seconds: length of each measured span.
        rate: messages per second; 0 searches for the knee.
        mix: "pairs", "groups10", "groups100" or "mixed" (80, 15 and 5 of 100 messages).
        url: a balancer that serves already; empty starts a mesh.
        token_secret: what that mesh's tokens are signed with.
        database: postgresql://…, for the fleet to use (empty: a private cluster); with a url, where to count rows.
        mode: "process" (one process, SQLite) or "fleet" (a process per service, PostgreSQL, etcd).
        message_bytes: text of each message.
        baselines: whether to measure the bare parts too.
    """

    users: int = 200
    seconds: float = 20.0
    rate: float = 0.0
    mix: str = "pairs"
    url: str = ""
    token_secret: str = ""
    database: str = ""
    mode: str = "process"
    message_bytes: int = MESSAGE_BYTES
    baselines: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't be measured, in words."""
        _require(self.mix in MIXES, f"mix {self.mix!r}: use one of {', '.join(MIXES)}")
        _require(self.mode in ("process", "fleet"), f"mode {self.mode!r}: use process or fleet")
        _require(self.users >= max(MIXES[self.mix]), f"mix {self.mix} needs at least {max(MIXES[self.mix])} users")
        _require(self.seconds > 0 and self.rate >= 0, "seconds must be above 0, rate 0 or above")
        _require(not self.url or bool(self.token_secret), "with a url, give the secret its tokens are signed with")


def run(options: ChatOptions) -> ChatReport:
    """Measure.

    Raises:
        ValueError: the options make no sense.
        GeneratorFailedError, TimeoutError, OSError: the mesh did not serve.
    """
    report = ChatReport("chat", {})
    _measure(options, report)
    report.judge(options.mode)
    for one in report.measurements:
        report.drove(one.account["generator_cpu_share"], one.account["lateness"]["p99"])
    if options.baselines:
        engine = "sqlite" if options.mode == "process" else "postgresql"
        report.stand_beside([*run_baselines(), run_insert_baseline(engine)])
        report.stand_beside_calm(DRIVERS[engine], lambda rate: lone_inserts(engine, rate))
        offered = max(one.account["offered_rate"] for one in report.measurements)
        report.could_drive(*headroom.of_chat(options.users, options.message_bytes, options.mix, offered))
    return report


def _measure(options: ChatOptions, report: ChatReport) -> None:
    with _target(options) as target, generator() as load:
        session = Session(options, target, load, report)
        session.connect()
        search = session.measure()
        audit = load.do("audit")
        counted = count_rows(target.database, session.prefix) if target.database else {}
    report.settings = _settings(options, target)
    report.trials, report.lowered = search.trials, search.lowered
    report.knee_rate, report.peak_stored_rate = search.knee, search.peak_stored_rate
    report.faults = {**audit["delivery"], **_named("in the log: ", audit["log"]), **_named("in the database: ", counted)}
    report.entries_read, report.rows_counted = audit["log"]["entries"], counted.get("entries", 0)


class Session:
    """A connected crowd, and what was measured with it."""

    def __init__(self, options: ChatOptions, target: Target, load: RemoteGenerator, report: ChatReport) -> None:
        self._options = options
        self._target = target
        self._load = load
        self._report = report
        self.prefix = f"bench-{secrets.token_hex(4)}"  # new users every time: what earlier runs left is not in the way

    def connect(self) -> None:
        """Let all users in, and warm up."""
        tokens = {name: self._target.token(name) for name in (f"{self.prefix}-{n}" for n in range(self._options.users))}
        arguments = {"url": self._target.url, "message_bytes": self._options.message_bytes, "mix": self._options.mix}
        self._load.do("connect", tokens=tokens, **arguments)
        self._step(WARM_UP_RATE, WARM_UP_SECONDS)

    def measure(self) -> KneeSearch:
        """Take the spans asked for; gives the search, which is empty when a rate was given."""
        search = KneeSearch()
        if self._options.rate:
            self._span("given rate", self._options.rate)
            return search
        while search.next_rate is not None:
            search.record(self._trial(search.next_rate))
        self._make_it_last(search)
        os.sync()  # what a pressed mesh left to the disk would hold up one that isn't
        self._span(CALM, (search.knee or FIRST_RATE) / 4)
        while rate := search.saturation():
            search.note(self._trial(rate))
        self._span("saturated", search.peak_stored_rate * OVERLOAD)
        return search

    def _trial(self, rate: float) -> Trial:
        return Trial.of(rate, self._step(rate, TRIAL_SECONDS))

    def _make_it_last(self, search: KneeSearch) -> None:
        """Lower the knee until it holds for a whole span."""
        while search.knee:
            longer = Trial.of(search.knee, self._span("knee", search.knee))
            if longer.held:
                return
            search.lower(longer)

    def _span(self, name: str, rate: float) -> dict[str, Any]:
        """Measure a span and note it, in place of an earlier one of that name."""
        pids = {**self._target.pids, "generator": self._load.pid}
        before, started = measure(pids), time.monotonic()
        account = self._step(rate, self._options.seconds)
        self._report.spend(name, before, measure(pids), account["stored"], time.monotonic() - started)
        self._report.note(Measurement(name, account))
        return account

    def _step(self, rate: float, seconds: float) -> dict[str, Any]:
        return self._load.do("step", rate=rate, seconds=seconds)


@contextmanager
def _target(options: ChatOptions) -> Iterator[Target]:
    if options.url:
        yield Target(options.url, options.token_secret, options.database, settings={"mode": "url", "url": options.url})
        return
    with one_process() if options.mode == "process" else fleet(options.database) as target:
        yield target


def _named(where: str, faults: dict[str, int]) -> dict[str, int]:
    return {where + name: count for name, count in faults.items() if name not in ("conversations", "entries")}


def _settings(options: ChatOptions, target: Target) -> dict[str, Any]:
    return {
        **target.settings,
        "users": options.users,
        "mix": options.mix,
        "rate": options.rate,
        "seconds": options.seconds,
        "bytes": options.message_bytes,
    }


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)

"""Writing progress under a clock of the test's own: leases, freezes, fences, and what the store refuses."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pyroaring import BitMap

from mesh import errors
from mesh.telemetry import Telemetry
from router.link import EdgeLink
from router.meters import Meters
from router.notification_run import LOOK_AGAIN_SECONDS, NotificationRun, Recipients, Terms
from router.notification_table import RunTable
from router.outbox import Outbox
from router.progress import ProgressWriter
from router.roster import Roster
from router.sender import Sender
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb

LEASE = 10.0


class Clock:
    """Stands until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Store:
    """Answers SaveProgress as told.

    Attributes:
        during: done while a call is under way.
        fenced: ids that are another's.
        early: ids whose time hasn't come.
        finishes: ids that were to be ended; none is.
        poison: a call that names it is refused.
        away: calls fail while set.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, set[int]]] = []
        self.during: Callable[[], object] = lambda: None
        self.finishes: list[str] = []
        self.fenced: set[str] = set()
        self.early: set[str] = set()
        self.poison = ""
        self.away = False

    async def save_progress(self, request: pb.SaveProgressRequest) -> pb.SaveProgressResponse:
        names = [one.claim.notification_id for one in request.progress]
        sent = [set(BitMap.deserialize(one.sent_ordinals)) if one.sent_ordinals else set() for one in request.progress]
        self.calls.append(dict(zip(names, sent, strict=True)))
        self.finishes += [one.claim.notification_id for one in request.progress if one.finish_state]
        self.during()
        if self.away:
            raise errors.unavailable("away")
        if self.poison in names:
            raise errors.invalid_field("progress", "something else")
        return pb.SaveProgressResponse(results=map(self._result, names))

    def _result(self, name: str) -> pb.ProgressResult:
        report = common.NotificationReport(notification_id=name, state=common.NOTIFICATION_STATE_SENDING, pending=1, sent=1)
        return pb.ProgressResult(fenced=name in self.fenced, report=report, priority=5, early=name in self.early)


class Bench:
    """A table, a writer and one edge, without tasks: each step is the test's.

    Attributes:
        fast: seconds that the wall clock is ahead.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self.clock, self.store = Clock(), Store()
        self.ended: list[str] = []
        self.gave_up: list[tuple[str, int, Exception]] = []
        self.fast = 0.0
        meters = Meters(telemetry)
        self.link = EdgeLink("edge-1", Outbox(100, 10_000), meters)
        self.roster: Roster[EdgeLink] = Roster()
        self.roster.snapshot(self.link, BitMap(range(1, 101)))
        self.table = RunTable(100, 10**9, LEASE, (10.0, 300.0), lambda: None, self.ended.append, self._give_up)
        store: Any = self.store
        sender = Sender(self.table, self.roster, meters, self.clock)
        self.writer = ProgressWriter(self.table, store, sender, LEASE, self.clock, lambda: self.clock.now + self.fast)

    def _give_up(self, name: str, fence: int, error: Exception) -> None:
        self.gave_up.append((name, fence, error))

    def run(self, name: str, *recipients: int, fence: int = 1, due: float = 0.0) -> NotificationRun:
        """One that can send."""
        now = self.clock.now
        run = self.table.enter(name, fence, now)
        assert run is not None
        expires = now + 1e6
        terms = Terms(rate=None, due=due, expires=expires - self.fast, expire_time_us=int(expires * 1e6), frame=b"frame")
        self.table.describe(run, terms, 5, now)
        self.table.begin(run, Recipients(BitMap(recipients)), self.roster.online, now)
        return run

    async def step(self) -> int:
        """Write what is due, once; gives how many runs that was."""
        entries = self.table.batch(self.roster.online, self.clock.now)
        if entries:
            await self.writer.write(entries)
        return len(entries)

    def sent(self) -> list[tuple[str, set[int]]]:
        """What the edge was sent since last asked."""
        found = []
        while (taken := self.link.outbox.take(0)) is not None:
            found += [(one.notification_id, set(BitMap.deserialize(one.user_ordinals))) for one in taken[0].batch.broadcasts]
        return found


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    telemetry = Telemetry("test")
    yield Bench(telemetry)
    telemetry.close()


async def test_a_frozen_owner_sends_nothing_before_it_renewed(bench: Bench) -> None:
    run = bench.run("a", 1, 2)
    bench.store.during = lambda: setattr(bench.clock, "now", bench.clock.now + LEASE)  # it wakes when its lease is over
    assert await bench.step() == 1
    assert bench.store.calls == [{"a": {1, 2}}] and bench.sent() == []
    bench.store.during = lambda: None
    assert await bench.step() == 1
    assert bench.store.calls[1] == {"a": {1, 2}} and bench.sent() == [("a", {1, 2})]
    assert run.lease_until == bench.clock.now + LEASE


async def test_a_lease_counts_from_before_the_call(bench: Bench) -> None:
    run = bench.run("a", 1)
    begun = bench.clock.now
    bench.store.during = lambda: setattr(bench.clock, "now", bench.clock.now + 9.9)
    await bench.step()
    assert bench.sent() == [("a", {1})] and run.lease_until == begun + LEASE


async def test_a_frozen_owner_that_was_replaced_sends_nothing_at_all(bench: Bench) -> None:
    bench.run("a", 1)
    bench.store.during = lambda: setattr(bench.clock, "now", bench.clock.now + LEASE)
    await bench.step()
    bench.store.fenced = {"a"}
    await bench.step()
    assert bench.sent() == [] and bench.ended == ["fenced"] and len(bench.table) == 0
    assert await bench.step() == 0


async def test_a_fence_in_the_answer_stops_the_run_before_it_sends(bench: Bench) -> None:
    bench.run("a", 1)
    bench.run("b", 2)
    bench.store.fenced = {"a"}
    await bench.step()
    assert bench.sent() == [("b", {2})] and bench.ended == ["fenced"]


async def test_what_is_too_early_by_the_clock_of_the_store_goes_when_its_time_comes(bench: Bench) -> None:
    bench.run("a", 1, due=bench.clock.now + 0.25)
    bench.run("b", 2)
    bench.store.early = {"a"}
    assert await bench.step() == 2
    assert bench.sent() == [("b", {2})]
    assert await bench.step() == 0, "not at once"
    bench.store.early = set()
    bench.clock.now += 0.25
    assert bench.table.agenda.next == bench.clock.now
    assert await bench.step() == 1
    assert bench.sent() == [("a", {1})] and bench.store.calls[1] == {"a": {1}}


async def test_a_run_replaced_while_its_call_is_under_way_sends_nothing(bench: Bench) -> None:
    bench.run("a", 1)
    bench.store.during = lambda: bench.run("a", 1, fence=2)
    await bench.step()
    assert bench.sent() == [] and bench.ended == ["replaced"]
    bench.store.during = lambda: None
    await bench.step()
    assert bench.sent() == [("a", {1})]


async def test_leases_are_renewed_in_one_call_and_no_more_often_than_needed(bench: Bench) -> None:
    runs = [bench.run(name) for name in "abc"]
    for run in runs:
        run.begin(Recipients(BitMap([200])), BitMap(), bench.clock.now)  # nobody online
    bench.table.agenda.renew(iter(bench.table), bench.clock.now)
    assert await bench.step() == 3
    for seconds, calls in ((2.9, 1), (0.2, 2), (2.0, 2), (1.1, 3)):
        bench.clock.now += seconds
        bench.table.agenda.renew(iter(bench.table), bench.clock.now)
        await bench.step()
        assert len(bench.store.calls) == calls, seconds
    assert bench.store.calls[-1] == {"a": set(), "b": set(), "c": set()}


async def test_a_store_that_is_away_is_asked_again_later_with_the_same(bench: Bench) -> None:
    bench.run("a", 1, 2)
    bench.store.away = True
    for _ in range(3):
        assert await bench.step() == 1
        assert await bench.step() == 0, "not at once"
        bench.clock.now += 1.0
    bench.store.away = False
    bench.roster.opened(bench.link, [3])
    bench.table.came(BitMap([3]))
    await bench.step()
    assert bench.store.calls == [{"a": {1, 2}}] * 4 and bench.sent() == [("a", {1, 2})]


async def test_one_that_is_refused_is_found_and_given_up(bench: Bench) -> None:
    for name in "abcdefg":
        bench.run(name, 1)
    bench.store.poison = "c"
    await bench.step()
    assert sorted(name for name, _ in bench.sent()) == list("abdefg")
    assert bench.ended == ["refused"]
    [(name, _, error)] = bench.gave_up
    assert name == "c" and isinstance(error, errors.TidingsError)


async def test_who_left_meanwhile_is_passed_over_and_who_came_is_not_sent_it_twice(bench: Bench) -> None:
    bench.run("a", 1, 2)

    def meanwhile() -> None:
        bench.roster.closed(bench.link, [1, 2])
        bench.roster.opened(bench.link, [2])
        bench.table.came(BitMap([2]))

    bench.store.during = meanwhile
    await bench.step()
    assert bench.sent() == [("a", {2})]
    bench.store.during = lambda: None
    bench.clock.now += 1.0
    assert await bench.step() == 0
    bench.roster.opened(bench.link, [1])
    bench.table.came(BitMap([1]))
    for _ in bench.table.spread(bench.clock.now):
        pass
    await bench.step()
    assert bench.sent() == [("a", {1})]


async def test_what_a_fast_clock_ends_is_offered_now_and_then_and_goes_on_when_it_is_set_right(bench: Bench) -> None:
    bench.fast = 2e6
    bench.run("a", 1)
    other = bench.clock.now
    for _ in range(3):
        assert await bench.step() == 1
        assert bench.store.finishes.pop() == "a" and not bench.store.finishes
        assert await bench.step() == 0, "no spinning"
        due = bench.table.agenda.next
        assert due is not None and due >= bench.clock.now + LOOK_AGAIN_SECONDS - 0.01
        bench.clock.now = due
    assert bench.clock.now > other and bench.ended == [] and bench.sent() == []
    bench.fast = 0.0
    await bench.step()
    assert bench.store.finishes == ["a"]
    await bench.step()
    assert bench.sent() == [("a", {1})]


async def test_one_whose_answer_can_not_be_acted_on_hinders_no_other(bench: Bench) -> None:
    broken = bench.run("a", 1)
    bench.run("b", 1)

    def fail(now: float, missed: BitMap) -> None:
        raise RuntimeError("a fault")

    broken.sent = fail  # type: ignore[method-assign]
    await bench.step()
    assert [name for name, _ in bench.sent()][-1] == "b" and bench.ended == ["faulty"]
    assert [(name, str(error)) for name, _, error in bench.gave_up] == [("a", "a fault")]
    assert await bench.step() == 0

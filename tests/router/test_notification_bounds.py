"""What many, large or wrong notifications do to the others at a router: nothing. Cores, with time passed in."""

import heapq

import pytest
from pyroaring import BitMap

from router.agenda import Agenda, Entry
from router.notification_run import LOOK_AGAIN_SECONDS, NotificationRun, Phase, Recipients, Terms
from router.notification_table import RunTable
from router.resends import Resends
from tidings.common.v1 import notification_pb2 as common

LEASE, CALL_SECONDS, CALLS, GATHER_SECONDS = 10.0, 0.1, 4, 0.02
SMALL = BitMap([7])


def _terms(expires: float = 1e6) -> Terms:
    return Terms(rate=None, due=0.0, expires=expires, expire_time_us=0, frame=b"frame")


def _run(name: str, recipients: BitMap, expires: float = 1e6, lease: float = LEASE) -> NotificationRun:
    run = NotificationRun(name, 1, 0.0, Resends(10.0, 300.0))
    run.describe(_terms(expires), 0, 0.0)
    run.begin(Recipients(recipients), recipients, 0.0)
    run.lease_until = lease
    return run


def _table(max_bytes: int = 10**9) -> RunTable:
    return RunTable(100, max_bytes, LEASE, (10.0, 300.0), lambda: None, lambda why: None, lambda *_: None)


def _begun(table: RunTable, name: str, recipients: BitMap, online: BitMap, **stored: BitMap) -> NotificationRun:
    run = table.enter(name, 1, 0.0)
    assert run is not None
    table.describe(run, _terms(), 0, 0.0)
    table.begin(run, Recipients(recipients, **stored), online, 0.0)
    run.lease_until = LEASE
    return run


class _Sending:
    """An agenda, and calls that take their time, a few at once."""

    def __init__(self, runs: list[NotificationRun], online: BitMap) -> None:
        self.agenda = Agenda(LEASE)
        self.runs = runs
        self.online = online
        self.calls: list[tuple[float, float, list[Entry]]] = []
        self.shortest = LEASE
        for run in runs:
            self.agenda.put(run, 0.0)

    def go(self, seconds: float) -> None:
        renewal, gathered = 0.0, 0.0
        for tick in range(int(seconds / GATHER_SECONDS)):
            now = tick * GATHER_SECONDS
            while self.calls and self.calls[0][0] <= now:
                self._end(*heapq.heappop(self.calls))
            if now >= renewal:
                self.agenda.renew(iter(self.runs), now)
                renewal = now + 1.0
            while len(self.calls) < CALLS and gathered <= now and (entries := self._batch(now)):
                heapq.heappush(self.calls, (now + CALL_SECONDS, now, entries))
                gathered = now + GATHER_SECONDS
            self.shortest = min(self.shortest, *(run.lease_until - now for run in self.runs))

    def _batch(self, now: float) -> list[Entry]:
        return self.agenda.batch(self.online, now, lambda run: None, lambda run, error: None)

    def _end(self, now: float, called: float, entries: list[Entry]) -> None:
        for run, plan in entries:
            run.lease_until = called + LEASE
            if plan.sent:
                run.sent(now, BitMap())
            self.agenda.written(run, now)


def test_no_lease_ends_while_huge_notifications_go_out() -> None:
    everyone = BitMap(range(1, 1_000_001))
    huge, small = [_run(f"a{number}", everyone) for number in range(10)], [_run(f"b{number}", SMALL) for number in range(20)]
    sending = _Sending(huge + small, everyone)
    sending.go(14.0)
    assert sending.shortest > 2.0
    assert sum(run.remaining - len(run.plan(BitMap(), 14.0, 0).sent) for run in huge) > 0
    assert len(sending.calls) == CALLS, "they still go out"


def test_a_run_that_fails_harms_no_other() -> None:
    table, broken = _table(), BitMap([1])
    first, faulty, last = (_begun(table, name, SMALL, SMALL) for name in "abc")

    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    faulty.plan = fail  # type: ignore[assignment,method-assign]
    entries = table.batch(SMALL, 1.0)
    assert [entry.run for entry in entries] == [first, last]
    assert faulty.phase is Phase.OVER and len(table) == 2
    last.came = fail  # type: ignore[assignment,method-assign]
    table.came(broken)
    assert len(list(table.spread(1.0))) == 2
    assert len(table) == 1 and not table.news


def test_bytes_are_bounded_and_come_back() -> None:
    many = BitMap(range(1, 400_001, 2))
    table = _table(max_bytes=100_000)
    assert table.room_for("a") and table.bytes == 0
    run = _begun(table, "a", many, BitMap([1]))
    assert len(many.serialize()) < table.bytes and table.room_for("b")
    other = _begun(table, "b", many, BitMap(), sent=many)
    assert table.crowded_out(NotificationRun("c", 1, 0.0, Resends(10.0, 300.0)))
    assert not table.crowded_out(other) and not table.room_for("c") and table.room_for("a"), "what is known is known"
    report = common.NotificationReport(notification_id="b", state=common.NOTIFICATION_STATE_SENDING, pending=1)
    before = table.bytes
    table.recorded("b", many, report, 3.0)
    assert table.bytes < before - len(many.serialize()) / 2 and table.room_for("c"), "who has it counts no more"
    for one in (run, other):
        table.end(one, "over", 3.0)
    assert table.bytes == 0 and table.room_for("c")


def test_a_record_counts_while_it_waits() -> None:
    table = _table(max_bytes=100_000)
    run = table.enter("a", 1, 0.0)
    assert run is not None
    table.describe(run, _terms(), 0, 0.0, 200_000)
    assert table.bytes > 200_000 and not table.room_for("b")
    table.begin(run, Recipients(SMALL), SMALL, 0.0)
    assert table.room_for("b")


def test_what_the_store_does_not_end_waits_quietly() -> None:
    run = _run("a", SMALL, expires=5.0, lease=1e6)
    assert run.plan(SMALL, 5.0).finish
    assert run.unfinished(5.5, 5.5)
    for now in (5.5, 6.0, 5.5 + LOOK_AGAIN_SECONDS - 0.1):
        assert not run.plan(SMALL, now) and not run.hungry(now)
        assert run.when(now) == pytest.approx(5.5 + LOOK_AGAIN_SECONDS)
    run.came(SMALL)
    assert not run.plan(SMALL, 6.0).sent
    assert run.plan(SMALL, 5.5 + LOOK_AGAIN_SECONDS).finish


def test_a_step_that_was_under_way_waits_too() -> None:
    run = _run("a", SMALL, expires=5.0, lease=1e6)
    assert run.plan(SMALL, 1.0).sent
    assert run.plan(SMALL, 5.0).finish and run.unfinished(5.0, 5.0)
    assert not run.plan(SMALL, 6.0) and not run.may_send(6.0)
    assert run.when(6.0) == pytest.approx(5.0 + LOOK_AGAIN_SECONDS)


def test_a_clock_that_was_set_right_lets_it_go_on() -> None:
    run = _run("a", SMALL, expires=5.0, lease=1e6)
    assert run.plan(SMALL, 5.0).finish and run.unfinished(1000.0, 5.0)
    assert run.plan(SMALL, 5.0).sent == SMALL


def test_one_that_knows_nobody_to_go_on_with_is_given_up() -> None:
    table = _table()
    run = table.enter("a", 1, 0.0)
    assert run is not None
    table.describe(run, _terms(5.0), 0, 0.0)
    assert run.plan(SMALL, 5.0).finish
    table.unfinished(run, 5.0, 5.0)
    assert run.phase is Phase.OVER and len(table) == 0

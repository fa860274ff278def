"""The small cores around a run: pace, resends, newcomers, agenda, table, acknowledgements, bitmaps, an outbox's broadcasts."""

import gc
import weakref
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from mesh import errors
from router import bitmaps
from router.agenda import CALL_RUNS, Agenda, Entry
from router.newcomers import Newcomers
from router.notification_acks import GatheredAcks
from router.notification_run import FIRST_STEP, GROWTH, STEP, NotificationRun, Recipients, Terms
from router.notification_table import RunTable
from router.outbox import BROADCAST_BYTES, Outbox
from router.pace import Pace
from router.resends import Resends
from tidings.common.v1 import notification_pb2 as common
from tidings.router.v1.link_pb2 import TRAFFIC_CLASS_CHAT

EVERYONE = BitMap(range(1, 101))


@given(rate=st.integers(1, 1_000_000), waits=st.lists(st.sampled_from([0.0, 0.013, 0.05, 0.1, 0.4]), min_size=20, max_size=80))
def test_no_second_sees_more_than_the_rate(rate: int, waits: list[float]) -> None:
    pace, now, passed = Pace(rate, 0.0), 0.0, list[tuple[float, int]]()
    for wait in waits:
        now += wait
        room = pace.room(now)
        assert room is not None and room >= 0
        pace.passed(now, room)
        passed.append((now, room))
    for begin, _ in passed:
        assert sum(count for at, count in passed if begin <= at < begin + 1.0 - 1e-5) <= rate


@pytest.mark.parametrize(("rate", "lateness"), [(1, 0.01), (7, 0.005), (100, 0.01), (1_000, 0.01), (33_333, 0.005), (999_999, 0.0)])
def test_the_rate_is_reached_by_who_comes_when_told(rate: int, lateness: float) -> None:
    pace, now, count = Pace(rate, 0.0), 0.0, 0
    while now < 10.0:
        when = pace.when(now, 10**9)
        assert when < now + 1.1
        now = when + lateness
        room = pace.room(now)
        assert room is not None and room >= 1, "when told to come, some may pass"
        pace.passed(now, room)
        count += room
    assert 9.5 * rate <= count <= 10.5 * rate + 1


def test_without_a_rate_all_may_pass() -> None:
    pace = Pace(None, 0.0)
    pace.passed(0.0, 10**9)
    assert pace.room(0.0) is None and pace.when(5.0, 1) == 5.0


def test_cohorts_stay_few() -> None:
    resends = Resends(10.0, 300.0)
    now, ordinal = 0.0, 0
    for _ in range(20 * 100):
        now += 0.05
        due = resends.due(now)
        if due:
            resends.sent(due, now)
        ordinal += 1
        resends.sent(BitMap([ordinal]), now)
    cohorts = len(resends.bitmaps) - 6
    assert cohorts < 60
    assert sum(len(one) for one in resends.bitmaps[-cohorts:]) == ordinal


def test_newcomers_are_heard_of_once_by_each() -> None:
    newcomers = Newcomers()
    newcomers.add(BitMap([1]))
    first = newcomers.close()
    newcomers.add(BitMap([2]))
    newcomers.add(BitMap([3]))
    second = newcomers.close()
    assert newcomers.close() == second
    assert [set(newcomers.since(number)) for number in (0, first, second)] == [{1, 2, 3}, {2, 3}, set()]
    newcomers.forget(first)
    assert newcomers and set(newcomers.since(first)) == {2, 3}
    newcomers.forget(second)
    assert not newcomers


def _run(name: str, priority: int = 0, due: float = 0.0, recipients: BitMap = EVERYONE, started: float = 0.0) -> NotificationRun:
    run = NotificationRun(name, 1, started, Resends(10.0, 300.0))
    run.describe(Terms(rate=None, due=due, expires=1e6, expire_time_us=0, frame=b""), priority, started)
    run.begin(Recipients(recipients), recipients, started)
    run.lease_until = 1e6
    return run


def _batch(agenda: Agenda, now: float, online: BitMap = EVERYONE) -> list[str]:
    return [entry.run.notification_id for entry in _entries(agenda, now, online)]


def _entries(agenda: Agenda, now: float, online: BitMap = EVERYONE) -> list[Entry]:
    def fail(run: NotificationRun, _: Exception) -> None:
        raise AssertionError(f"{run.notification_id} failed")

    return agenda.batch(online, now, lambda run: None, fail)


def test_what_is_due_goes_by_priority_then_time() -> None:
    agenda = Agenda(10.0)
    for run in (_run("c", 1, 5.0), _run("a", 1, 9.0), _run("b", 9, 9.0), _run("d", 1, 5.0)):
        agenda.put(run, 0.0)
    assert _batch(agenda, 0.0) == ["b", "c", "d", "a"]
    assert _batch(agenda, 0.0) == []


def test_a_call_carries_so_many_runs_and_recipients() -> None:
    agenda, large = Agenda(10.0), BitMap(range(1, STEP))
    for number in range(CALL_RUNS + 5):
        agenda.put(_run(f"{number:04}", recipients=BitMap([number + 1])), 0.0)
    online = BitMap(range(1, 100_000))
    assert len(_batch(agenda, 0.0, online)) == CALL_RUNS
    assert len(_batch(agenda, 0.0, online)) == 5
    for number in range(STEP // FIRST_STEP + 5):
        agenda.put(_run(f"x{number:02}", recipients=large), 0.0)
    entries = _entries(agenda, 0.0, online)
    assert [len(entry.plan.sent) for entry in entries] == [FIRST_STEP] * (STEP // FIRST_STEP)


def test_lower_runs_wait_for_a_higher_one_that_is_about_to_be_prepared() -> None:
    agenda = Agenda(10.0)
    high = NotificationRun("high", 1, 0.0, Resends(10.0, 300.0))
    high.describe(Terms(rate=None, due=0.0, expires=1e6, expire_time_us=0, frame=b""), 9, 0.0)
    low, old = _run("low", 1), _run("old", 1, started=-5.0)
    agenda.preparing(high)
    agenda.put(low, 0.0)
    agenda.put(old, 0.0)
    assert _batch(agenda, 0.0) == ["old"], "what was started long ago doesn't wait"
    high.begin(Recipients(EVERYONE), EVERYONE, 0.1)
    agenda.prepared(high, 0.1)
    assert _batch(agenda, 0.1) == ["high", "low"]


def _prepared_soon(name: str, priority: int, begins: float) -> NotificationRun:
    run = NotificationRun(name, 1, 0.0, Resends(10.0, 300.0))
    run.describe(Terms(rate=None, due=begins, expires=1e6, expire_time_us=0, frame=b"", begins=begins), priority, 0.0)
    return run


def test_a_higher_one_that_waits_for_its_time_holds_up_nothing() -> None:
    agenda, low = Agenda(10.0), _run("low", 1)
    agenda.preparing(_prepared_soon("high", 9, begins=0.5))
    assert agenda.leads(low, 0.4)
    agenda.put(low, 0.4)
    assert _batch(agenda, 0.4) == ["low"]


def test_a_run_goes_with_its_preparation_only_when_nothing_is_in_its_way() -> None:
    agenda, run = Agenda(10.0), _prepared_soon("run", 5, begins=1.0)
    agenda.preparing(run)
    agenda.preparing(_prepared_soon("lower", 4, begins=1.0))
    assert agenda.leads(run, 1.0)
    agenda.preparing(_prepared_soon("higher", 6, begins=1.1))
    assert agenda.leads(run, 1.0) and not agenda.leads(run, 1.1)


def test_a_run_does_not_go_with_its_preparation_before_what_is_due_or_would_send_more() -> None:
    for under_way in (False, True):
        agenda = Agenda(10.0)
        run, large = _prepared_soon("run", 5, begins=1.0), _run("large", 6, recipients=BitMap(range(1, STEP)))
        agenda.preparing(run)
        agenda.put(large, 0.0)
        if under_way:
            assert _batch(agenda, 1.0, BitMap(range(1, STEP))) == ["large"]
        assert not agenda.leads(run, 1.0)


def test_lower_runs_wait_while_a_higher_one_has_more_than_is_under_way() -> None:
    agenda, everyone = Agenda(10.0), BitMap(range(1, FIRST_STEP * (1 + GROWTH) + 1))
    high, low = _run("high", 9, recipients=everyone), _run("low", 1)
    agenda.put(high, 0.0)
    assert _batch(agenda, 0.0, everyone) == ["high"]
    agenda.put(low, 0.0)
    assert _batch(agenda, 0.0, everyone) == []
    high.sent(0.1, BitMap())
    agenda.written(high, 0.1)
    assert _batch(agenda, 0.1, everyone) == ["high", "low"], "all the rest of the higher one is under way"


def test_nobody_waits_long_for_what_takes_its_time() -> None:
    agenda = Agenda(10.0)
    high = NotificationRun("high", 1, 0.0, Resends(10.0, 300.0))
    high.describe(Terms(rate=None, due=0.0, expires=1e6, expire_time_us=0, frame=b""), 9, 0.0)
    agenda.preparing(high)
    agenda.put(_run("low", 1), 0.0)
    assert _batch(agenda, 0.0) == []
    when = agenda.next
    assert when is not None and when <= 0.3
    assert _batch(agenda, when) == ["low"]


def test_a_run_under_way_is_in_no_other_call() -> None:
    agenda, run = Agenda(10.0), _run("a", recipients=BitMap(range(1, 3 * STEP)))
    online = BitMap(range(1, 3 * STEP))
    agenda.put(run, 0.0)
    assert _batch(agenda, 0.0, online) == ["a"]
    agenda.put(run, 0.0)
    agenda.renew(iter([run]), 1e6)
    assert _batch(agenda, 1e6, online) == []
    agenda.failed(run, 0.0, 0.5)
    assert _batch(agenda, 0.4, online) == []
    assert _batch(agenda, 0.5, online) == ["a"]


def test_who_came_before_a_run_began_did_not_come_to_it() -> None:
    table = RunTable(9, 10**9, 10.0, (10.0, 300.0), lambda: None, lambda why: None, lambda *_: None)
    for name, sent in (("other", BitMap()), ("resumed", EVERYONE)):
        run = table.enter(name, 1, 0.0)
        assert run is not None
        table.describe(run, Terms(rate=None, due=0.0, expires=1e6, expire_time_us=0, frame=b""), 0, 0.0)
        table.came(BitMap([1]))
        table.begin(run, Recipients(EVERYONE, sent=sent), EVERYONE, 0.0)
        run.lease_until = 1e6
    assert len(list(table.spread(1.0))) == 2
    assert [entry.run.notification_id for entry in table.batch(EVERYONE, 1.0)] == ["other"]


def test_a_run_that_ended_leaves_nothing_behind() -> None:
    ended = list[str]()
    table = RunTable(2, 10**9, 10.0, (10.0, 300.0), lambda: None, ended.append, lambda *_: None)
    run = table.enter("a", 3, 0.0)
    assert run is not None and table.enter("b", 1, 0.0) is not None
    assert not table.room_for("c") and table.room_for("a")
    assert table.enter("a", 3, 0.0) is None and table.enter("a", 2, 0.0) is None
    table.describe(run, Terms(rate=None, due=0.0, expires=1e6, expire_time_us=0, frame=b""), 0, 0.0)
    table.begin(run, Recipients(EVERYONE), EVERYONE, 0.0)
    report = common.NotificationReport(notification_id="a", state=common.NOTIFICATION_STATE_COMPLETED)
    table.recorded("a", EVERYONE, report, 0.0)
    assert ended == ["completed"] and len(table) == 1
    left = weakref.ref(run)
    del run
    assert table.agenda.next is None
    gc.collect()
    assert left() is None


def test_acknowledgements_are_united_and_the_oldest_go_for_want_of_room() -> None:
    gathered = GatheredAcks(2, 10_000)
    assert gathered.add("a", BitMap([1]), 20) == gathered.add("a", BitMap([2]), 20) == gathered.add("b", BitMap([1]), 20) == 0
    assert gathered.add("c", BitMap([3]), 20) == 2
    assert gathered.add("d", BitMap([4]), 9_800) == 2
    assert gathered.take() == {"d": BitMap([4])}
    assert not gathered and gathered.take() == {}


def test_acknowledgements_of_one_call_are_bounded() -> None:
    gathered = GatheredAcks(10_000, 100 * 1024 * 1024)
    for number in range(1_500):
        gathered.add(str(number), BitMap([number]), 10)
    gathered.add("large", BitMap([1]), 5 * 1024 * 1024)
    gathered.add("larger", BitMap([1]), 6 * 1024 * 1024)
    taken = [list(gathered.take()) for _ in range(4)]
    assert [len(one) for one in taken] == [1000, 500, 1, 1] and taken[2:] == [["large"], ["larger"]]


@given(st.sets(st.integers(1, 2**31 - 1)))
def test_bitmaps_survive_the_way(ordinals: set[int]) -> None:
    assert set(bitmaps.read(bitmaps.write(BitMap(ordinals)))) == ordinals


@given(st.binary(max_size=40))
def test_bytes_that_are_no_bitmap_are_named(data: bytes) -> None:
    try:
        found = bitmaps.read(data)
    except errors.TidingsError as error:
        assert error.reason == "INTERNAL"
    else:
        assert not found or found.min() >= 1


def test_broadcasts_go_beside_chat_a_few_at_a_time() -> None:
    outbox = Outbox(100, 10_000_000, 100, 10_000_000)
    frame = b"x" * (BROADCAST_BYTES // 2)
    for number in range(5):
        assert outbox.broadcast(bitmaps.write(BitMap([number + 1])), frame, f"n{number}", 7)
    outbox.deliver(0, [1], b"chat", TRAFFIC_CLASS_CHAT)
    taken = [outbox.take(0) for _ in range(4)]
    assert taken[3] is None and outbox.empty
    batches = [one[0].batch for one in taken if one is not None]
    assert [len(batch.deliveries) for batch in batches] == [1, 0, 0]
    assert [one.notification_id for batch in batches for one in batch.broadcasts] == [f"n{number}" for number in range(5)]
    assert [one.expire_time_us for one in batches[0].broadcasts] == [7, 7]
    assert [one[0].sequence for one in taken if one is not None] == [1, 2, 3]


def test_broadcasts_past_the_bound_are_refused_and_the_room_comes_back() -> None:
    outbox = Outbox(1, 1, 2, 1_000)
    outcomes = Counter(outbox.broadcast(b"bits", b"frame", "n", 0) for _ in range(3))
    assert outcomes == {True: 2, False: 1} and outbox.broadcasts == 2
    outbox.take(0)
    assert outbox.broadcast(b"bits", b"frame", "n", 0)
    assert not outbox.broadcast(b"bits", b"x" * 1_000, "n", 0)


@pytest.mark.parametrize("rate", [1, 3, 20, 1000])
def test_a_pace_spreads_evenly(rate: int) -> None:
    pace, now, times = Pace(rate, 0.0), 0.0, list[float]()
    while now < 3.0:
        now = pace.when(now, 10**6)
        times.append(now)
        pace.passed(now, pace.room(now) or 0)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) <= max(1.05 / rate, 0.11)

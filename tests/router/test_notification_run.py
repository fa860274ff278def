"""The core of one notification, against promises written down as plain sets."""

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pyroaring import BitMap

from router.notification_run import FIRST_STEP, GROWTH, STEP, NotificationRun, Phase, Plan, Recipients, Terms
from router.resends import SOON_SECONDS, Resends
from tidings.common.v1 import notification_pb2 as common

FIRST, LONGEST, LEASE = 10.0, 300.0, 10.0
EXPIRES = 10_000.0
_RATES = st.sampled_from([None, 1, 7, 100])
_USERS = st.sets(st.integers(1, 10), max_size=8)


def terms(rate: int | None = None, expires: float = EXPIRES, begins: float = 0.0) -> Terms:
    """What an upload settled."""
    return Terms(rate=rate, due=0.0, expires=expires, expire_time_us=0, frame=b"frame", begins=begins)


def begun(
    expansion: set[int],
    online: set[int],
    *,
    rate: int | None = None,
    expires: float = EXPIRES,
    begins: float = 0.0,
    **stored: set[int],
) -> NotificationRun:
    """A run that can send, at time 0."""
    run = NotificationRun("n1", 1, 0.0, Resends(FIRST, LONGEST))
    run.describe(terms(rate, expires, begins), 5, 0.0)
    run.begin(Recipients(BitMap(expansion), **{part: BitMap(some) for part, some in stored.items()}), BitMap(online), 0.0)
    run.lease_until = EXPIRES * 2
    return run


def send(run: NotificationRun, online: set[int], now: float, missed: set[int] | None = None) -> set[int]:
    """One step, written and sent: to whom."""
    plan = run.plan(BitMap(online), now)
    if not plan.sent:
        return set()
    targets = set(run.targets)
    run.sent(now, BitMap(missed or ()))
    return targets


class RunMachine(RuleBasedStateMachine):
    """Everybody online is reached, nobody else, nobody too early, too often or too fast, under any order of events.

    Only a user's comings, and a full link's word, make an interval between two sends shorter.
    """

    @initialize(
        expansion=_USERS,
        online=_USERS,
        sent=_USERS,
        delivered=_USERS,
        failed=_USERS,
        rate=_RATES,
        begins=st.sampled_from([0.0, 0.2, 20.0]),
    )
    def start(
        self,
        expansion: set[int],
        online: set[int],
        sent: set[int],
        delivered: set[int],
        failed: set[int],
        rate: int | None,
        begins: float,
    ) -> None:
        self.begins = begins
        sent = set() if begins else sent & expansion
        delivered &= sent
        failed = (failed & expansion) - delivered
        self.rate = rate
        self.now = 0.0
        self.expansion, self.online = expansion, online
        self.pending = expansion - delivered - failed
        self.was_sent = set(sent)
        self.may_have = dict.fromkeys(sent & self.pending, 0.0)  # user -> when it was last sent to them
        self.sends: list[tuple[float, int]] = []
        self.step: set[int] = set()
        self.run = begun(expansion, online, rate=rate, begins=begins, sent=sent, delivered=delivered, failed=failed)
        self.over = False

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.3, 1.0, 10.0, 11.3, 25.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(users=_USERS)
    def come(self, users: set[int]) -> None:
        self.online |= users
        self.run.came(BitMap(users))
        for user in users - self.step:
            self.may_have.pop(user, None)

    @rule(users=_USERS)
    def go(self, users: set[int]) -> None:
        self.online -= users

    @rule(users=_USERS)
    def acknowledge(self, users: set[int]) -> None:
        counted = users & self.was_sent & self.pending
        self.pending -= counted
        self.run.delivered(BitMap(users))

    @precondition(lambda self: not self.step and not self.over)
    @rule(limit=st.sampled_from([1, 3, STEP]))
    def choose(self, limit: int) -> None:
        plan = self.run.plan(BitMap(self.online), self.now, limit)
        self._check(plan)
        self.step = set(plan.sent)
        assert len(self.step) <= limit

    @precondition(lambda self: self.step and not self.over)
    @rule()
    def nothing_heard_of_the_store(self) -> None:
        again = self.run.plan(BitMap(self.online), self.now, 1)
        assert again.finish or set(again.sent) == self.step

    @precondition(lambda self: self.step and not self.was_sent and not self.over)
    @rule(seconds=st.sampled_from([0.0, 0.1, 5.0]))
    def too_early_by_the_clock_of_the_store(self, seconds: float) -> None:
        self.begins = self.now + seconds
        self.run.early(self.begins)
        self.step = set()

    @precondition(lambda self: self.step and not self.over)
    @rule(missed=_USERS)
    def written(self, missed: set[int]) -> None:
        if not self.run.may_send(self.now):
            assert self.now >= EXPIRES
            return
        targets = set(self.run.targets)
        assert targets == self.step & self.pending
        reached = (targets & self.online) - missed
        for user in reached:
            last = self.may_have.get(user)
            assert last is None or self.now - last >= FIRST, "sent again too early"
        self.may_have.update(dict.fromkeys(targets, self.now))
        for user in targets & missed:
            del self.may_have[user]
        self.was_sent |= self.step
        self.sends.append((self.now, len(targets)))
        self.run.sent(self.now, BitMap(missed))
        self.step = set()

    def _check(self, plan: Plan) -> None:
        if plan.finish:
            self.over = True
            assert not self.pending or self.now >= EXPIRES
            return
        assert set(plan.sent) <= self.pending & self.online
        assert not plan.sent or self.now >= self.begins, "before its time"
        if self.rate is not None:
            recent = sum(count for at, count in self.sends if self.now - at < 1.0 - 1e-5)
            assert recent + len(plan.sent) <= self.rate

    @invariant()
    def all_online_are_reached_in_time(self) -> None:
        """Were time to go on without further events, everybody online and pending would be sent it within the longest interval."""
        if not self.over and not self.step:
            when = self.run.when(self.now)
            assert when is not None
            if self.pending & self.online:
                assert when <= self.now + LONGEST * 9 / 8 + SOON_SECONDS

    @invariant()
    def counts_are_those_of_sets(self) -> None:
        assert self.run.phase is not Phase.SENDING or self.run.remaining == len(self.pending)

    def teardown(self) -> None:
        """At the end everybody stays online: they are all sent it."""
        if self.over or not hasattr(self, "run"):
            return
        if self.step:
            self.run.sent(self.now, BitMap())
            self.was_sent |= self.step
        waiting = self.pending & self.online
        until = self.now + 2 * LONGEST
        while waiting and not self.over:
            when = self.run.when(self.now)
            assert when is not None and when < min(until, EXPIRES), f"{waiting} are not reached"
            self.now = max(self.now, when)
            waiting -= send(self.run, self.online, self.now)


TestRun = RunMachine.TestCase
TestRun.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_nobody_is_sent_it_before_its_time() -> None:
    run = begun({1, 2}, {1}, begins=5.0)
    assert run.when(0.0) == 5.0 and not run.plan(BitMap([1]), 4.9) and not run.hungry(4.9)
    run.came(BitMap([2]))
    assert run.when(0.0) == 5.0 and send(run, {1, 2}, 5.0) == {1, 2}


def test_the_first_step_may_be_stored_with_the_audience() -> None:
    run = NotificationRun("n1", 1, 0.0, Resends(FIRST, LONGEST))
    run.describe(terms(rate=200, begins=1.0, expires=9.0), 0, 0.0)
    everyone, online = BitMap(range(1, 101)), BitMap(range(50, 200))
    assert not run.first(everyone, online, 0.9) and not run.first(everyone, online, 9.0)
    first = run.first(everyone, online, 1.0)
    assert set(first) == set(range(50, 70)), "what the rate allows at once"
    run.begin(Recipients(everyone), online, 1.0, first)
    run.lease_until = EXPIRES
    assert set(run.plan(online, 1.0).sent) == set(first), "until it is sent it is the step"
    assert send(run, set(online), 1.0) == set(first)
    assert run.remaining == 100 and not send(run, set(online), 1.0)
    assert send(run, set(online), 1.1) == set(range(70, 90)), "the first step counts against the rate"


def test_everyone_online_is_sent_it_at_once_and_in_one_step() -> None:
    run = begun(set(range(1, 1000)), set(range(500, 2000)))
    assert run.when(0.0) == 0.0
    assert send(run, set(range(500, 2000)), 0.0) == set(range(500, 1000))
    assert not run.plan(BitMap(range(2000)), 0.1)


def test_ten_thousand_connected_of_ten_million_are_a_small_step_and_larger_ones() -> None:
    run = NotificationRun("n1", 1, 0.0, Resends(FIRST, LONGEST))
    run.describe(terms(), 0, 0.0)
    online = BitMap(range(1, 10_000_001, 1000))
    run.begin(Recipients(BitMap(range(1, 10_000_001))), online, 0.0)
    steps = [send(run, set(online), 0.0) for _ in range(3)]
    assert [len(step) for step in steps] == [FIRST_STEP, FIRST_STEP * GROWTH, 5_000]
    assert set().union(*steps) == set(online)


def test_large_audiences_go_in_steps() -> None:
    everyone = set(range(1, 50_001))
    run = begun(everyone, everyone)
    sizes = [len(send(run, everyone, 0.0)) for _ in range(6)]
    assert sizes == [1_000, 4_000, 16_000, STEP, 9_000, 0]


def test_resends_double_up_to_the_longest() -> None:
    run = begun({1}, {1})
    times = []
    now = 0.0
    for _ in range(9):
        when = run.when(now)
        assert when is not None
        now = when
        if send(run, {1}, now):
            times.append(now)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    for gap, wanted in zip(gaps, [10, 20, 40, 80, 160, 300, 300], strict=False):
        assert wanted <= gap <= wanted * 9 / 8


def test_who_never_had_it_goes_before_who_is_sent_it_again() -> None:
    everyone = set(range(1, 41))
    run = begun(everyone, everyone, rate=1)
    for second in range(40):
        assert send(run, everyone, float(second)) == {second + 1}


def test_who_comes_back_is_sent_it_at_once_and_from_the_first_interval() -> None:
    run = begun({1}, {1})
    assert send(run, {1}, 0.0) == {1}
    assert send(run, {1}, 12.0) == {1}
    run.came(BitMap([1]))
    assert run.when(13.0) == 13.0
    assert send(run, {1}, 13.0) == {1}
    assert not send(run, {1}, 22.9)
    assert send(run, {1}, 25.0) == {1}


def test_who_was_sent_it_by_an_owner_before_waits_an_interval() -> None:
    run = begun({1, 2, 3}, {1, 2}, sent={1, 3})
    assert send(run, {1, 2}, 0.0) == {2}
    run.came(BitMap([3]))
    assert send(run, {1, 2, 3}, 1.0) == {3}
    assert send(run, {1, 2, 3}, 11.2) == {1, 2}


def test_who_has_it_is_not_in_the_next_step_nor_in_the_one_under_way() -> None:
    run = begun({1, 2}, {1, 2}, sent={1, 2})
    assert run.plan(BitMap([1, 2]), 12.0).sent == BitMap([1, 2])
    run.delivered(BitMap([1]))
    assert run.targets == BitMap([2])
    run.sent(12.0, BitMap())
    assert run.remaining == 1


def test_acknowledgements_heard_while_it_is_prepared_count() -> None:
    run = NotificationRun("n1", 1, 0.0, Resends(FIRST, LONGEST))
    run.describe(terms(), 0, 0.0)
    run.delivered(BitMap([1, 2]))
    run.begin(Recipients(BitMap([1, 2, 3]), sent=BitMap([1])), BitMap([1, 2, 3]), 0.0)
    assert run.remaining == 2  # 2 was never sent it: whoever said so was wrong


def test_it_ends_when_everybody_has_it() -> None:
    run = begun({1, 2}, {1, 2})
    send(run, {1, 2}, 0.0)
    run.delivered(BitMap([1, 2]))
    assert run.when(0.1) == 0.1
    assert run.plan(BitMap(), 0.1).finish == common.NOTIFICATION_STATE_COMPLETED


def test_it_ends_when_the_store_says_that_nobody_is_left() -> None:
    run = begun({1, 2}, set())
    run.told(common.NotificationReport(state=common.NOTIFICATION_STATE_SENDING, expansion=2, pending=1, delivered=1))
    assert run.phase is Phase.SENDING
    run.told(common.NotificationReport(state=common.NOTIFICATION_STATE_SENDING, expansion=2, pending=0, delivered=2))
    assert run.plan(BitMap(), 0.0).finish == common.NOTIFICATION_STATE_COMPLETED


def test_expiry_ends_it_and_nobody_is_sent_it_from_then_on() -> None:
    unsent = begun({1}, set(), expires=5.0)
    assert unsent.when(0.0) == 5.0
    assert not unsent.plan(BitMap([1]), 4.9).finish
    unsent.came(BitMap([1]))
    assert unsent.plan(BitMap([1]), 5.0) == Plan(finish=common.NOTIFICATION_STATE_EXPIRED)
    started = begun({1, 2}, {1}, expires=5.0)
    assert started.plan(BitMap([1]), 4.9).sent
    assert not started.may_send(5.0)
    assert not started.plan(BitMap([1]), 5.0).sent
    sent = begun({1, 2}, {1}, expires=5.0)
    send(sent, {1}, 0.0)
    assert sent.plan(BitMap([1, 2]), 6.0).finish == common.NOTIFICATION_STATE_COMPLETED


def test_a_run_that_is_being_prepared_expires_too() -> None:
    run = NotificationRun("n1", 1, 0.0, Resends(FIRST, LONGEST))
    assert run.when(0.0) is None
    run.describe(terms(expires=5.0), 0, 0.0)
    assert (run.when(0.0), run.plan(BitMap(), 1.0)) == (5.0, Plan())
    assert run.plan(BitMap(), 5.0).finish == common.NOTIFICATION_STATE_EXPIRED


def test_a_failure_says_why() -> None:
    run = NotificationRun("n1", 1, 0.0, Resends(FIRST, LONGEST))
    run.describe(terms(), 0, 0.0)
    run.fail("UNKNOWN_TAG: no such tag")
    assert run.plan(BitMap(), 0.0) == Plan(finish=common.NOTIFICATION_STATE_FAILED, reason="UNKNOWN_TAG: no such tag")


def test_who_comes_while_a_step_is_under_way_gets_it_once() -> None:
    run = begun({1, 2}, {1, 2}, sent={2})
    run.came(BitMap([2]))
    assert run.plan(BitMap([1, 2]), 0.0).sent == BitMap([1, 2])
    assert not run.came(BitMap([1, 2]))
    run.sent(0.0, BitMap())
    assert not run.plan(BitMap([1, 2]), 9.9).sent
    assert run.plan(BitMap([1, 2]), 11.3).sent == BitMap([1, 2])


def test_steps_and_resends_share_the_rate() -> None:
    everyone = set(range(1, 301))
    run = begun(everyone, everyone, rate=20)
    now, sends = 0.0, list[tuple[float, int]]()
    while now < 30.0:
        when = run.when(now)
        assert when is not None
        now = when
        sends.append((now, len(send(run, everyone, now))))
    for begin, _ in sends:
        assert sum(count for at, count in sends if begin <= at < begin + 0.999) <= 20
    assert 570 <= sum(count for _, count in sends) <= 620


def test_nothing_goes_out_when_the_lease_has_lapsed() -> None:
    run = begun({1}, {1})
    run.lease_until = 10.0
    step = run.plan(BitMap([1]), 0.0).sent
    assert run.may_send(9.9) and not run.may_send(10.0)
    assert run.plan(BitMap([1]), 10.0).sent == step, "it is written again as it was"
    run.lease_until = 20.0
    assert run.may_send(10.0)


def test_whom_a_link_had_no_room_for_are_sent_it_soon() -> None:
    run = begun({1, 2}, {1, 2})
    assert send(run, {1, 2}, 0.0, missed={2}) == {1, 2}
    when = run.when(0.0)
    assert when is not None and SOON_SECONDS <= when < 2 * SOON_SECONDS
    assert send(run, {1, 2}, when) == {2}
    assert not run.plan(BitMap([1, 2]), when + 0.1)


def test_it_takes_few_bytes_a_recipient_and_none_when_it_is_over() -> None:
    everyone = BitMap(range(1, 10_000_001, 20))
    run = NotificationRun("n1", 1, 0.0, Resends(FIRST, LONGEST))
    run.describe(terms(), 0, 0.0)
    run.begin(Recipients(everyone), everyone, 0.0)
    now = 0.0
    worst = 0
    while now < 60.0:  # nobody acknowledges
        when = run.when(now)
        assert when is not None
        now = max(now + 0.05, when)
        if run.plan(everyone, now).sent:
            run.sent(now, BitMap())
            worst = max(worst, sum(_bytes(one) for one in run.bitmaps))
    assert worst < 10 * len(everyone), worst / len(everyone)
    run.close()
    assert sum(map(len, run.bitmaps)) == 0


def _bytes(bitmap: BitMap) -> int:
    told = bitmap.get_statistics()
    used = told["n_bytes_array_containers"] + told["n_bytes_run_containers"] + told["n_bytes_bitset_containers"]
    return used + 16 * told["n_containers"]

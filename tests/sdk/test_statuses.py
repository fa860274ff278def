"""Statuses follow the others' marks and never go back."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tidings_client import Status
from tidings_client.statuses import MAX_AWAITED, Marks, Progress, Statuses


def test_direct_delivered_then_read() -> None:
    statuses = Statuses(members_known=True)
    assert statuses.on_sent(1, "a") is Status.SENT
    statuses.on_sent(2, "b")
    assert statuses.on_marks("bob", 1, 0) == [Progress("a", 1, Status.DELIVERED)]
    assert statuses.on_marks("bob", 2, 2) == [Progress("a", 1, Status.READ), Progress("b", 2, Status.READ)]
    assert not statuses.unsettled


def test_a_mark_that_came_before_the_answer_counts() -> None:
    statuses = Statuses(members_known=True)
    statuses.on_marks("bob", 5, 0)
    assert statuses.on_sent(5, "a") is Status.DELIVERED


def test_in_a_group_every_other_member_must_have_it() -> None:
    statuses = Statuses(members_known=False)
    statuses.on_sent(3, "a")
    assert statuses.on_marks("bob", 3, 3) == [], "who else is in it isn't known"
    assert statuses.on_members([("bob", Marks()), ("carol", Marks())]) == []
    assert statuses.on_marks("carol", 3, 0) == [Progress("a", 3, Status.DELIVERED)]


def test_who_joined_later_or_left_does_not_count() -> None:
    statuses = Statuses(members_known=False)
    statuses.on_members([("bob", Marks()), ("carol", Marks())])
    statuses.on_sent(3, "a")
    statuses.on_joined(["dave"], 4)
    statuses.on_marks("bob", 3, 0)
    assert statuses.on_left(["carol"]) == [Progress("a", 3, Status.DELIVERED)]
    assert statuses.on_marks("bob", 3, 3) == [Progress("a", 3, Status.READ)]


def test_a_longer_member_list_takes_nothing_back() -> None:
    statuses = Statuses(members_known=False)
    statuses.on_members([("bob", Marks(delivered_seq=5))])
    assert statuses.on_sent(3, "a") is Status.DELIVERED
    statuses.on_members([("bob", Marks()), ("carol", Marks())])
    assert statuses.status(3) is Status.DELIVERED


def test_alone_in_a_group_nothing_is_delivered() -> None:
    statuses = Statuses(members_known=False)
    statuses.on_members([])
    assert statuses.on_sent(1, "a") is Status.SENT


def test_awaited_messages_are_bounded() -> None:
    statuses = Statuses(members_known=True)
    for seq in range(1, MAX_AWAITED + 11):
        statuses.on_sent(seq, str(seq))
    assert len(statuses.on_marks("bob", MAX_AWAITED + 10, 0)) == MAX_AWAITED


class StatusMachine(RuleBasedStateMachine):
    """Marks, members and messages come in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses = Statuses(members_known=False)
        self.seq = 0
        self.told: dict[int, Status] = {}

    def note(self, made: list[Progress]) -> None:
        for progress in made:
            assert progress.status > self.told[progress.seq], "told once, and forward"
            self.told[progress.seq] = progress.status

    @rule()
    def sent(self) -> None:
        self.seq += 1
        self.told[self.seq] = self.statuses.on_sent(self.seq, str(self.seq))

    @rule(user=st.sampled_from("bcd"), delivered=st.integers(0, 12), read=st.integers(0, 12))
    def marks(self, user: str, delivered: int, read: int) -> None:
        self.note(self.statuses.on_marks(user, delivered, read))

    @rule(users=st.sets(st.sampled_from("bcd")), visible=st.integers(0, 12))
    def members(self, users: set[str], visible: int) -> None:
        self.note(self.statuses.on_members((user, Marks(visible_from_seq=visible)) for user in users))

    @rule(user=st.sampled_from("bcd"))
    def joined(self, user: str) -> None:
        self.statuses.on_joined([user], self.seq + 1)

    @rule(user=st.sampled_from("bcd"))
    def left(self, user: str) -> None:
        self.note(self.statuses.on_left([user]))

    @invariant()
    def what_was_told_is_what_is(self) -> None:
        assert all(self.statuses.status(seq) == status for seq, status in self.told.items())


TestStatusMachine = StatusMachine.TestCase
TestStatusMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

"""Small cores: typists, dispatch marks, receipts, peers."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from mesh.naming import owner
from router.dispatch import DispatchMarks
from router.membership import Membership
from router.peers import Peers
from router.receipts import coalesce, concerned
from router.typists import TYPING_SECONDS, Typists
from tests.router.test_membership import chat
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1.link_pb2 import ReceiptDelta
from tidings.store.v1.message_log_pb2 import MemberMarks

_TYPISTS = st.tuples(st.sampled_from("cd"), st.integers(1, 3))


class TypistsMachine(RuleBasedStateMachine):
    """Starts and stops alternate for each typist, and silence ends typing."""

    def __init__(self) -> None:
        super().__init__()
        self.typists = Typists(4)
        self.now = 0.0
        self.until: dict[tuple[str, int], float] = {}

    @rule(typist=_TYPISTS)
    def typing(self, typist: tuple[str, int]) -> None:
        room = typist in self.until or len(self.until) < 4
        assert self.typists.typing(typist, self.now) is (typist not in self.until and room)
        if room:
            self.until[typist] = self.now + TYPING_SECONDS

    @rule(typist=_TYPISTS)
    def stopped(self, typist: tuple[str, int]) -> None:
        assert self.typists.stopped(typist) is (self.until.pop(typist, None) is not None)

    @rule(seconds=st.floats(0, 8))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        silent = {typist for typist, until in self.until.items() if until <= self.now}
        lapsed = self.typists.lapsed(self.now)
        assert set(lapsed) == silent and len(lapsed) == len(silent)
        for typist in silent:
            del self.until[typist]
        assert len(self.typists) == len(self.until)


TestTypists = TypistsMachine.TestCase
TestTypists.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


class MarksMachine(RuleBasedStateMachine):
    """No mark is noted before every link of its time has acted on what was queued, or is gone; and all are noted in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: DispatchMarks[str] = DispatchMarks(100)
        self.queued: dict[str, int] = {"a": 0, "b": 0}
        self.settled: dict[str, int] = {"a": 0, "b": 0}
        self.needs: dict[tuple[str, int], dict[str, int]] = {}
        self.highest: dict[str, int] = {}
        self.noted: dict[str, int] = {}

    @rule(conversation=st.sampled_from("xyz"))
    def fan_out(self, conversation: str) -> None:
        seq = self.highest[conversation] = self.highest.get(conversation, 0) + 1
        for link in self.queued:
            self.queued[link] += 1
        self.marks.fanned_out(conversation, seq)
        self.needs[conversation, seq] = dict(self.queued)

    @rule(link=st.sampled_from("ab"), share=st.floats(0, 1))
    def settle(self, link: str, share: float) -> None:
        if link in self.queued:
            self.settled[link] += int((self.queued[link] - self.settled[link]) * share)

    @rule(link=st.sampled_from("ab"))
    def lose(self, link: str) -> None:
        self.queued.pop(link, None)
        self.settled.pop(link, None)

    @rule()
    def turn(self) -> None:
        for conversation, seq in self.marks.turn(self.queued, self.settled).items():
            for link, needed in self.needs[conversation, seq].items():
                assert link not in self.settled or self.settled[link] >= needed
            assert seq > self.noted.get(conversation, 0)
            self.noted[conversation] = seq

    def teardown(self) -> None:
        for _ in range(3):
            self.settled = dict(self.queued)
            self.turn()
        assert self.noted == self.highest
        assert len(self.marks) == 0


TestMarks = MarksMachine.TestCase
TestMarks.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_marks_are_bounded_and_come_again_when_they_could_not_be_noted() -> None:
    marks: DispatchMarks[str] = DispatchMarks(2)
    for name in "xyz":
        marks.fanned_out(name, 5)
    assert len(marks) == 2
    assert marks.turn({}, {}) == {}
    assert marks.turn({}, {}) == {"x": 5, "y": 5}
    marks.fanned_out("x", 7)
    marks.put_back({"x": 5})
    marks.turn({}, {})
    assert marks.turn({}, {}) == {"x": 7}


@given(st.lists(st.tuples(st.integers(1, 2), st.sampled_from("pq"), st.sampled_from("cd"), st.integers(0, 9), st.integers(0, 9))))
def test_coalescing_keeps_the_highest_marks(given_: list[tuple[int, str, str, int, int]]) -> None:
    deltas = [
        ReceiptDelta(user_ordinal=user, device_id=device, conversation_id=conversation, delivered_seq=delivered, read_seq=read)
        for user, device, conversation, delivered, read in given_
    ]
    expected: dict[tuple[int, str, str], tuple[int, int]] = {}
    for user, device, conversation, delivered, read in given_:
        known = expected.get((user, device, conversation), (0, 0))
        expected[user, device, conversation] = (max(known[0], delivered), max(known[1], read))
    found = coalesce(deltas)
    assert {(d.user_ordinal, d.device_id, d.conversation_id): (d.delivered_seq, d.read_seq) for d in found} == expected
    assert len(found) == len(expected)


def test_marks_concern_the_senders_of_what_they_pass_and_ones_own_devices_when_read() -> None:
    membership = Membership(chat("g", 1, 1, 2, 3))
    for seq, sender in ((4, 1), (5, 2), (6, 3)):
        membership.wrote(seq, sender)
    delivered = MemberMarks(previous_delivered_seq=4, delivered_seq=6)
    assert concerned(membership, 3, delivered) == {2}
    read = MemberMarks(previous_delivered_seq=6, delivered_seq=6, previous_read_seq=3, read_seq=4)
    assert concerned(membership, 3, read) == {1, 3}
    unknown = MemberMarks(previous_delivered_seq=1, delivered_seq=6)
    assert concerned(membership, 3, unknown) == {1, 2}
    large = Membership(chat("g", 1, *range(1, 50)))
    large.wrote(6, 9)
    assert concerned(large, 3, unknown) == {9}


def test_who_wrote_and_left_is_told_no_receipt() -> None:
    for others in ((), tuple(range(3, 50))):
        membership = Membership(chat("g", 1, 1, 2, *others))
        membership.wrote(5, 2)
        membership.renew(chat("g", 2, 1, *others))
        assert concerned(membership, 1, MemberMarks(previous_delivered_seq=4, delivered_seq=5)) == set()


def test_routers_that_drain_own_nothing() -> None:
    peers = Peers("a")
    assert not peers.owns("key")
    nodes = {name: Instance(instance_id=name) for name in "abc"}
    peers.update(nodes)
    assert peers.changed.is_set()
    assert [key for key in map(str, range(50)) if peers.owns(key)] == [k for k in map(str, range(50)) if owner(k, "abc") == "a"]
    peers.changed.clear()
    peers.update(nodes)
    assert not peers.changed.is_set()
    nodes["a"].draining = True
    peers.update(nodes)
    assert peers.changed.is_set() and not any(peers.owns(str(key)) for key in range(50))

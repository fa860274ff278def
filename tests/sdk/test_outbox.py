"""The outbox against an edge that refuses, a mesh that loses answers, and a network that breaks."""

import itertools
from collections import defaultdict, deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.sdk.fake_server import refusal
from tidings.client.v1.frames_pb2 import ClientFrame, SendMessage
from tidings.common.v1 import error_pb2
from tidings_client import OutboxFull
from tidings_client.naming import direct_conversation_id
from tidings_client.outbox import BEHIND_SECONDS, SILENCE_SECONDS, Outbox, Record

PASSING = refusal(error_pb2.ERROR_CODE_RATE_LIMITED, 1.0)
AWAIT_SECONDS = 5.0  # how long the edge waits for a refused message
FINAL = refusal(error_pb2.ERROR_CODE_CONTENT_TOO_LARGE)


def record(number: int, target: str = "gone") -> Record:
    name = f"m{number}"
    return Record(number, name, target, ClientFrame(send_message=SendMessage(client_msg_id=name, conversation_id=target)))


class Wire:
    """Takes what an outbox gives, as the exchange does."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.attempts = itertools.count(1)

    def send(self, now: float, limit: int = 100) -> list[tuple[int, str]]:
        sent = []
        for taken in self.outbox.take(now, limit):
            attempt = next(self.attempts)
            self.outbox.on_sent(taken, attempt, now)
            sent.append((attempt, taken.client_msg_id))
        return sent


def names(sent: list[tuple[int, str]]) -> list[str]:
    return [name for _, name in sent]


def test_oldest_first_within_the_window() -> None:
    outbox = Outbox([record(1), record(2), record(3)])
    outbox.window = 2
    wire = Wire(outbox)
    assert names(wire.send(0.0)) == ["m1", "m2"]
    outbox.on_stored("m1")
    assert names(wire.send(0.0)) == ["m3"]


def test_after_a_passing_refusal_the_later_ones_of_its_conversation_wait_and_go_again_after_it() -> None:
    outbox = Outbox([record(1, "a"), record(2, "a"), record(3, "b")])
    wire = Wire(outbox)
    [(first, _), (second, _), _] = wire.send(0.0)
    assert outbox.on_refused(first, PASSING, 0.0) is None
    assert outbox.on_refused(second, PASSING, 0.0) is None, "an answer to what goes again anyway"
    outbox.add(record(4, "a"))
    outbox.add(record(5, "b"))
    assert names(wire.send(0.5)) == ["m5"]
    assert outbox.deadline() == 1.0
    assert names(wire.send(1.0)) == ["m1", "m2", "m4"]


def test_a_final_refusal_lets_the_others_go_on() -> None:
    outbox = Outbox([record(1), record(2)])
    wire = Wire(outbox)
    [(first, _), _] = wire.send(0.0)
    failed = outbox.on_refused(first, FINAL, 0.0)
    assert failed is not None
    assert failed.client_msg_id == "m1"
    assert len(outbox) == 1
    assert wire.send(0.0) == []


def test_silence_sends_the_conversation_again_in_order() -> None:
    outbox = Outbox([record(1), record(2)])
    wire = Wire(outbox)
    wire.send(0.0)
    outbox.on_time(SILENCE_SECONDS - 0.1)
    assert wire.send(SILENCE_SECONDS - 0.1) == []
    outbox.on_time(SILENCE_SECONDS)
    assert names(wire.send(SILENCE_SECONDS)) == ["m1", "m2"]


def test_nothing_more_goes_behind_a_message_that_got_no_answer_for_long() -> None:
    outbox = Outbox([record(1, "a")])
    wire = Wire(outbox)
    wire.send(0.0)
    outbox.add(record(2, "a"))
    outbox.add(record(3, "b"))
    assert names(wire.send(BEHIND_SECONDS)) == ["m3"]
    assert not outbox.ready
    outbox.on_stored("m1")
    assert outbox.ready
    assert names(wire.send(BEHIND_SECONDS)) == ["m2"]


def test_a_refusal_that_is_late_lets_no_later_message_overtake() -> None:
    outbox = Outbox([record(1)])
    wire = Wire(outbox)
    wire.send(0.0)  # refused there at once, but the refusal takes its time
    outbox.add(record(2))
    assert wire.send(AWAIT_SECONDS) == []


def test_a_lost_connection_sends_everything_again() -> None:
    outbox = Outbox([record(1), record(2)])
    wire = Wire(outbox)
    wire.send(0.0)
    outbox.on_disconnected()
    assert names(wire.send(1.0)) == ["m1", "m2"]


def test_stored_while_queued_again_is_not_sent_again() -> None:
    outbox = Outbox([record(1), record(2)])
    wire = Wire(outbox)
    wire.send(0.0)
    outbox.on_disconnected()
    outbox.on_stored("m1")
    assert names(wire.send(1.0)) == ["m2"]
    assert outbox.on_stored("m1") is None


def test_a_user_and_their_direct_conversation_are_one_lane_once_we_know_who_we_are() -> None:
    name = direct_conversation_id("alice", "bob")
    by_user = Record(1, "m1", "bob", ClientFrame(send_message=SendMessage(client_msg_id="m1", recipient_id="bob")))
    outbox = Outbox([by_user, record(2, name)])
    outbox.identify("alice")
    wire = Wire(outbox)
    [(first, _), _] = wire.send(0.0)
    outbox.on_refused(first, PASSING, 0.0)
    assert wire.send(0.5) == []
    assert names(wire.send(1.0)) == ["m1", "m2"]


def test_a_full_outbox_refuses() -> None:
    outbox = Outbox([record(1)], capacity=1)
    with pytest.raises(OutboxFull):
        outbox.add(record(2))


class OutboxMachine(RuleBasedStateMachine):
    """Frames travel in order to an edge with the contract's gate, which stores or refuses; answers travel back, or are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.numbers = itertools.count(1)
        self.outbox = Outbox()
        self.outbox.window = 4
        self.wire = Wire(self.outbox)
        self.to_edge: deque[tuple[int, str, int]] = deque()
        self.to_client: deque[tuple[int, str, error_pb2.Error | None]] = deque()
        self.stored: dict[str, list[int]] = defaultdict(list)
        self.gate: dict[str, tuple[int, float]] = {}  # lane -> the refused message, and until when it is waited for
        self.lanes: dict[int, str] = {}
        self.failed: set[int] = set()
        self.hopeless: set[int] = set()

    @rule(lane=st.sampled_from("ab"))
    def add(self, lane: str) -> None:
        number = next(self.numbers)
        self.lanes[number] = lane
        self.outbox.add(record(number, lane))

    @rule(limit=st.integers(1, 5))
    def send(self, limit: int) -> None:
        self.outbox.on_time(self.now)
        for attempt, name in self.wire.send(self.now, limit):
            number = int(name[1:])
            self.to_edge.append((attempt, self.lanes[number], number))

    @precondition(lambda self: self.to_edge)
    @rule(verdict=st.sampled_from(["store", "store", "store", "passing", "final", "store, answer lost"]))
    def edge(self, verdict: str) -> None:
        attempt, lane, number = self.to_edge.popleft()
        name = f"m{number}"
        awaited, until = self.gate.get(lane, (number, 0.0))
        behind = awaited != number and self.now < until
        hopeless = verdict == "final" or number in self.hopeless  # what is refused for good is refused every time
        if hopeless and number not in self.stored[lane] and not behind:
            self.hopeless.add(number)
            self.gate.pop(lane, None)
            self.to_client.append((attempt, name, FINAL))
            return
        if verdict == "passing" and not behind:
            self.gate[lane] = (number, self.now + AWAIT_SECONDS)
        if verdict == "passing" or behind:
            self.to_client.append((attempt, name, PASSING))
            return
        self.gate.pop(lane, None)
        if number not in self.stored[lane]:
            self.stored[lane].append(number)
        if verdict == "store":
            self.to_client.append((attempt, name, None))

    @precondition(lambda self: self.to_client)
    @rule()
    def answer(self) -> None:
        attempt, name, error = self.to_client.popleft()
        if error is None:
            self.outbox.on_stored(name)
        elif self.outbox.on_refused(attempt, error, self.now) is not None:
            self.failed.add(int(name[1:]))

    @precondition(lambda self: not self.to_edge)
    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, SILENCE_SECONDS]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def break_connection(self) -> None:
        self.to_edge.clear()
        self.to_client.clear()
        self.gate.clear()
        self.outbox.on_disconnected()

    @invariant()
    def order_is_kept(self) -> None:
        for numbers in self.stored.values():
            assert numbers == sorted(numbers)
        assert self.outbox.in_flight <= self.outbox.window

    def teardown(self) -> None:
        for _ in range(10 * len(self.lanes) + 10):
            self.send(5)
            while self.to_edge:
                self.edge("store")
            while self.to_client:
                self.answer()
            self.now += SILENCE_SECONDS
        assert len(self.outbox) == 0
        self.order_is_kept()
        stored = {number for numbers in self.stored.values() for number in numbers}
        assert stored | self.failed == set(self.lanes)
        assert not stored & self.failed


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)

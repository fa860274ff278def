"""A link's outbox: nothing is lost silently, answers never, numbers never skip."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.outbox import BATCH_BYTES, Outbox
from tidings.router.v1.link_pb2 import (
    TRAFFIC_CLASS_CHAT,
    TRAFFIC_CLASS_PRESENCE,
    LinkResponse,
    LinkWelcome,
    SessionOpened,
    SyncPage,
)

CAPACITY = 5
CAPACITY_BYTES = 2_000


class OutboxMachine(RuleBasedStateMachine):
    """Each CHAT push is either written, in order, or its users are told to sync by a later response."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(CAPACITY, CAPACITY_BYTES)
        self.now = 0.0
        self.asked = 0
        self.answered: list[int] = []
        self.pushed: list[int] = []
        self.written: list[int] = []
        self.missed: set[int] = set()
        self.sequence = 0
        self.received = 0
        self.horizon: tuple[int, int] | None = None
        self.queued = 0

    @rule(size=st.integers(0, 900))
    def answer(self, size: int) -> None:
        self.asked += 1
        self.outbox.answer(self.now, self.asked, 1, b"x" * size)

    @rule()
    def answer_otherwise(self) -> None:
        self.asked += 2
        self.outbox.answer_opened(self.now, self.asked - 1, 1, SessionOpened(user_ordinal=1))
        self.outbox.answer_sync(self.now, self.asked, 1, SyncPage(frames=[b"f"]))

    @rule(size=st.integers(0, 900), user=st.integers(1, 9))
    def push(self, size: int, user: int) -> None:
        self.queued += 1
        fits = self.outbox.deliver(self.now, [user], b"x" * size, TRAFFIC_CLASS_CHAT, conversation_id="d", seq=self.queued)
        if fits:
            self.pushed.append(self.queued)
        else:
            self.missed.add(user)

    @rule()
    def push_presence(self) -> None:
        self.outbox.deliver(self.now, [77], b"x" * 500, TRAFFIC_CLASS_PRESENCE)

    @rule(tell_now=st.booleans())
    def receive(self, tell_now: bool) -> None:
        self.received += 1
        self.outbox.received(self.received, tell_now=tell_now)

    @rule()
    def take(self) -> None:
        taken = self.outbox.take(self.now)
        if taken is not None:
            self._check(taken[0], taken[1])

    @rule()
    def take_all_and_settle(self) -> None:
        horizon = self.outbox.horizon
        while (taken := self.outbox.take(self.now)) is not None:
            self._check(taken[0], taken[1])
        assert not self.missed and self.outbox.empty and self.written == self.pushed
        assert self.answered == list(range(1, self.asked + 1))
        self.outbox.settle(self.sequence)
        assert self.outbox.settled >= horizon
        assert len(self.outbox) == self.outbox.answer_bytes == 0

    def _check(self, response: LinkResponse, deliveries: int) -> None:
        self.sequence += 1
        assert response.sequence == self.sequence
        assert response.processed_sequence == self.received
        self.answered.extend(reply.envelope_id for reply in response.batch.replies)
        assert deliveries == len(response.batch.deliveries)
        chat = [one for one in response.batch.deliveries if one.traffic_class == TRAFFIC_CLASS_CHAT]
        self.written.extend(one.seq for one in chat)
        assert 77 not in response.batch.resync_user_ordinals
        self.missed -= set(response.batch.resync_user_ordinals)

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.outbox) <= CAPACITY


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_settled_waits_for_the_batch_that_tells_whom_to_sync() -> None:
    outbox = Outbox(1, 10_000)
    assert outbox.deliver(0, [1], b"", TRAFFIC_CLASS_CHAT)
    assert not outbox.deliver(0, [2], b"", TRAFFIC_CLASS_CHAT)
    horizon = outbox.horizon
    first, second = outbox.take(0), outbox.take(0)
    assert first is not None and second is not None
    assert (list(first[0].batch.resync_user_ordinals), list(second[0].batch.resync_user_ordinals)) == ([], [2])
    outbox.settle(first[0].sequence)
    assert outbox.settled < horizon
    outbox.settle(second[0].sequence)
    assert outbox.settled == horizon


def test_a_large_answer_closes_its_batch() -> None:
    outbox = Outbox(10, 10)
    for number in range(3):
        outbox.answer(0, number, 1, b"x" * BATCH_BYTES)
    taken = [outbox.take(1) for _ in range(3)]
    assert all(one is not None and len(one[0].batch.replies) == 1 for one in taken)


@pytest.mark.parametrize("first", [0, 1])
def test_what_was_acted_on_is_told_behind_what_was_queued_before(first: int) -> None:
    outbox = Outbox(10, 10)
    outbox.first(LinkResponse(processed_sequence=first))
    outbox.answer(0, 1, 1, b"x" * BATCH_BYTES)
    for number in range(2, 5):
        outbox.answer(0, number, 1, b"x" * BATCH_BYTES)
        outbox.received(number, tell_now=False)
    outbox.received(5, tell_now=True)
    outbox.drain()
    taken = [outbox.take(1) for _ in range(5)]
    assert [one and one[0].processed_sequence for one in taken] == [first, first, 2, 3, 5]


def test_the_welcome_goes_first_and_the_drain_at_once() -> None:
    outbox = Outbox(10, 1000)
    welcome = outbox.first(LinkResponse(processed_sequence=1, welcome=LinkWelcome(router_id="r")))
    assert (welcome.sequence, welcome.processed_sequence) == (1, 1)
    outbox.deliver(5, [1], b"x", TRAFFIC_CLASS_CHAT)
    outbox.drain()
    taken = outbox.take(7)
    assert taken is not None and taken[0].HasField("drain")
    taken = outbox.take(7)
    assert taken is not None and taken[1:] == (1, 2)


def test_a_drain_that_tells_nothing_new_leaves_it_to_be_told() -> None:
    outbox = Outbox(10, 1000)
    outbox.first(LinkResponse(processed_sequence=1))
    outbox.received(2, tell_now=True)
    outbox.drain()
    taken = [outbox.take(0) for _ in range(3)]
    assert [one and one[0].processed_sequence for one in taken] == [1, 2, None]


def test_silence_is_broken_only_to_tell_news() -> None:
    outbox = Outbox(10, 1000)
    outbox.received(1, tell_now=False)
    assert outbox.take(0) is None
    outbox.tell()
    taken = outbox.take(0)
    assert taken is not None and taken[0].processed_sequence == 1
    outbox.tell()
    assert outbox.take(0) is None

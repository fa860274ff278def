"""The outbox against a model: bounded, in order within a class, dropping from the least important class, counting what it drops."""

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.outbox import CHAT, NOTIFICATION, PRESENCE, RECEIPT, Fate, Outbox

CLASSES = st.sampled_from([CHAT, RECEIPT, NOTIFICATION, PRESENCE])


class OutboxMachine(RuleBasedStateMachine):
    @initialize(max_bytes=st.integers(1, 60), max_frames=st.integers(1, 8))
    def begin(self, max_bytes: int, max_frames: int) -> None:
        self.max_bytes, self.max_frames = max_bytes, max_frames
        self.outbox = Outbox(max_bytes, max_frames)
        self.model: dict[int, deque[bytes]] = {one: deque() for one in (CHAT, RECEIPT, NOTIFICATION, PRESENCE)}
        self.dropped = Counter[int]()
        self.expected = Counter[int]()
        self.asked = 0
        self.serial = 0

    @rule(size=st.integers(4, 30), traffic_class=CLASSES)
    def offer(self, size: int, traffic_class: int) -> None:
        frame = self._frame(size)
        fate = self.outbox.offer(frame, traffic_class, self._dropped)
        while self.queued and self._over(frame) and self._victim(traffic_class) is not None:
            victim = self._victim(traffic_class)
            assert victim is not None
            self._count(victim, len(self.model[victim]))
            self.model[victim].clear()
        if self.queued and self._over(frame):
            assert fate is (Fate.TOO_SLOW if traffic_class == CHAT else Fate.DROPPED)
            if traffic_class != CHAT:
                self._count(traffic_class, 1)
        else:
            assert fate is Fate.QUEUED
            self.model[traffic_class].append(frame)

    @rule(size=st.integers(4, 100))
    def offer_what_was_asked_for(self, size: int) -> None:
        frame = self._frame(size)
        assert self.outbox.offer(frame, CHAT, self._dropped, asked=True) is Fate.QUEUED
        self.model[CHAT].append(frame)
        self.asked += len(frame)

    @rule(max_bytes=st.integers(1, 80))
    def take(self, max_bytes: int) -> None:
        before = self.queued
        taken = self.outbox.take(max_bytes)
        assert bool(taken) == bool(before)
        for frame in taken:
            first = next(queue for queue in self.model.values() if queue)
            assert first.popleft() == frame
        assert sum(map(len, taken[:-1])) <= max_bytes
        if not self.queued:
            self.asked = 0

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        assert len(self.outbox) == self.queued
        assert self.outbox.size == self._bytes()
        assert dict(self.dropped) == dict(self.expected)

    @property
    def queued(self) -> int:
        return sum(map(len, self.model.values()))

    def _bytes(self) -> int:
        return sum(len(frame) for queue in self.model.values() for frame in queue)

    def _over(self, frame: bytes) -> bool:
        return self._bytes() + len(frame) > self.max_bytes or self.queued >= self.max_frames

    def _victim(self, traffic_class: int) -> int | None:
        return next((one for one in (PRESENCE, NOTIFICATION, RECEIPT) if one > traffic_class and self.model[one]), None)

    def _count(self, traffic_class: int, frames: int) -> None:
        self.expected[traffic_class] += frames

    def _dropped(self, traffic_class: int, frames: int) -> None:
        self.dropped[traffic_class] += frames

    def _frame(self, size: int) -> bytes:
        self.serial += 1
        return self.serial.to_bytes(4, "big").ljust(size, b".")


TestOutbox = OutboxMachine.TestCase


@given(st.lists(st.tuples(CLASSES, st.integers(0, 200)), max_size=200))
def test_it_never_holds_more_than_its_bound(offers: list[tuple[int, int]]) -> None:
    outbox = Outbox(500, 20)
    for traffic_class, size in offers:
        outbox.offer(bytes(size), traffic_class, lambda _class, _frames: None)
        assert outbox.size <= 500
        assert len(outbox) <= 20

"""The batcher loses nothing, reorders nothing, and lets nobody wait who needn't."""

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mesh.batching import Batcher, Closed


class Recording(Batcher[int]):
    """Writes down what was let in, in order."""

    def __init__(self, capacity: int, max_batch: int) -> None:
        super().__init__(capacity, max_batch)
        self.accepted: list[int] = []

    def offer(self, item: int) -> bool:
        let_in = super().offer(item)
        if let_in:
            self.accepted.append(item)
        return let_in


class BatcherMachine(RuleBasedStateMachine):
    """Calls come in any order, several within one turn of the loop; the loop then settles and all is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.max_batch = 2
        self.batcher = Recording(3, 2)
        self.taken: list[int] = []
        self.last: list[int] = []
        self.put_tasks: dict[int, asyncio.Task[None]] = {}
        self.cancelled: set[int] = set()
        self.refused: set[int] = set()
        self.taker: asyncio.Task[list[int]] | None = None
        self.next = 0
        self.closed = False
        self.settled = True

    @initialize(sizes=st.sampled_from([(1, 1), (2, 1), (3, 2), (2, 5)]))
    def create(self, sizes: tuple[int, int]) -> None:
        self.batcher, self.max_batch = Recording(*sizes), sizes[1]

    def number(self) -> int:
        self.next += 1
        self.settled = False
        return self.next

    @rule()
    def offer(self) -> None:
        item = self.number()
        with contextlib.suppress(Closed):
            if self.batcher.offer(item):
                return
        self.refused.add(item)

    @rule()
    def put(self) -> None:
        item = self.number()
        self.put_tasks[item] = self.loop.create_task(self.batcher.put(item))

    @precondition(lambda self: self.put_tasks)
    @rule(data=st.data())
    def cancel_put(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(sorted(self.put_tasks)))
        if self.put_tasks[item].cancel():
            self.cancelled.add(item)
        self.settled = False

    @precondition(lambda self: self.taker is None)
    @rule()
    def take(self) -> None:
        self.taker = self.loop.create_task(self.batcher.take())
        self.settled = False

    @precondition(lambda self: self.taker is not None)
    @rule()
    def cancel_take(self) -> None:
        if self.taker is not None:
            self.taker.cancel()
        self.settled = False

    @precondition(lambda self: self.taker is None)
    @rule()
    def take_now(self) -> None:
        self.keep(self.batcher.take_now())
        self.settled = False

    @precondition(lambda self: self.taker is None and self.put_tasks)
    @rule(data=st.data())
    def take_now_and_cancel_a_put_in_the_same_turn(self, data: st.DataObject) -> None:
        self.take_now()
        self.cancel_put(data)

    @precondition(lambda self: self.last and self.taker is None)
    @rule()
    def put_back(self) -> None:
        self.batcher.put_back(self.last)
        del self.taken[-len(self.last) :]
        self.last = []
        self.settled = False

    @rule()
    def turn(self) -> None:
        """One turn only: what was called has run, what it called has not."""
        self.loop.run_until_complete(asyncio.sleep(0))
        self.collect()
        self.settled = False

    @rule()
    def settle(self) -> None:
        for _ in range(4 * (len(self.put_tasks) + 4)):
            self.loop.run_until_complete(asyncio.sleep(0))
        self.collect()
        self.settled = True

    @precondition(lambda self: self.next > 8)
    @rule()
    def close(self) -> None:
        self.batcher.close()
        self.closed, self.settled = True, False

    def keep(self, batch: list[int]) -> None:
        assert len(batch) <= self.max_batch
        self.taken += batch
        self.last = batch

    def collect(self) -> None:
        if self.taker is not None and self.taker.done():
            if not self.taker.cancelled() and self.taker.exception() is None:
                batch = self.taker.result()
                assert batch, "take came back with nothing"
                self.keep(batch)
            self.taker = None
        for item, task in list(self.put_tasks.items()):
            if task.done():
                del self.put_tasks[item]
                if task.cancelled() or isinstance(task.exception(), Closed):
                    self.refused.add(item)

    @invariant()
    def nothing_is_lost_or_reordered(self) -> None:
        if self.taker is not None and self.taker.done():
            return  # it holds a batch that `collect` hasn't seen
        inside: Any = self.batcher
        assert self.taken + list(inside._items) == self.batcher.accepted

    @invariant()
    def whoever_was_told_it_went_in_went_in(self) -> None:
        known = {*self.batcher.accepted, *self.refused, *self.put_tasks}
        assert known == set(range(1, self.next + 1))
        if self.settled:
            assert not set(self.batcher.accepted) & (self.refused - self.cancelled)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        if not self.settled:
            return
        assert not (self.put_tasks and not self.batcher.full), "a put waits beside free room"
        assert not (self.taker and len(self.batcher)), "a take waits beside items"
        assert not (self.closed and (self.put_tasks or self.taker)), "someone waits for a closed batcher"

    def teardown(self) -> None:
        self.settle()
        self.nobody_waits_in_vain()
        for task in [*self.put_tasks.values(), *([self.taker] if self.taker else [])]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Closed):
                self.loop.run_until_complete(task)
        self.loop.close()


BatcherMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBatcher = BatcherMachine.TestCase


async def test_a_put_called_in_and_cancelled_in_one_turn_lets_the_next_one_in() -> None:
    batcher = Batcher[int](1, 10)
    batcher.offer(1)
    first, second = (asyncio.create_task(batcher.put(item)) for item in (2, 3))
    await asyncio.sleep(0)
    batcher.take_now()
    first.cancel()
    await asyncio.wait_for(second, 5)
    assert await batcher.take() == [3]


async def test_cancelled_puts_leave_nothing_behind() -> None:
    batcher = Batcher[int](1, 10)
    batcher.offer(1)
    for item in range(100):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.put(item), 0)
    inside: Any = batcher
    assert len(inside._putters) == 0


async def test_what_was_in_can_be_taken_after_closing_and_nothing_goes_in() -> None:
    batcher = Batcher[int](10, 2)
    for item in range(3):
        await batcher.put(item)
    batcher.close()
    with pytest.raises(Closed):
        batcher.offer(4)
    with pytest.raises(Closed):
        await batcher.put(4)
    assert await batcher.take() == [0, 1]
    assert await batcher.take() == [2]
    with pytest.raises(Closed):
        await batcher.take()


async def test_it_gathers_while_the_consumer_is_busy_and_sends_a_lone_item_at_once() -> None:
    batcher = Batcher[int](100, 50)
    taking = asyncio.create_task(batcher.take())
    await asyncio.sleep(0)
    batcher.offer(0)
    assert await taking == [0]
    for item in range(70):
        batcher.offer(item)
    assert await batcher.take() == list(range(50))
    assert await batcher.take() == list(range(50, 70))

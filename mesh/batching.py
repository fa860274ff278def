"""The natural batcher: send what has queued up while the last send was under way.

There is no timer. A lone item goes at once (latency); under load, items gather while the consumer is busy and go together
(throughput). One consumer, any number of producers, one event loop.
"""

import asyncio
import contextlib
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):  # noqa: N818  (a state, not a fault)
    """The batcher was closed: nothing more goes in, and what was in has been taken."""


class Batcher(Generic[T]):
    """A bounded queue that is drained whole.

    Args:
        capacity: most items held. When full, `offer` refuses and `put` waits.
        max_batch: most items given by one `take`.
    """

    def __init__(self, capacity: int, max_batch: int) -> None:
        self._capacity = capacity
        self._max_batch = max_batch
        self._items: deque[T] = deque()
        self._taker: asyncio.Future[None] | None = None
        self._putters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether `offer` would refuse."""
        return len(self._items) >= self._capacity

    def offer(self, item: T) -> bool:
        """Add without waiting; False when there is no room, and the caller says what that means.

        Raises:
            Closed: after `close`.
        """
        if self._closed:
            raise Closed
        if len(self._items) >= self._capacity:
            return False
        self._items.append(item)
        self._wake_taker()
        return True

    async def put(self, item: T) -> None:
        """Add, waiting for room: this is how backpressure travels.

        Raises:
            Closed: after `close`.
        """
        while not self.offer(item):
            room = asyncio.get_running_loop().create_future()
            self._putters.append(room)
            try:
                await room
            except asyncio.CancelledError:
                self._give_up(room)
                raise

    async def take(self) -> list[T]:
        """Wait for at least one item, then take all there are, up to `max_batch`, in order.

        A cancelled `take` has taken nothing.

        Raises:
            Closed: closed and empty.
        """
        while not self._items:
            if self._closed:
                raise Closed
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        return self.take_now()

    def take_now(self, most: int | None = None) -> list[T]:
        """Take what is there, up to `most`, or `max_batch`; maybe nothing."""
        most = self._max_batch if most is None else most
        if len(self._items) <= most:
            batch = list(self._items)
            self._items.clear()
        else:
            batch = [self._items.popleft() for _ in range(most)]
        self._wake_putters(len(batch))
        return batch

    def put_back(self, batch: list[T]) -> None:
        """Return a batch to the front, in its order; it may exceed the capacity, for it was inside before."""
        self._items.extendleft(reversed(batch))
        self._wake_taker()

    def close(self) -> None:
        """Refuse new items; what is inside can still be taken."""
        self._closed = True
        self._wake_taker()
        self._wake_putters(len(self._putters))

    def _wake_taker(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    def _give_up(self, room: asyncio.Future[None]) -> None:
        """A cancelled `put` leaves the line; one that was called at that very moment lets the next go instead."""
        if room.cancelled():
            with contextlib.suppress(ValueError):
                self._putters.remove(room)
        else:
            self._wake_putters(1)

    def _wake_putters(self, room: int) -> None:
        while room > 0 and self._putters:
            waiter = self._putters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

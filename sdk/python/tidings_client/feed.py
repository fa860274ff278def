"""What the application takes: messages, read from the state in the order in which they came, and events.

Messages are never dropped: a consumer that is behind reads them from the state, and past a bound nothing more is acknowledged
until it catches up, so that the server holds the rest back. Events are hints: a full queue drops the oldest, and counts.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self
from weakref import WeakKeyDictionary

from tidings_client.model import Event, Message, message_of
from tidings_client.state import State

READ_AHEAD = 100  # messages read from the state at once
MAX_BEHIND = 5_000  # messages a consumer may be behind before the server is held back
MAX_EVENTS = 1_000  # events a consumer may be behind before the oldest are dropped
FORGET_EVERY = 1_000  # messages between clearing out a state in memory


class Feed:
    """The messages.

    How far the application has come is kept, so after a restart messages() goes on with the first one that was not yet taken; one
    counts as taken when the next is asked for, when iterating begins anew, and when the client is closed in order. Several
    iterators at once each see every message. While nobody iterates, nothing is held back; what came is there for whoever begins.

    Args:
        on_pace: told whenever acknowledgements should be held (True) or go on (False).
    """

    def __init__(self, state: State, on_pace: Callable[[bool], None]) -> None:
        self._state = state
        self._on_pace = on_pace
        self._taken = self._given = int(state.identity("taken") or 0)
        self._iterators: WeakKeyDictionary[MessageIterator, None] = WeakKeyDictionary()
        self._held = False
        self._forgotten = 0
        self.arrived = asyncio.Event()
        self.closed = False

    def on_arrival(self) -> None:
        """The state has new entries."""
        self._wake()
        self._repace()
        if self._state.arrival - self._forgotten >= FORGET_EVERY:
            self._forgotten = self._state.arrival
            self._state.forget_taken(self._slowest())

    def close(self, *, in_order: bool) -> None:
        """Iterators end; what they gave counts as taken when the application leaves in order, not by an exception."""
        if in_order:
            self.take(self._given)
        self.closed = True
        self._wake()

    def messages(self) -> "MessageIterator":
        """A new iterator."""
        self.take(self._given)
        iterator = MessageIterator(self, self._state, self._taken)
        self._iterators[iterator] = None
        self._repace()
        return iterator

    def give(self, number: int) -> None:
        """The application gets the message that arrived as this number."""
        self._given = max(self._given, number)

    def take(self, number: int) -> None:
        """The application is done with everything up to this number."""
        if number > self._taken and not self.closed:
            self._taken = number
            self._state.set_taken(number)
        if self._held:
            self._repace()

    def _wake(self) -> None:
        self.arrived.set()
        self.arrived = asyncio.Event()

    def _slowest(self) -> int:
        return min((iterator.position for iterator in self._iterators), default=self._state.arrival)

    def _repace(self) -> None:
        behind = self._state.arrival - self._slowest()
        held = behind > (MAX_BEHIND // 2 if self._held else MAX_BEHIND)
        if held != self._held:
            self._held = held
            self._on_pace(held)


class MessageIterator(AsyncIterator[Message]):
    """One pass over the messages; ends when the client closes."""

    def __init__(self, feed: Feed, state: State, position: int) -> None:
        self._feed = feed
        self._state = state
        self.position = position
        self._ahead: deque[tuple[int, Message]] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        self._feed.take(self.position)
        while not self._ahead:
            if self._feed.closed:
                raise StopAsyncIteration
            arrived = self._feed.arrived
            rows = self._state.arrived_after(self.position, READ_AHEAD)
            self._ahead.extend((number, message_of(entry)) for number, entry in rows)
            if not rows:
                await arrived.wait()
        if self._feed.closed:
            raise StopAsyncIteration
        self.position, message = self._ahead.popleft()
        self._feed.give(self.position)
        return message


class EventQueue:
    """One consumer's events. When full, the oldest is dropped and counted."""

    def __init__(self, capacity: int = MAX_EVENTS) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self._arrived = asyncio.Event()
        self._closed = False
        self.dropped = 0

    def put(self, event: Event) -> None:
        """Add one."""
        self.dropped += len(self._events) == self._events.maxlen
        self._events.append(event)
        self._arrived.set()

    def close(self) -> None:
        """No more will come; what is there can still be taken."""
        self._closed = True
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()

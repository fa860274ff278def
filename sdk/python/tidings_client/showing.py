"""Notifications as the application takes them: each once on this device, whoever asks, also over a crash and a restart.

One counts as shown, on disk, before the application has it: what it was given when it died isn't given again.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from tidings_client.model import Notification, notification_of
from tidings_client.notifications import ServerClock, expiry
from tidings_client.state import State


class Showing:
    """Hands out what waits in the state. Several iterators share: each notification goes to one of them."""

    def __init__(self, state: State, clock: ServerClock) -> None:
        self._state, self._clock = state, clock
        self._arrived = asyncio.Event()
        self._closed = False

    def on_arrival(self) -> None:
        """There may be something to show."""
        self._arrived.set()
        self._arrived = asyncio.Event()

    def close(self) -> None:
        """Iterators end."""
        self._closed = True
        self.on_arrival()

    async def next(self) -> Notification | None:
        """The next one; waits for it. None when the client has closed."""
        await asyncio.sleep(0)  # each waits for the disk: whoever takes thousands lets others have a turn
        while not self._closed:
            notification = self._state.show_notification(self._clock.now())
            if notification is None:
                await self._arrived.wait()
            elif self._clock.now() < expiry(notification, self._clock.now()):  # a disk may have taken longer than it had to live
                return notification_of(notification)
        return None


class NotificationIterator(AsyncIterator[Notification]):
    """One pass over the notifications; ends when the client closes."""

    def __init__(self, showing: Showing) -> None:
        self._showing = showing

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notification:
        notification = await self._showing.next()
        if notification is None:
            raise StopAsyncIteration
        return notification

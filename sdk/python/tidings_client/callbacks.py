"""Callbacks for those who don't want to iterate: one at a time, in order, plain functions or coroutine functions."""

import asyncio
import contextlib
import inspect
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

from tidings_client.errors import StateFileError
from tidings_client.model import Message, Notification

STATE_RETRY_SECONDS = 5.0  # before reading on from a state file that couldn't be used
_log = logging.getLogger(__name__)

Callback = Callable[[Any], Any]
Source = Callable[[], AsyncIterator[Any]]


class Callbacks:
    """Who is called for what.

    Args:
        messages: begins an iteration over messages; only used once someone wants them.
        notifications: likewise, over notifications.
        events: begins an iteration over events.
    """

    def __init__(self, messages: Source, notifications: Source, events: Source) -> None:
        self._sources: dict[type, Source] = {Message: messages, Notification: notifications, object: events}
        self._callbacks: dict[type, list[Callback]] = defaultdict(list)
        self._pumps: dict[type, asyncio.Task[None]] = {}
        self._started = False
        self._stopping = asyncio.Event()

    def add(self, kind: type, callback: Callback) -> None:
        """Call back for each message or event of this type."""
        self._callbacks[kind].append(callback)
        if self._started:
            self.start()

    def start(self) -> None:
        """Begin calling."""
        self._started = True
        for kind in {kind if kind in self._sources else object for kind in self._callbacks} - self._pumps.keys():
            source = self._sources[kind]()
            self._pumps[kind] = asyncio.create_task(self._pump(source))

    async def stop(self) -> None:
        """Let the callback under way end; call no more. The sources have been closed."""
        self._stopping.set()
        pumps = [pump for pump in self._pumps.values() if pump is not asyncio.current_task()]
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: AsyncIterator[Any]) -> None:
        while not await self._drain(source):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), STATE_RETRY_SECONDS)

    async def _drain(self, source: AsyncIterator[Any]) -> bool:
        """Call back until the source ends; False when the state file can't be used just now."""
        try:
            async for one in source:
                for callback in list(self._callbacks[type(one)]):
                    await _call(callback, one)
        except StateFileError as error:
            _log.error("callbacks wait for the state file: %s", error)
            return False
        return True


async def _call(callback: Callback, one: object) -> None:
    try:
        answer = callback(one)
        if inspect.isawaitable(answer):
            await answer
    except Exception:  # the application's fault is not the connection's
        _log.exception("a callback failed on %s", type(one).__name__)

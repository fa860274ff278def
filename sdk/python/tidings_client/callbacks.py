"""Callbacks for those who don't want to iterate: one at a time, in order, plain functions or coroutine functions."""

import asyncio
import inspect
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

from tidings_client.model import Message

_log = logging.getLogger(__name__)

Callback = Callable[[Any], Any]


class Callbacks:
    """Who is called for what.

    Args:
        messages: begins an iteration over messages; only used once someone wants them.
        events: begins an iteration over events.
    """

    def __init__(self, messages: Callable[[], AsyncIterator[Any]], events: Callable[[], AsyncIterator[Any]]) -> None:
        self._sources = {True: messages, False: events}
        self._callbacks: dict[type, list[Callback]] = defaultdict(list)
        self._pumps: dict[bool, asyncio.Task[None]] = {}
        self._started = False

    def add(self, kind: type, callback: Callback) -> None:
        """Call back for each message or event of this type."""
        self._callbacks[kind].append(callback)
        if self._started:
            self.start()

    def start(self) -> None:
        """Begin calling."""
        self._started = True
        for is_message in {kind is Message for kind in self._callbacks} - self._pumps.keys():
            source = self._sources[is_message]()
            self._pumps[is_message] = asyncio.create_task(self._pump(source))

    async def stop(self) -> None:
        """Let the callback under way end; call no more. The sources have been closed."""
        pumps = [pump for pump in self._pumps.values() if pump is not asyncio.current_task()]
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: AsyncIterator[Any]) -> None:
        async for one in source:
            for callback in list(self._callbacks[type(one)]):
                await _call(callback, one)


async def _call(callback: Callback, one: object) -> None:
    try:
        answer = callback(one)
        if inspect.isawaitable(answer):
            await answer
    except Exception:  # the application's fault is not the connection's
        _log.exception("a callback failed on %s", type(one).__name__)

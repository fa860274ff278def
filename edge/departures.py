"""Asking clients to leave, each at their own time, so that they don't all reconnect at once."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

from edge.connection import Connection
from edge.population import Population
from tidings.common.v1 import error_pb2

GRACE_SECONDS = 5.0  # how long after its appointment a client may stay
BURST = 200  # GoAways written before others get their turn


def appointments(count: int, over: float, chance: Callable[[], float]) -> list[float]:
    """When each of `count` clients is to leave: evenly over `over` seconds, each anywhere in its own slot.

    Args:
        chance: gives numbers in [0, 1).
    """
    slot = over / count if count else 0.0
    return [(index + chance()) * slot for index in range(count)]


class Departures:
    """Orders clients away.

    Args:
        flush: writes what sessions had to say.
    """

    def __init__(self, population: Population, flush: Callable[[], None]) -> None:
        self._population = population
        self._flush = flush
        self._tasks: set[asyncio.Task[None]] = set()

    def drain(self, over: float) -> None:
        """Take no newcomers any more, and ask everyone to leave within `over` seconds; who stays on is closed."""
        self._population.drain()
        self._begin(self._send_away(self._population.all(), over, close=True))

    def shed(self, count: int, over: float) -> None:
        """Ask `count` clients, by chance, to leave within `over` seconds."""
        everyone = self._population.all()
        some = random.sample(everyone, min(count, len(everyone)))
        self._begin(self._send_away(some, over, close=False))

    async def leave(self, seconds: float) -> None:
        """Drain, and return when nobody is left or after `seconds`; whoever is left then is closed."""
        self.drain(max(0.0, seconds - GRACE_SECONDS) or seconds / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._population.empty()
        for task in self._tasks:
            task.cancel()
        self._close(self._population.all())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_away(self, connections: list[Connection], over: float, *, close: bool) -> None:
        random.shuffle(connections)
        times = appointments(len(connections), over, random.random)
        for index, (connection, time) in enumerate(zip(connections, times, strict=True), 1):
            connection.session.go_away(time)
            if index % BURST == 0:
                self._flush()
                await asyncio.sleep(0)
        self._flush()
        if close:
            await asyncio.sleep(over + GRACE_SECONDS)
            self._close(connections)

    def _close(self, connections: list[Connection]) -> None:
        for connection in connections:
            connection.session.close(error_pb2.ERROR_CODE_GOING_AWAY)
        self._flush()

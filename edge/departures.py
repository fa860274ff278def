"""Asking clients to leave, each at their own time and with another edge's ticket, so that they don't all come back at once.

Whoever no balancer has a place for is told a time alone, and asks a balancer then. An order to leave altogether supersedes those
to send some away.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

from edge.connection import Connection
from edge.places import PATIENCE_SECONDS, Places
from edge.population import Population
from edge.timetable import CHUNK, Timetable
from tidings.balancer.v1 import balancer_pb2
from tidings.common.v1 import error_pb2

GRACE_SECONDS = 5.0  # how long after its appointment a client may stay
ANSWER_SECONDS = 1.0  # how long clients may take to answer the close before an edge that ends cuts them off
BURST = 200  # GoAways written before others get their turn
STRIDE_SECONDS = 1.0  # between telling some and telling the next: balancers are asked about many at once

Chunk = list[tuple[float, Connection]]


class Departures:
    """Orders clients away.

    Args:
        flush: writes what sessions had to say.
        told: counts clients told to leave: with a place, and without.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        population: Population,
        places: Places,
        flush: Callable[[], None],
        told: Callable[[int, int], None],
        clock: Callable[[], float],
    ) -> None:
        self._population = population
        self._places = places
        self._flush = flush
        self._told = told
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def drain(self, over: float) -> None:
        """Take no newcomers any more, and ask everyone to leave within `over` seconds; who stays on is closed."""
        self._population.drain()
        self._stop()
        self._begin(self._empty(over))

    def shed(self, count: int, over: float) -> None:
        """Ask `count` clients, by chance, to leave within `over` seconds."""
        if not self._population.draining:
            everyone = self._population.all()
            self._begin(self._send_away(random.sample(everyone, min(count, len(everyone))), over))

    async def leave(self, seconds: float) -> None:
        """Drain, and return when nobody is left or after `seconds`; whoever is left then is closed."""
        self.drain(max(0.0, seconds - GRACE_SECONDS) or seconds / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._population.empty()
        self._stop()
        self._close_all()
        await self._cut_off()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _empty(self, over: float) -> None:
        everyone = self._population.all()
        random.shuffle(everyone)
        await self._send_away(everyone, over)
        await asyncio.sleep(GRACE_SECONDS)
        self._close_all()

    async def _send_away(self, connections: list[Connection], over: float) -> None:
        """Tell each when their time is near; returns when the last have left, if they do as they are told."""
        patience = min(PATIENCE_SECONDS, over / 2)
        table = Timetable(connections, over, self._clock(), random.random)
        while len(table):
            chunk = table.take(self._clock())
            table.delay(await self._tell(chunk, patience))
            if len(table) and len(chunk) < CHUNK:
                await asyncio.sleep(STRIDE_SECONDS)
        await asyncio.sleep(table.end - self._clock())

    async def _tell(self, chunk: Chunk, patience: float) -> float:
        """Tell some their time and place; gives the seconds by which that came too late for the first of them."""
        chunk = [(at, connection) for at, connection in chunk if connection.session.is_open]
        if not chunk:
            return 0.0
        places = await self._places.find([_describe(connection, at - self._clock()) for at, connection in chunk], patience)
        late = max(0.0, self._clock() - chunk[0][0])
        for index, (at, connection) in enumerate(chunk, 1):
            place = places.get(connection.session.number) or balancer_pb2.Placement()
            connection.session.go_away(max(0.0, at + late - self._clock()), place.url, place.ticket)
            if index % BURST == 0:
                self._flush()
                await asyncio.sleep(0)
        self._flush()
        self._told(len(places), len(chunk) - len(places))
        return late

    async def _cut_off(self) -> None:
        """Whoever doesn't answer the close is left alone with it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._population.empty()
        for connection in self._population.all():
            connection.abort()

    def _close_all(self) -> None:
        for connection in self._population.all():
            connection.session.close(error_pb2.ERROR_CODE_GOING_AWAY)
        self._flush()


def _describe(connection: Connection, wait: float) -> balancer_pb2.PlaceConnection:
    return balancer_pb2.PlaceConnection(
        connection=connection.session.number,
        user_id=connection.session.user_id,
        ip=connection.ip,
        session_expires=int(connection.session.expires),
        leaves_in_ms=int(max(0.0, wait) * 1000),
    )

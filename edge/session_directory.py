"""Keeps the mesh's session directory told of this edge's sessions: by batches, a little later, never on the path of a message.

The directory may lose anything at any time. Whatever it loses comes back: an edge whose beat finds that it was forgotten writes all
its sessions again, paced, and every session is written again from time to time anyway.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from edge.connection import Connection
from edge.population import Population
from mesh.cache import EDGE_SECONDS, SESSION_SECONDS, SessionDirectory, SessionRecord
from mesh.process import background

ROUND_SECONDS = 0.25  # what changes in between goes together
BATCH = 500  # entries written, and removed, in one round: 2,000 a second at most
BEAT_SECONDS = EDGE_SECONDS / 4
REWRITE_SECONDS = SESSION_SECONDS / 3  # every entry is written again this often, so that those of the living don't run out
GONE = 20_000  # entries still to be removed; past it the oldest stays until it runs out, and readers see that the edge lacks it


class SessionChanges:
    """An observer of the population: what the directory is still to be told. Pure.

    Args:
        edge_id: this edge.
        wall: Unix seconds.

    Attributes:
        dropped: removals that found no room.
    """

    def __init__(self, edge_id: str, wall: Callable[[], float]) -> None:
        self._edge_id = edge_id
        self._wall = wall
        self._new: dict[int, tuple[Connection, float]] = {}  # these three are bounded by the population
        self._kept: dict[int, SessionRecord] = {}
        self._again: deque[int] = deque()
        self._gone: deque[SessionRecord] = deque(maxlen=GONE)
        self.dropped = 0

    def opened(self, connection: Connection, ticket_id: str) -> None:
        """See Observer."""
        self._new[connection.session.number] = (connection, self._wall())

    def closed(self, connection: Connection) -> None:
        """See Observer."""
        number = connection.session.number
        self._new.pop(number, None)
        record = self._kept.pop(number, None)
        if record is not None:
            self._remove(record)

    def draining(self) -> None:
        """See Observer."""

    def rewrite(self) -> None:
        """The directory is to be told everything again."""
        self._again = deque(self._kept)

    def take(self, most: int) -> tuple[list[SessionRecord], list[SessionRecord]]:
        """What to write and what to remove, at most so many of each: newcomers first, once they have said which device they are."""
        puts = self._arrived(most)
        while self._again and len(puts) < most:
            record = self._kept.get(self._again.popleft())
            if record is not None:
                puts.append(record)
        return puts, [self._gone.popleft() for _ in range(min(most, len(self._gone)))]

    def unwritten(self, puts: list[SessionRecord]) -> None:
        """Those could not be written."""
        self._again.extendleft(record.number for record in reversed(puts))

    def unremoved(self, removals: list[SessionRecord]) -> None:
        """Those could not be removed."""
        for record in removals:
            self._remove(record)

    def _arrived(self, most: int) -> list[SessionRecord]:
        arrived: list[SessionRecord] = []
        for number, (connection, since) in self._new.items():
            if len(arrived) == most:
                break
            if connection.session.device_id:
                arrived.append(self._record(connection, since))
                self._kept[number] = arrived[-1]
        for record in arrived:
            del self._new[record.number]
        return arrived

    def _record(self, connection: Connection, since: float) -> SessionRecord:
        session = connection.session
        return SessionRecord(session.user_id, self._edge_id, session.number, session.device_id, int(since * 1000))

    def _remove(self, record: SessionRecord) -> None:
        if len(self._gone) == GONE:
            self.dropped += 1
        self._gone.append(record)


class SessionWriter:
    """Tells the directory, round by round.

    Args:
        edge_id: this edge.
        changes: what to tell.
        directory: whom.
        clock: seconds, never going back.
    """

    def __init__(self, edge_id: str, changes: SessionChanges, directory: SessionDirectory, clock: Callable[[], float]) -> None:
        self._edge_id = edge_id
        self._changes = changes
        self._directory = directory
        self._clock = clock
        self._beat_at = 0.0
        self._rewrite_at = clock() + REWRITE_SECONDS
        self._reached = False

    @asynccontextmanager
    async def following(self, population: Population) -> AsyncIterator[None]:
        """Tell of this population until the context ends; then the edge is gone from the directory."""
        population.observe(self._changes)
        try:
            async with background(self._run()):
                yield
        finally:
            population.ignore(self._changes)
            await self._directory.leave(self._edge_id)

    async def _run(self) -> None:
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        """Beat when it is time to, then tell what there is to tell; a directory that is away is only asked whether it is back."""
        if not self._reached or self._clock() >= self._beat_at:
            await self._beat()
        if not self._reached:
            return
        if self._clock() >= self._rewrite_at:
            self._rewrite()
        puts, removals = self._changes.take(BATCH)
        if not await self._directory.put(puts):
            self._changes.unwritten(puts)
            self._reached = False
        if not await self._directory.remove(removals):
            self._changes.unremoved(removals)
            self._reached = False

    async def _beat(self) -> None:
        known = await self._directory.beat(self._edge_id)
        self._reached = known is not None
        self._beat_at = self._clock() + BEAT_SECONDS
        if known is False:
            self._rewrite()

    def _rewrite(self) -> None:
        self._changes.rewrite()
        self._rewrite_at = self._clock() + REWRITE_SECONDS

"""WatchSnapshots: tells callers of each new snapshot, and routers what is in it.

Rules: a watcher keeps only its place; what it is told next is read from the history when it has taken what came before. So a slow
one costs nothing, hears of several snapshots as one, and, when it falls behind what is kept, gets the whole again.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import NamedTuple

from mesh import errors
from tagset.snapshot import Snapshot, parts
from tagsvc.history import History
from tagsvc.journal import Journal
from tidings.tag.v1.audience_pb2 import WatchSnapshotsRequest, WatchSnapshotsResponse
from tidings.tag.v1.log_pb2 import SnapshotPart, TagRecord

BEAT_SECONDS = 2.0  # a watcher that hears nothing for some of these watches elsewhere: a stream may be lost without a word
PART_BYTES = 1024 * 1024  # of the whole: small, so that others get a turn in between
_NOTHING = -1  # a watcher that has been told nothing has not even the empty snapshot, whose version is 0
RECORDS_BYTES = 4 * 1024 * 1024  # of records in one response; a larger one comes alone


class _Place(NamedTuple):
    """How far a watcher has been told."""

    history: History
    version: int
    known: int


class Watches:
    """The watchers of one instance.

    Args:
        journal: what they watch.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._stopping = False
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def stop(self) -> None:
        """Send the watchers elsewhere."""
        self._stopping = True
        self._journal.wake()

    async def watch(self, request: WatchSnapshotsRequest) -> AsyncGenerator[WatchSnapshotsResponse, None]:
        """Responses for ever; the first comes at once.

        Raises:
            TidingsError: UNAVAILABLE before the first catch-up, and when this instance stops.
        """
        self._journal.newest()
        place = _Place(self._journal.history, request.after_version or _NOTHING, _NOTHING)
        self._number += 1
        try:
            while await self._news(place):
                told, place = place, self._place()
                for response in self._contents(told, place) if request.with_content else _bare(place):
                    response.highest_user_ordinal = place.known
                    yield response
        finally:
            self._number -= 1
        raise errors.unavailable("this tagsvc is stopping: watch another")

    async def _news(self, told: _Place) -> bool:
        """Wait until there is something else to tell, or for a beat; False when this instance stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEAT_SECONDS):
                while self._place() == told and not self._stopping:
                    await self._journal.changed()
        return not self._stopping

    def _place(self) -> _Place:
        return _Place(self._journal.history, self._journal.history.version, self._journal.known)

    def _contents(self, told: _Place, place: _Place) -> Iterator[WatchSnapshotsResponse]:
        """The records between two places, if they are kept; else the whole."""
        records = place.history.records_after(told.version) if told.history is place.history else None
        return _whole(place.history.newest) if records is None else _steps(told.version, records)


def _bare(place: _Place) -> Iterator[WatchSnapshotsResponse]:
    yield WatchSnapshotsResponse(version=place.version, complete=True)


def _whole(snapshot: Snapshot) -> Iterator[WatchSnapshotsResponse]:
    """A snapshot in parts, at least one; the last is marked."""
    held = SnapshotPart()
    for number, part in enumerate(parts(snapshot, PART_BYTES)):
        if number:
            yield WatchSnapshotsResponse(version=snapshot.version, part=held)
        held = part
    yield WatchSnapshotsResponse(version=snapshot.version, part=held, complete=True)


def _steps(version: int, records: Sequence[bytes]) -> Iterator[WatchSnapshotsResponse]:
    """Records in responses that each lead to a whole snapshot; one without records when there is none."""
    response, size = WatchSnapshotsResponse(version=version, complete=True), 0
    for record in records:
        if response.records and size + len(record) > RECORDS_BYTES:
            yield response
            response, size = WatchSnapshotsResponse(version=response.version, complete=True), 0
        response.records.append(TagRecord.FromString(record))
        response.version += 1
        size += len(record)
    yield response

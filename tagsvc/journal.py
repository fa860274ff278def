"""Follows the store's log, and holds what it adds up to.

Rules: versions come in order, without a gap; what came already is passed over. Whoever waits is told of every change. While no
store answers, what is held stays readable. A log that no longer has the records after ours is begun anew from the checkpoint.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing

import structlog

from mesh import errors, patience
from tagset.snapshot import Snapshot
from tagsvc.history import Bounds, History
from tagsvc.ports import TagLog
from tagsvc.steps import Step, step
from tidings.common.v1 import error_pb2
from tidings.store.v1.tag_log_pb2 import FollowRecordsResponse
from tidings.tag.v1.log_pb2 import SnapshotPart, SnapshotPiece, TagRecord

_CATCH_UP_SECONDS = 3.0  # for what others did in the last quarter of a second, at most, while all is well
_TURN_SECONDS = 0.005  # of applying records, before others get a turn
_log = structlog.get_logger(__name__)


class Journal:
    """The tags as this instance knows them.

    Args:
        log: the store's.
        bounds: how much of the past is kept.

    Attributes:
        history: the snapshots kept. Another object from when the log was begun anew.
    """

    def __init__(self, log: TagLog, bounds: Bounds) -> None:
        self._log = log
        self._bounds = bounds
        self._ready = False
        self._lost = True
        self._known = 0
        self._changed = asyncio.Event()
        self.history = History(Snapshot.empty(), bounds)

    @property
    def ready(self) -> bool:
        """Whether it has caught up with the log once."""
        return self._ready

    @property
    def known(self) -> int:
        """The highest user ordinal there is: all clients known are 1 to this."""
        return self._known

    def newest(self) -> Snapshot:
        """The snapshot now.

        Raises:
            TidingsError: UNAVAILABLE before the first catch-up.
        """
        if not self._ready:
            raise errors.unavailable("the tags are still being loaded here")
        return self.history.newest

    def at(self, version: int) -> Snapshot:
        """The snapshot of a version; 0 for the newest.

        Raises:
            TidingsError: SNAPSHOT_GONE; UNAVAILABLE as `newest`.
        """
        newest = self.newest()
        found = self.history.find(version) if version else newest
        if found is None:
            raise errors.snapshot_gone(version, self.history.oldest_version, newest.version)
        return found

    def learn_known(self, ordinal: int) -> None:
        """A user has this ordinal, so there are users up to it."""
        if ordinal > self._known:
            self._known = ordinal
            self.wake()

    def adopt(self, base: Snapshot, steps: Sequence[Step]) -> None:
        """Take in what the log has just appended after `base`; does nothing when the log itself brought some of it before."""
        if self.history.newest is base:
            for each in steps:
                self.history.add(each)
            self.wake()

    async def catch_up(self) -> bool:
        """Take in all that the log has by now; whether that was more than was known here.

        Raises:
            TidingsError: UNAVAILABLE when the log is away, or this takes too long.
        """
        before = self.history.version
        try:
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                async with aclosing(self._log.follow(before)) as responses:
                    last = (await anext(responses)).last_version
                await self.reached(last)
        except TimeoutError:
            raise errors.unavailable("the tags here are not up to date just now; send it again") from None
        return last > before

    async def reached(self, version: int) -> None:
        """Wait until the newest snapshot is this one, or later."""
        while self.history.version < version:
            await self.changed()

    async def changed(self) -> None:
        """Wait for a newer snapshot, or for more clients; may also return without either."""
        await self._changed.wait()

    def wake(self) -> None:
        """Have everybody who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the log until cancelled."""
        delays, tell = patience.delays(), _log.warning
        while True:
            try:
                async for response in self._responses():
                    await self._take_in(response)
                    delays, tell = patience.delays(), _log.warning
            except errors.TidingsError as error:
                self._lost = self._lost or error.code == error_pb2.ERROR_CODE_SNAPSHOT_GONE
                tell("the tag log can't be followed", reason=error.reason, error=error.message)
                tell = _log.debug  # once is enough until it can be
            except Exception:
                _log.exception("the tag log can't be read", version=self.history.version)
            await asyncio.sleep(next(delays))

    async def _responses(self) -> AsyncIterator[FollowRecordsResponse]:
        if self._lost:
            await self._load()
        async for response in self._log.follow(self.history.version):
            yield response

    async def _load(self) -> None:
        """Begin anew from the checkpoint."""
        version, parts = 0, list[bytes]()
        async for response in self._log.load_checkpoint():
            version = response.version
            parts.append(response.part)
        snapshot = await asyncio.to_thread(Snapshot.from_pieces, version, _pieces(parts)) if parts else Snapshot.empty()
        self.history = History(snapshot, self._bounds)
        self._lost = False
        self.wake()
        _log.info("loaded", version=version, tags=len(snapshot.tags))

    async def _take_in(self, response: FollowRecordsResponse) -> None:
        history, until = self.history, time.monotonic() + _TURN_SECONDS
        self._known = max(self._known, response.highest_user_ordinal)  # first, for the records may be about them
        for version, record in enumerate(response.records, response.version - len(response.records) + 1):
            if version > history.version + 1:
                raise errors.internal(f"the log gave version {version} after {history.version}")
            if version > history.version:
                history.add(step(history.newest, TagRecord.FromString(record), record))
            if time.monotonic() > until:
                self.wake()
                await asyncio.sleep(0)
                until = time.monotonic() + _TURN_SECONDS
        self._ready = self._ready or history.version >= response.last_version
        self.wake()


def _pieces(parts: list[bytes]) -> Iterator[SnapshotPiece]:
    """The pieces, one part at a time in memory."""
    parts.reverse()
    while parts:
        yield from SnapshotPart.FromString(parts.pop()).pieces

"""The tags, as tagsvc last told them: so that audiences can be settled while every tagsvc is away.

Rules: what is held is whole and of one version, or nothing. It stays when tagsvc goes, however long. What doesn't fit is forgotten,
and told anew from the beginning.
"""

import asyncio
from collections.abc import AsyncIterator

import structlog

from mesh import errors, patience
from router.ports import AudienceService
from tagset.errors import CorruptRecordError
from tagset.snapshot import Snapshot
from tidings.tag.v1.audience_pb2 import WatchSnapshotsRequest, WatchSnapshotsResponse
from tidings.tag.v1.log_pb2 import SnapshotPiece

_log = structlog.get_logger(__name__)


class TagReplica:
    """Follows tagsvc.

    Attributes:
        snapshot: the newest one told completely; None before the first.
        highest_user_ordinal: all clients known are 1 to this.
    """

    def __init__(self, service: AudienceService) -> None:
        self._service = service
        self._pieces: list[SnapshotPiece] = []
        self._told = False
        self.snapshot: Snapshot | None = None
        self.highest_user_ordinal = 0

    @property
    def version(self) -> int:
        """Of the snapshot; 0 without one."""
        return self.snapshot.version if self.snapshot else 0

    async def follow(self) -> None:
        """Keep up until cancelled."""
        delays = patience.delays()
        while True:
            try:
                self._told = False
                request = WatchSnapshotsRequest(with_content=True, after_version=self.version)
                await self._take_all(self._service.watch_snapshots(request))
            except errors.TidingsError as error:
                tell = _log.warning if self._told else _log.debug  # once, not every second while it is away
                tell("tags not followed: they stay as they are", version=self.version, reason=error.reason, error=error.message)
            except (ValueError, CorruptRecordError):
                _log.exception("tags that don't fit: told anew")
                self.snapshot = None
            except Exception:
                _log.exception("tags not followed just now")
            if self._told:
                delays = patience.delays()
            await asyncio.sleep(next(delays))

    async def _take_all(self, responses: AsyncIterator[WatchSnapshotsResponse]) -> None:
        self._pieces = []
        async for response in responses:
            self._told = True
            await self._take(response)

    async def _take(self, response: WatchSnapshotsResponse) -> None:
        self.highest_user_ordinal = max(self.highest_user_ordinal, response.highest_user_ordinal)
        if response.HasField("part"):
            self._pieces.extend(response.part.pieces)
            if response.complete:
                # In a thread, for it may be large and chat must not wait; what it makes is shared by nobody until then.
                self.snapshot = await asyncio.to_thread(Snapshot.from_pieces, response.version, self._pieces)
                self._pieces = []
        elif response.records and self.snapshot is not None:
            self._apply(response)

    def _apply(self, response: WatchSnapshotsResponse) -> None:
        snapshot = self.snapshot
        assert snapshot is not None  # noqa: S101
        for record in response.records:
            snapshot = snapshot.apply(snapshot.version + 1, record)
        if snapshot.version != response.version:
            raise ValueError(f"records lead to version {snapshot.version}, not {response.version}")
        self.snapshot = snapshot

"""What a router keeps of tagsvc: a snapshot, fed by WatchSnapshots with content."""

import asyncio
from typing import Any

from tagset.snapshot import Snapshot
from tidings.tag.v1.audience_pb2 import WatchSnapshotsRequest, WatchSnapshotsResponse
from tidings.tag.v1.log_pb2 import SnapshotPiece


class Replica:
    """A copy.

    Attributes:
        snapshot: the newest complete one.
        known: highest user ordinal.
        wholes: how often the whole was sent.
        steps: how many records were.
    """

    def __init__(self) -> None:
        self.snapshot = Snapshot.empty()
        self.known = 0
        self.wholes = 0
        self.steps = 0
        self._pieces: list[SnapshotPiece] = []

    def take(self, response: WatchSnapshotsResponse) -> None:
        """As the contract says."""
        self.known = response.highest_user_ordinal
        if response.HasField("part"):
            assert not response.records
            self._pieces += response.part.pieces
            if response.complete:
                self.snapshot = Snapshot.from_pieces(response.version, self._pieces)
                self._pieces, self.wholes = [], self.wholes + 1
        for record in response.records:
            self.snapshot = self.snapshot.apply(self.snapshot.version + 1, record)
            self.steps += 1
        if response.complete:
            assert self.snapshot.version == response.version

    async def follow(self, audience: Any, version: int) -> None:
        """Watch until this version is there."""
        request = WatchSnapshotsRequest(with_content=True, after_version=self.snapshot.version)
        async with asyncio.timeout(10):
            async for response in audience.WatchSnapshots(request):
                self.take(response)
                if response.complete and self.snapshot.version >= version:
                    return


async def whole(audience: Any) -> Snapshot:
    """The newest snapshot of an instance."""
    replica = Replica()
    await replica.follow(audience, 0)
    return replica.snapshot

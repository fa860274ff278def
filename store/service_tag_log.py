"""tidings.store.v1.TagLogService: contract in, one call, contract out."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import grpc

from mesh import errors
from store import codec
from store.ports import Database
from store.tag_log import append_records
from store.tag_log_checkpoints import Checkpoints
from store.tag_log_feed import TagLogFeed
from tidings.store.v1 import tag_log_pb2 as pb
from tidings.store.v1 import tag_log_pb2_grpc

_MAX_RECORDS = 1_000
_MIB = 1024 * 1024  # bytes
_MAX_RECORDS_BYTES = 8 * _MIB
_MAX_PART_BYTES = 4 * _MIB
Context = grpc.aio.ServicerContext[Any, Any]


class TagLogServicer(tag_log_pb2_grpc.TagLogServiceServicer):
    """Serves the log of changes to tags.

    Args:
        database: where it is.
        feed: its followers.
        checkpoints: its checkpoints.
    """

    def __init__(self, database: Database, feed: TagLogFeed, checkpoints: Checkpoints) -> None:
        self._database = database
        self._feed = feed
        self._checkpoints = checkpoints

    async def AppendRecords(self, request: pb.AppendRecordsRequest, context: Context) -> pb.AppendRecordsResponse:
        """Adds records, or says how far the log has come without the caller."""
        _check_records(request.records)
        work = partial(append_records, expected_version=codec.seq(request.expected_version), records=list(request.records))
        appended = await self._database.write(work)
        self._feed.appended(appended.version)
        if appended.conflict:
            return pb.AppendRecordsResponse(conflict_version=appended.version)
        return pb.AppendRecordsResponse(version=appended.version)

    async def FollowRecords(self, request: pb.FollowRecordsRequest, context: Context) -> AsyncIterator[pb.FollowRecordsResponse]:
        """Sends what is new, for ever."""
        async for page in self._feed.follow(codec.seq(request.after_version)):
            yield pb.FollowRecordsResponse(
                records=page.records,
                version=page.version,
                last_version=page.position.version,
                highest_user_ordinal=page.position.highest_user_ordinal,
            )

    async def SaveCheckpoint(
        self, requests: AsyncIterator[pb.SaveCheckpointRequest], context: Context
    ) -> pb.SaveCheckpointResponse:
        """Keeps a checkpoint, once it is there as a whole."""
        stream = aiter(requests)
        first = await anext(stream, pb.SaveCheckpointRequest())
        if not first.version:
            raise errors.invalid_field("version", "1 to the log's version, in the first part")
        kept = await self._checkpoints.save(codec.seq(first.version), _parts(first, stream))
        return pb.SaveCheckpointResponse(kept=kept)

    async def LoadCheckpoint(self, request: pb.LoadCheckpointRequest, context: Context) -> AsyncIterator[pb.LoadCheckpointResponse]:
        """Sends the newest checkpoint."""
        async for version, part in self._checkpoints.load():
            yield pb.LoadCheckpointResponse(version=version, part=part)


def _check_records(records: Sequence[bytes]) -> None:
    if not 1 <= len(records) <= _MAX_RECORDS or sum(map(len, records)) > _MAX_RECORDS_BYTES:
        raise errors.invalid_field("records", f"1 to {_MAX_RECORDS:,}, together at most {_MAX_RECORDS_BYTES // _MIB} MiB")


async def _parts(first: pb.SaveCheckpointRequest, rest: AsyncIterator[pb.SaveCheckpointRequest]) -> AsyncIterator[bytes]:
    """The parts of a stream; raises at what doesn't belong, and at an end that isn't one, as when the caller is gone."""
    request: pb.SaveCheckpointRequest | None = first
    while request is not None:
        if request.version not in {0, first.version}:
            raise errors.invalid_field("version", "the same in all parts, or 0 after the first")
        if len(request.part) > _MAX_PART_BYTES:
            raise errors.invalid_field("part", f"at most {_MAX_PART_BYTES // _MIB} MiB")
        yield request.part
        following = await anext(rest, None)
        if request.last != (following is None):
            raise errors.invalid_field("last", "true in the last part, and only there: without it nothing is kept")
        request = following

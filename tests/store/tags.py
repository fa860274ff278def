"""The tag log as its callers see it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import grpc

from tests.store.client import StoreClient
from tidings.store.v1 import tag_log_pb2 as pb

SECONDS = 10.0  # longest wait for what must come soon


async def append(store: StoreClient, expected_version: int, *records: bytes) -> int:
    """Append; gives the version, or minus the conflicting one."""
    request = pb.AppendRecordsRequest(expected_version=expected_version, records=records)
    response = await store.tags.AppendRecords(request)
    return response.version if response.WhichOneof("outcome") == "version" else -response.conflict_version


async def append_for_sure(store: StoreClient, records: Sequence[bytes]) -> int:
    """Append, again after every conflict, as tagsvc does; gives the version."""
    expected = 0
    while (outcome := await append(store, expected, *records)) <= 0:
        expected = -outcome
    return outcome


class Follower:
    """One stream of FollowRecords."""

    def __init__(self, store: StoreClient, after_version: int) -> None:
        self._call = store.tags.FollowRecords(pb.FollowRecordsRequest(after_version=after_version))

    async def next(self) -> pb.FollowRecordsResponse:
        """The next response, which must come soon."""
        async with asyncio.timeout(SECONDS):
            response = await self._call.read()
        assert isinstance(response, pb.FollowRecordsResponse), "the stream has ended"
        return response

    async def until(self, version: int) -> list[bytes]:
        """The records of the responses up to the one that reaches a version."""
        records: list[bytes] = []
        while True:
            response = await self.next()
            records.extend(response.records)
            if response.version >= version:
                assert response.version == version
                return records

    def cancel(self) -> None:
        """Leave."""
        self._call.cancel()


@asynccontextmanager
async def following(store: StoreClient, after_version: int = 0) -> AsyncIterator[Follower]:
    """A follower that leaves at the end."""
    follower = Follower(store, after_version)
    try:
        yield follower
    finally:
        follower.cancel()


async def read_log(store: StoreClient, after_version: int = 0) -> list[bytes]:
    """All records after a version that there are now."""
    async with following(store, after_version) as follower:
        first = await follower.next()
        if first.version >= first.last_version:
            return list(first.records)
        return [*first.records, *await follower.until(first.last_version)]


def checkpoint(version: int, *parts: bytes) -> list[pb.SaveCheckpointRequest]:
    """What a caller sends to save it."""
    requests = [pb.SaveCheckpointRequest(part=part) for part in parts]
    requests[0].version = version
    requests[-1].last = True
    return requests


async def save(store: StoreClient, version: int, *parts: bytes) -> bool:
    """Save a checkpoint."""
    return await send(store, checkpoint(version, *parts))


async def send(store: StoreClient, requests: Iterable[pb.SaveCheckpointRequest]) -> bool:
    """Save what these say."""
    return (await store.tags.SaveCheckpoint(iter(requests))).kept


async def load(store: StoreClient) -> tuple[int, list[bytes]]:
    """The newest checkpoint; 0 for none."""
    responses = [response async for response in store.tags.LoadCheckpoint(pb.LoadCheckpointRequest())]
    assert len({response.version for response in responses}) <= 1
    return (responses[0].version if responses else 0), [response.part for response in responses]


async def begin_and_cut(store: StoreClient, version: int, *parts: bytes) -> None:
    """Begin to save a checkpoint, and vanish before its end."""
    call = store.tags.SaveCheckpoint()
    for request in checkpoint(version, *parts, b"")[:-1]:
        await call.write(request)
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED

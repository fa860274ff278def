"""What TagLogService promises of records, on both engines, over gRPC: one order, none lost, nobody surprised."""

import asyncio
import contextlib
from typing import Any

import grpc
import pytest

from mesh import rpc
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from store.serve import serve
from store.settings import StoreSettings
from tests.store.client import StoreClient, reason, running_store
from tests.store.tags import SECONDS, Follower, append, append_for_sure, following, read_log
from tests.store.test_faults import end_sessions
from tidings.store.v1 import tag_log_pb2 as pb

MIB = 1024 * 1024


async def test_versions_count_records(store: StoreClient) -> None:
    assert await append(store, 0, b"1") == 1
    assert await append(store, 1, b"2", b"", b"4") == 4
    assert await read_log(store) == [b"1", b"2", b"", b"4"]


async def test_another_version_than_expected_adds_nothing(store: StoreClient) -> None:
    assert await append(store, 0, b"1", b"2") == 2
    for expected in (0, 1, 3, 2**63 - 1, 2**64 - 1):
        assert await append(store, expected, b"x", b"y") == -2
    assert await read_log(store) == [b"1", b"2"]


async def test_an_empty_log_conflicts_with_version_0(store: StoreClient) -> None:
    response = await store.tags.AppendRecords(pb.AppendRecordsRequest(expected_version=7, records=[b"x"]))
    assert (response.WhichOneof("outcome"), response.conflict_version) == ("conflict_version", 0)


async def test_batches_out_of_bounds_are_refused(store: StoreClient) -> None:
    for records in ([], [b"x"] * 1_001, [bytes(MIB)] * 8 + [b"x"]):
        with pytest.raises(grpc.RpcError) as caught:
            await append(store, 0, *records)
        assert reason(caught.value) == "INVALID_FIELD"
    assert await append(store, 0, *[bytes(MIB)] * 8) == 8  # the most there may be
    assert await append(store, 8, *[b"x"] * 1_000) == 1_008


async def race(stores: list[StoreClient]) -> None:
    """Writers at each store append batches; the log has each whole, and everybody sees the same."""
    batches = [[f"{writer}.{batch}.{n}".encode() for n in range(3)] for writer in range(8) for batch in range(6)]

    async def write(writer: int) -> dict[int, list[bytes]]:
        mine = batches[writer * 6 : writer * 6 + 6]
        return {await append_for_sure(stores[writer % len(stores)], batch): batch for batch in mine}

    async with contextlib.AsyncExitStack() as stack:
        followers = [await stack.enter_async_context(following(store)) for store in stores]
        answers = await asyncio.gather(*(write(writer) for writer in range(8)))
        logs = [await follower.until(len(batches) * 3) for follower in followers]
    assert all(log == logs[0] for log in logs)
    answered = {version: batch for answer in answers for version, batch in answer.items()}
    assert [record for version in sorted(answered) for record in answered[version]] == logs[0]
    assert sorted(answered) == list(range(3, len(batches) * 3 + 1, 3))


async def test_racing_writers_agree(store: StoreClient) -> None:
    await race([store])


@pytest.mark.postgresql
async def test_racing_writers_of_two_stores_agree(postgres_url: str) -> None:
    async with running_store(postgres_url) as one, running_store(postgres_url) as other:
        await race([one, other])


async def test_the_first_response_comes_though_nothing_is_new(store: StoreClient) -> None:
    async with following(store) as follower:
        assert await follower.next() == pb.FollowRecordsResponse()
    await store.ordinals("alice", "bob")
    await append(store, 0, b"1", b"2")
    async with following(store, 2) as follower:
        assert await follower.next() == pb.FollowRecordsResponse(version=2, last_version=2, highest_user_ordinal=2)


async def test_a_follower_gets_exactly_what_comes_after_its_position(store: StoreClient) -> None:
    records = [f"record {n}".encode() for n in range(1, 41)]
    async with contextlib.AsyncExitStack() as stack:
        early = await stack.enter_async_context(following(store))
        for begin in range(0, 40, 4):
            await append(store, begin, *records[begin : begin + 4])
        for after in range(0, 41, 5):
            assert await read_log(store, after) == records[after:]
        assert await early.until(40) == records


async def test_responses_are_bounded_in_bytes(store: StoreClient) -> None:
    sizes = [3 * MIB, MIB, 1, 6 * MIB, 2, 2 * MIB, 2 * MIB, 1]
    records = [bytes([n]) * size for n, size in enumerate(sizes)]
    await append(store, 0, *records[:3])
    await append(store, 3, *records[3:5])
    await append(store, 5, *records[5:])
    async with following(store) as follower:
        responses = [await follower.next() for _ in range(5)]
    assert [[len(record) for record in response.records] for response in responses] == [
        [3 * MIB, MIB],
        [1],
        [6 * MIB],
        [2, 2 * MIB],
        [2 * MIB, 1],
    ]
    assert [response.version for response in responses] == [2, 3, 4, 6, 8]
    assert {response.last_version for response in responses} == {8}
    assert [record for response in responses for record in response.records] == records


async def test_responses_are_bounded_in_records(store: StoreClient) -> None:
    for begin in (0, 1_000):
        await append(store, begin, *[b"%d" % n for n in range(begin, begin + 1_000)])
    assert await read_log(store) == [b"%d" % n for n in range(2_000)]


async def test_new_users_are_told_without_records(store: StoreClient) -> None:
    async with following(store) as follower:
        assert (await follower.next()).highest_user_ordinal == 0
        await store.ordinals("alice", "bob")
        assert await follower.next() == pb.FollowRecordsResponse(highest_user_ordinal=2)
        await store.ordinals("carol")
        await append(store, 0, b"carol has a tag")
        response = await follower.next()
        while not response.records:
            response = await follower.next()
        assert response.highest_user_ordinal == 3


async def test_a_position_past_the_log_is_refused(store: StoreClient) -> None:
    await append(store, 0, b"1", b"2")
    for after in (3, 2**63, 2**64 - 1):
        with pytest.raises(grpc.RpcError) as caught:
            await Follower(store, after).next()
        assert reason(caught.value) == "SNAPSHOT_GONE"


async def test_a_follower_that_does_not_read_holds_up_nobody(store: StoreClient) -> None:
    records = [bytes([n]) * MIB for n in range(32)]
    async with following(store) as slow, following(store) as quick:
        await slow.next()
        for n, record in enumerate(records):
            assert await append(store, n, record) == n + 1
        assert await quick.until(32) == records
        assert await slow.until(32) == records


@pytest.mark.postgresql
async def test_what_another_store_appends_is_followed(postgres_url: str) -> None:
    async with running_store(postgres_url) as one, running_store(postgres_url) as other, following(one) as follower:
        await follower.next()
        for n in range(3):
            await append(other, n, b"%d" % n)
            assert await follower.until(n + 1) == [b"%d" % n]
        await other.ordinals("alice")
        assert (await follower.next()).highest_user_ordinal == 1


@pytest.mark.postgresql
async def test_a_writer_whose_answer_was_lost_finds_its_records(postgres_url: str) -> None:
    """Sessions are killed all the time; after a conflict the writer looks whether it was itself."""
    wanted = [b"%d" % n for n in range(60)]
    async with running_store(postgres_url) as store:

        async def write() -> None:
            for n, record in enumerate(wanted):
                if await append(store, n, record) != n + 1:
                    assert await read_log(store, n) == [record]

        writing = asyncio.create_task(write())
        while not writing.done():
            await asyncio.to_thread(end_sessions, postgres_url)
            await asyncio.wait([writing], timeout=0.05)
        await writing
        assert await read_log(store) == wanted


async def test_a_stopping_store_sends_its_followers_elsewhere(database_url: str) -> None:
    telemetry = Telemetry("store-test")
    options: dict[str, Any] = {"database": database_url, "port": 0, "drain_seconds": 30}
    async with contextlib.AsyncExitStack() as channels:
        async with serve(StoreSettings(**options), MemoryRegistry(), telemetry) as instance:
            store = StoreClient(await channels.enter_async_context(rpc.channel(instance.grpc_address, telemetry)))
            follower = Follower(store, 0)
            await follower.next()
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < SECONDS  # it did not wait out the drain
        with pytest.raises(grpc.RpcError) as caught:
            await follower.next()
        assert reason(caught.value) == "UNAVAILABLE"
    telemetry.close()

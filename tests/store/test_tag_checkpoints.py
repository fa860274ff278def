"""What TagLogService promises of checkpoints, on both engines: whole or not at all, and nothing kept that isn't needed."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest

from mesh.errors import TidingsError
from mesh.times import clock
from store import tag_log_checkpoint_sql as sql
from store.migrate import migrate
from store.ports import Database
from store.serve import open_database
from store.settings import StoreSettings
from store.tag_log import append_records
from store.tag_log_checkpoints import Checkpoints
from tests.store.client import StoreClient, reason, running_store
from tests.store.tags import SECONDS, Follower, append, begin_and_cut, checkpoint, load, read_log, save, send
from tidings.store.v1 import tag_log_pb2 as pb

MIB = 1024 * 1024
HOUR = 3600 * 1_000_000  # microseconds


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The database of the store under test, with ten records."""
    options: dict[str, Any] = {"database": database_url}
    async with open_database(StoreSettings(**options)) as (database, _):
        await database.write(migrate)
        await database.write(partial(append_records, expected_version=0, records=[b"record"] * 10))
        yield database


async def rows(database: Database, table: str) -> int:
    """How many rows there are."""
    count: int = await database.read(lambda connection: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
    return count


async def parts_left(database: Database, number: int) -> None:
    """Wait until so many parts are in the database."""
    async with asyncio.timeout(SECONDS):
        while await rows(database, "tag_checkpoint_parts") != number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nothing tells when a store has given up a stream


async def some(*parts: bytes) -> AsyncIterator[bytes]:
    """Parts as they come."""
    for part in parts:
        yield part


async def test_without_a_checkpoint_nothing_is_loaded(store: StoreClient) -> None:
    assert await load(store) == (0, [])


async def test_parts_come_back_as_they_were_cut(store: StoreClient) -> None:
    await append(store, 0, b"1", b"2")
    parts = [b"first", b"", bytes(4 * MIB), bytes(range(256)) * 1_000, b""]
    assert await save(store, 2, *parts)
    assert await load(store) == (2, parts)


async def test_the_newest_stays(store: StoreClient, database: Database) -> None:
    assert await save(store, 5, b"five")
    assert await save(store, 7, b"sev", b"en")
    assert not await save(store, 6, b"six", b"six", b"six")
    assert await save(store, 7, b"seven again")
    assert await load(store) == (7, [b"sev", b"en"])
    assert await rows(database, "tag_checkpoint_parts") == 2


async def test_a_stream_that_is_cut_leaves_nothing(store: StoreClient, database: Database) -> None:
    assert await save(store, 5, b"five")
    for _ in range(5):
        await begin_and_cut(store, 9, *[b"part"] * 3)
    await parts_left(database, 1)
    assert await load(store) == (5, [b"five"])
    assert await save(store, 9, b"nine")
    assert await load(store) == (9, [b"nine"])


BAD = {
    "an end without a last part": checkpoint(5, b"1", b"2", b"3")[:-1],
    "nothing": [],
    "no version": checkpoint(0, b"1", b"2"),
    "ahead of the log": checkpoint(11, b"1", b"2"),
    "far ahead": checkpoint(2**64 - 1, b"1"),
    "a part that is too large": checkpoint(5, b"1", bytes(4 * MIB + 1), b"3"),
    "more after the last": [*checkpoint(5, b"1", b"2"), pb.SaveCheckpointRequest(part=b"3", last=True)],
    "two versions": [*checkpoint(5, b"1", b"2")[:-1], pb.SaveCheckpointRequest(version=6, part=b"3", last=True)],
}


async def test_what_is_no_checkpoint_is_refused(store: StoreClient, database: Database) -> None:
    for name, requests in BAD.items():
        with pytest.raises(grpc.RpcError) as caught:
            await send(store, requests)
        assert reason(caught.value) == "INVALID_FIELD", name
        assert await load(store) == (0, []), name
        await parts_left(database, 0)
    assert await save(store, 10, b"good")


async def test_records_far_below_a_checkpoint_go(store: StoreClient, database_url: str) -> None:
    for begin in range(0, 11_000, 1_000):
        await append(store, begin, *[b"%d" % n for n in range(begin + 1, begin + 1_001)])
    assert await read_log(store, 10_900) == [b"%d" % n for n in range(10_901, 11_001)]
    assert await save(store, 9_000, b"below the margin")
    assert await read_log(store, 0) == [b"%d" % n for n in range(1, 11_001)]
    assert await save(store, 10_500, b"500 above it")
    with pytest.raises(grpc.RpcError) as caught:
        await Follower(store, 499).next()
    assert reason(caught.value) == "SNAPSHOT_GONE"
    assert await read_log(store, 500) == [b"%d" % n for n in range(501, 11_001)]
    options: dict[str, Any] = {"database": database_url}
    async with open_database(StoreSettings(**options)) as (database, _):
        assert await rows(database, "tag_records") == 10_500
    assert await append(store, 11_000, b"on") == 11_001


async def test_checkpoints_and_records_above_them_add_up(store: StoreClient) -> None:
    """Whenever a reader comes, the checkpoint and the records after it are the whole."""
    total: list[bytes] = []
    for n in range(0, 12, 3):
        total += [b"%d," % m for m in range(n, n + 3)]
        await append(store, n, *total[n:])
        if n % 2:
            assert await save(store, n + 1, *total[: n + 1])
        version, parts = await load(store)
        assert parts + await read_log(store, version) == total


@pytest.mark.postgresql
async def test_of_two_stores_saving_at_once_the_newer_wins(postgres_url: str) -> None:
    async with running_store(postgres_url) as one, running_store(postgres_url) as other:
        await append(one, 0, *[b"x"] * 20)
        for version in range(1, 20, 2):
            parts = {number: [b"%d" % number] * 5 for number in (version, version + 1)}
            kept = await asyncio.gather(*(save(at, v, *parts[v]) for at, v in ((one, version), (other, version + 1))))
            assert kept[1]
            assert await load(one) == await load(other) == (version + 1, parts[version + 1])


async def test_one_that_is_replaced_while_it_is_loaded_is_never_half(database: Database) -> None:
    checkpoints = Checkpoints(database, clock)
    assert await checkpoints.save(5, some(b"a", b"b", b"c"))
    loading = checkpoints.load()
    assert await anext(loading) == (5, b"a")
    assert await checkpoints.save(6, some(b"x"))
    with pytest.raises(TidingsError) as caught:
        await anext(loading)
    assert caught.value.reason == "UNAVAILABLE"
    assert [part async for part in checkpoints.load()] == [(6, b"x")]


async def test_what_a_crash_left_goes_with_the_next_save(database: Database) -> None:
    checkpoint_id, _ = await database.write(partial(sql.begin, version=5))
    for number in range(3):
        save = sql.Checkpoint(checkpoint_id, 5, number)
        await database.write(partial(sql.stage, save=save, part=bytes(3 * MIB), now=clock()))
    assert [part async for part in Checkpoints(database, clock).load()] == []
    assert await Checkpoints(database, clock).save(5, some(b"whole"))
    assert [part async for part in Checkpoints(database, clock).load()] == [(5, b"whole")]
    assert await rows(database, "tag_checkpoint_parts") == 1


async def test_one_that_was_overtaken_while_it_came_is_not_kept(database: Database) -> None:
    checkpoints = Checkpoints(database, clock)

    async def overtaken(version: int) -> AsyncIterator[bytes]:
        yield b"slow"
        assert await checkpoints.save(version, some(b"quick"))

    assert await checkpoints.save(5, overtaken(5))  # one of this version is there: the other
    assert [part async for part in checkpoints.load()] == [(5, b"quick")]
    assert not await checkpoints.save(7, overtaken(8))
    assert [part async for part in checkpoints.load()] == [(8, b"quick")]
    assert await rows(database, "tag_checkpoint_parts") == 1


async def test_another_save_under_way_is_left_alone_for_an_hour(database: Database) -> None:
    async def slowly(meanwhile: Checkpoints) -> AsyncIterator[bytes]:
        yield b"nine, "
        assert await meanwhile.save(5, some(b"five"))
        yield b"whole"

    assert await Checkpoints(database, clock).save(9, slowly(Checkpoints(database, lambda: clock() + HOUR // 2)))
    assert [part async for part in Checkpoints(database, clock).load()] == [(9, b"nine, "), (9, b"whole")]
    with pytest.raises(TidingsError) as caught:
        await Checkpoints(database, clock).save(10, slow_and_older(Checkpoints(database, lambda: clock() + 2 * HOUR)))
    assert caught.value.reason == "UNAVAILABLE"
    assert [part async for part in Checkpoints(database, clock).load()] == [(9, b"nine, "), (9, b"whole")]


async def slow_and_older(meanwhile: Checkpoints) -> AsyncIterator[bytes]:
    """Parts between which somebody tidies up, hours later."""
    yield b"lost"
    with pytest.raises(LookupError):
        await meanwhile.save(10, failing())
    yield b"the rest"


async def failing() -> AsyncIterator[bytes]:
    """A caller that goes at once."""
    yield b""
    raise LookupError

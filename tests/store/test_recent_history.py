"""Entries read by way of the cache are those of the database, whatever the cache says: nothing, old, others' things, rubbish."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.cache import Cache
from mesh.memory_cache import MemoryCache
from mesh.open_cache import open_cache
from mesh.telemetry import Telemetry
from mesh.times import clock
from store import entries, sync
from store.conversations import ensure_direct
from store.database_history import DatabaseHistory
from store.migrate import migrate
from store.model import MAX_SEQ, Draft, Entry, Kind
from store.ports import Database, MessageLog
from store.recent_entries import Readership, Tail, believed, decode, encode, missing
from store.recent_history import RecentHistory, RecentLog
from store.serve import open_database
from store.settings import StoreSettings
from store.users import find_users
from tests.servers import RedisServer, redis_server  # noqa: F401  (a fixture)
from tests.store.client import StoreClient, deletion, edit, running_store, texts
from tidings.store.v1 import message_log_pb2 as pb

SIZE = 12
NAME = "g" + "a" * 26
_numbers = itertools.count(1)
_entries = st.builds(
    Entry,
    st.just(NAME),
    st.integers(1, MAX_SEQ),
    st.sampled_from(Kind),
    st.text("aé", max_size=9),
    st.text("m1", max_size=9),
    st.integers(0, MAX_SEQ),
    st.integers(0, MAX_SEQ),
    st.none() | st.binary(max_size=9),
)


@given(_entries)
def test_an_entry_comes_back_as_it_was_kept(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@given(_entries, st.integers(0), st.integers(1, 255))
def test_a_spoilt_entry_is_none(entry: Entry, place: int, bits: int) -> None:
    kept = bytearray(encode(entry))
    assert decode(bytes(kept[: place % len(kept)])) is None
    kept[place % len(kept)] ^= bits
    assert decode(bytes(kept)) is None


def test_the_end_of_another_log_of_the_same_name_is_not_believed() -> None:
    """As after the database was restored from a backup: seqs come again, for other messages."""
    kept = [Entry(NAME, seq, Kind.MESSAGE, "alice", "", 0, 100 + seq, b"") for seq in (1, 2, 3)]
    tail = Tail(entries.Range(NAME, 1, 3), 3, 103)
    assert list(believed(tail, map(encode, kept)).values()) == kept
    assert believed(Tail(tail.range, 3, 104), map(encode, kept)) == {}
    assert missing(tail, {1: kept[0], 3: kept[2]}) == entries.Range(NAME, 2, 2)


def test_a_log_is_of_interest_for_a_while_after_it_was_read() -> None:
    readership = Readership(60.0, 2)
    readership.read("a", 0.0)
    readership.read("b", 1.0)
    assert [readership.lately("a", now) for now in (0.0, 59.9, 60.0)] == [True, True, False]
    readership.read("a", 2.0)
    readership.read("c", 3.0)
    assert [readership.lately(name, 3.0) for name in "abc"] == [True, False, True]


class Adversary:
    """A cache whose answers are the truth, nothing, something from another time or place, or rubbish."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._honest = MemoryCache().recent
        self._said: list[bytes] = [b""]
        self.up = True
        self.recent = self

    async def get(self, wanted: Sequence[tuple[str, Sequence[int]]]) -> list[list[bytes | None]] | None:
        if self._random.random() < 0.1:
            return None
        honesty = self._random.choice([1.0, 0.9, 0.5])
        kept = await self._honest.get(wanted) or []
        return [[one if self._random.random() < honesty else self._lie(one) for one in of_key] for of_key in kept]

    def put(self, values: Mapping[str, Mapping[int, bytes]], keep_seconds: float) -> None:
        self._said.extend(one for slots in values.values() for one in slots.values())
        if self._random.random() < 0.8:
            self._honest.put(values, keep_seconds)

    def _lie(self, one: bytes | None) -> bytes | None:
        other = self._random.choice(self._said)
        return self._random.choice([None, other, other[:-1], b"rubbish" + (one or b"")])


class Fixture:
    """A database, two histories and the log that keeps what it stores, all on the test's own loop."""

    def __init__(self, runner: asyncio.Runner, database: Database, log: MessageLog) -> None:
        self.runner, self.database, self.log = runner, database, log
        self.telemetry = Telemetry("test")


@pytest.fixture(scope="module")
def fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fixture]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        options: dict[str, Any] = {"database": f"sqlite:///{tmp_path_factory.mktemp('recent')}/store.sqlite"}
        database, log = runner.run(stack.enter_async_context(open_database(StoreSettings(**options))))
        runner.run(database.write(migrate))
        yield Fixture(runner, database, log)
        runner.run(stack.aclose())


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_an_adversarial_cache_changes_no_answer(fixture: Fixture, seed: int) -> None:
    fixture.runner.run(compare(fixture, Random(seed)))


async def compare(fixture: Fixture, random: Random) -> None:
    cache = cast(Cache, Adversary(random))
    plain, recent = DatabaseHistory(fixture.database), RecentHistory(fixture.database, cache, SIZE, fixture.telemetry)
    log = RecentLog(fixture.log, fixture.database, cache, SIZE, recent.readership)
    keeping = asyncio.create_task(log.run())
    chats = [await direct(fixture.database) for _ in range(3)]
    for _ in range(12):
        await log.append([draft(random, *random.choice(chats)) for _ in range(random.randint(1, 6))])
        await asyncio.sleep(0)  # lets what was stored be kept, or not yet
        for _ in range(4):
            name, ordinals = random.choice(chats)
            user = random.choice([0, *ordinals])
            question = entries.Question(
                name, user, random.randint(0, 40), newer=random.random() < 0.5, page_size=random.randint(1, 15)
            )
            assert await recent.list_entries(question) == await plain.list_entries(question)
            questions = [device(random, chats) for _ in range(random.randint(1, 3))]
            assert await recent.sync_devices(questions) == await plain.sync_devices(questions)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def direct(database: Database) -> tuple[str, list[int]]:
    """A new chat of two, and their ordinals."""
    pair = f"a{next(_numbers)}", f"b{next(_numbers)}"
    [name] = await database.write(lambda connection: ensure_direct(connection, [pair], clock()))
    users = await database.read(partial(find_users, user_ids=pair))
    return name, [users[user_id].ordinal for user_id in pair]


def draft(random: Random, name: str, ordinals: list[int]) -> Draft:
    """A message, an edit or a deletion; many of the latter are refused."""
    kind = random.choice(["message", "message", "edit", "deletion"])
    target = 0 if kind == "message" else random.randint(1, 30)
    body = None if kind == "deletion" else b"\x0a\x02\x0a\x00" + bytes(0)
    return Draft(name, random.choice(ordinals), f"m{next(_numbers)}", target, body)


def device(random: Random, chats: list[tuple[str, list[int]]]) -> sync.Question:
    name, ordinals = random.choice(chats)
    positions = {name: random.randint(0, 30)} if random.random() < 0.7 else {}
    token = sync.Token((name,), random.randint(0, 20)) if random.random() < 0.3 else None
    return sync.Question(random.choice(ordinals), "phone", positions, random.randint(0, 20), token, random.randint(1, 20))


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def cached(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreClient]:
    """A store that keeps ten recent entries, in either cache."""
    url = request.getfixturevalue("redis_server").url if request.param == "redis" else "memory://"
    async with running_store(f"sqlite:///{tmp_path}/store.sqlite", cache=url, history_cache_entries=10) as client:
        yield client


async def test_a_store_with_a_cache_reads_as_one_without(cached: StoreClient) -> None:
    chat = await cached.direct("alice", "bob")
    alice, bob, eve = await cached.ordinals("alice", "bob", "eve")
    await cached.say(chat, alice, *(f"text {n}" for n in range(1, 6)))
    for _ in range(3):
        assert texts(await cached.entries(chat, bob)) == [f"text {n}" for n in range(1, 6)]
    await cached.append(edit(chat, alice, "e1", 2, "secret"), deletion(chat, alice, "d1", 2))
    for _ in range(3):
        read = await cached.entries(chat, bob)
        assert texts(read) == ["text 1", "", "text 3", "text 4", "text 5"]
        assert b"secret" not in b"".join(one.SerializeToString() for one in read)
    with pytest.raises(Exception, match="not a member"):
        await cached.entries(chat, eve)
    await cached.say(chat, bob, *(f"more {n}" for n in range(20)))
    assert len(await cached.entries(chat, bob)) == 27


@pytest.mark.redis
async def test_redis_flushed_frozen_and_killed_costs_no_entry(redis_server: RedisServer, tmp_path: Path) -> None:  # noqa: F811
    async with running_store(f"sqlite:///{tmp_path}/store.sqlite", cache=redis_server.url, history_cache_entries=100) as store:
        chat = await store.direct("alice", "bob")
        alice, bob = await store.ordinals("alice", "bob")
        said: list[str] = []

        async def say_and_read() -> None:
            said.append(f"text {len(said)}")
            await store.say(chat, alice, said[-1])
            assert texts(await store.entries(chat, bob)) == said
            sync_ = pb.DeviceSync(user_ordinal=bob, device_id="phone", history_limit=1000, page_size=1000)
            [page] = await store.sync(sync_)
            assert texts(page.runs[0].entries) == said

        for _ in range(6):
            await say_and_read()
        for fault in (redis_server.flush, redis_server.kill, redis_server.start):
            fault()
            for _ in range(6):
                await say_and_read()


async def test_what_is_read_often_is_found_in_the_cache(tmp_path: Path) -> None:
    telemetry = Telemetry("test")
    options: dict[str, Any] = {"database": f"sqlite:///{tmp_path}/store.sqlite"}
    async with open_database(StoreSettings(**options)) as (database, log), open_cache("memory://", telemetry) as cache:
        await database.write(migrate)
        name, [alice, bob] = await direct(database)
        history = RecentHistory(database, cache, SIZE, telemetry)
        await log.append([Draft(name, alice, f"m{n}", 0, b"") for n in range(5)])
        question = entries.Question(name, bob, MAX_SEQ, newer=False, page_size=5)
        assert [len((await history.list_entries(question)).entries) for _ in range(3)] == [5, 5, 5]
        await log.append([Draft(name, alice, "m5", 0, b"")])  # not by way of a RecentLog
        assert [len((await history.list_entries(question)).entries) for _ in range(2)] == [5, 5]
        recent = RecentLog(log, database, cache, SIZE, history.readership)
        keeping = asyncio.create_task(recent.run())
        await recent.append([Draft(name, alice, "m6", 0, b"")])
        while await cache.recent.get([(name, [7])]) == [[None]]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await history.list_entries(question)
        keeping.cancel()
        shown = telemetry.exposition().decode()
    telemetry.close()
    for outcome, count in (("missed", 1), ("partial", 1), ("hit", 4)):
        assert f'store_recent_ranges_total{{outcome="{outcome}"}} {count}.0' in shown

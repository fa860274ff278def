"""One contract, two caches: in memory, and over a real Redis, which is also flushed, killed, frozen and given rubbish."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis import Redis

from mesh.cache import QUICK_SECONDS, Cache, SessionRecord
from mesh.memory_cache import MemoryCache
from mesh.open_cache import open_cache
from mesh.redis_line import FAILURES, PAUSE_SECONDS, Circuit
from mesh.telemetry import Telemetry
from tests.eventually import eventually_answered
from tests.servers import RedisServer


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def cache(request: pytest.FixtureRequest, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cache]:
    """Each cache in turn."""
    url = "memory://"
    monkeypatch.setattr("mesh.redis_cache.QUICK_SECONDS", 5.0)  # a machine that stands still for a moment is not the point
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url
    async with open_cache(url, telemetry) as one:
        yield one


@pytest.fixture
async def redis(redis_server: RedisServer, telemetry: Telemetry) -> AsyncIterator[Cache]:
    """The one in Redis."""
    async with open_cache(redis_server.url, telemetry) as one:
        yield one


def session(number: int, user_id: str = "alice", edge_id: str = "edge-1", device_id: str = "phone") -> SessionRecord:
    return SessionRecord(user_id, edge_id, number, device_id, 1_700_000_000_000 + number)


async def listed(cache: Cache, user_id: str = "alice") -> set[SessionRecord]:
    found = await cache.directory.sessions_of(user_id)
    assert found is not None
    assert len(found) == len(set(found))
    return set(found)


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


class TestContract:
    """What holds for both."""

    async def test_a_burst_passes_and_then_the_rate(self, cache: Cache) -> None:
        waits = [await cache.limits.take("alice", 0.1, 3) for _ in range(4)]
        assert waits[:3] == [0.0, 0.0, 0.0]
        assert waits[3] is not None
        assert 0 < waits[3] <= 10
        began = time.monotonic()
        quick = [await cache.limits.take("bob", 10.0, 1) for _ in range(2)]
        await asyncio.sleep(quick[1] or 0.0)
        later = [await cache.limits.take("bob", 10.0, 1) for _ in range(5)]
        assert later[0] == 0.0
        assert [*quick, *later].count(0.0) <= 1 + 10 * (time.monotonic() - began)

    async def test_buckets_are_apart(self, cache: Cache) -> None:
        assert await cache.limits.take("alice", 1.0, 1) == 0.0
        assert await cache.limits.take("bob", 1.0, 1) == 0.0
        assert await cache.limits.take("alice", 1.0, 1) != 0.0

    async def test_those_who_ask_at_once_share_one_bucket(self, cache: Cache) -> None:
        waits = await asyncio.gather(*(cache.limits.take("alice", 0.1, 7) for _ in range(50)))
        assert waits.count(0.0) == 7

    async def test_sessions_are_found_until_they_are_removed(self, cache: Cache) -> None:
        await cache.directory.beat("edge-1")
        await cache.directory.beat("edge-2")
        mine = [session(1), session(2, device_id="tablet"), session(1, edge_id="edge-2")]
        assert await cache.directory.put([*mine, session(3, "bob")])
        assert await listed(cache) == set(mine)
        assert await cache.directory.put([session(1, device_id="phone")])  # again: nothing changes
        assert await cache.directory.remove([mine[1], session(9)])
        assert await listed(cache) == {mine[0], mine[2]}
        assert await cache.directory.remove([mine[0], mine[2]])
        assert await listed(cache) == set()
        assert await listed(cache, "bob") == {session(3, "bob")}
        assert await cache.directory.put([]) and await cache.directory.remove([])

    async def test_an_edge_that_left_takes_its_sessions_with_it(self, cache: Cache) -> None:
        assert await cache.directory.beat("edge-1") is False
        assert await cache.directory.beat("edge-1") is True
        await cache.directory.beat("edge-2")
        await cache.directory.put([session(1), session(2, edge_id="edge-2")])
        await cache.directory.leave("edge-1")
        assert await listed(cache) == {session(2, edge_id="edge-2")}
        assert await cache.directory.beat("edge-1") is False  # so that it puts everything again

    async def test_recent_bytes_are_read_slot_by_slot(self, cache: Cache) -> None:
        cache.recent.put({"a": {1: b"one", 2: b"two"}, "b": {1: b"\0\xff"}}, 60)
        cache.recent.put({"a": {2: b"zwei", 3: b""}}, 60)

        async def written() -> bool:
            return (await cache.recent.get([("a", [3])])) == [[b""]]

        await eventually_answered(written)
        got = await cache.recent.get([("a", [3, 1, 4, 2]), ("none", [1, 2]), ("b", [1]), ("a", [1])])
        assert got == [[b"", b"one", None, b"zwei"], [None, None], [b"\0\xff"], [b"one"]]

    async def test_recent_bytes_go_after_their_time(self, cache: Cache) -> None:
        cache.recent.put({"short": {1: b"x"}}, 0.05)

        async def gone() -> bool:
            return (await cache.recent.get([("short", [1])])) == [[None]]

        await asyncio.sleep(0.05)
        await eventually_answered(gone)


async def test_services_of_a_process_meet_in_its_memory(telemetry: Telemetry) -> None:
    async with open_cache("memory://", telemetry) as one, open_cache("memory://", telemetry) as other:
        await one.directory.beat("edge-1")
        await one.directory.put([session(1)])
        assert await listed(other) == {session(1)}


async def test_in_memory_an_edge_that_no_longer_beats_is_gone() -> None:
    times = iter([0.0, 10.0, 19.9, 20.1])
    cache = MemoryCache(lambda: next(times))
    await cache.directory.beat("edge-1")
    await cache.directory.put([session(1)])
    assert [len(await listed(cache)) for _ in range(3)] == [1, 1, 0]


@pytest.mark.parametrize("url", ["", "redis://", "http://127.0.0.1", "unix:///tmp/redis"])
async def test_other_urls_are_refused_without_being_shown(telemetry: Telemetry, url: str) -> None:
    with pytest.raises(ValueError, match="use memory://, redis://") as raised:
        async with open_cache(url, telemetry):
            pass
    assert not url or url not in str(raised.value).replace("redis://host", "")


@pytest.mark.redis
class TestRedisGoesAway:
    """What it costs, and that it comes back."""

    async def test_flushed_in_the_middle(self, redis: Cache, redis_server: RedisServer) -> None:
        assert [await redis.limits.take("alice", 0.1, 1) for _ in range(2)] != [0.0, 0.0]
        await redis.directory.beat("edge-1")
        await redis.directory.put([session(1)])
        redis_server.flush()
        assert await redis.limits.take("alice", 0.1, 1) == 0.0  # looser by one burst, once
        assert await listed(redis) == set()
        assert await redis.directory.beat("edge-1") is False
        assert redis.up

    async def test_killed_and_started_again(self, redis: Cache, redis_server: RedisServer, telemetry: Telemetry) -> None:
        assert await redis.limits.take("alice", 0.1, 1) == 0.0
        redis_server.kill()
        for _ in range(FAILURES):
            assert await redis.limits.take("alice", 0.1, 1) is None
        assert not redis.up
        assert b"cache_up 0.0" in telemetry.exposition()
        async with within(50 * QUICK_SECONDS):  # nobody waits any more, which would be a hundred times
            assert [await redis.limits.take("alice", 0.1, 1) for _ in range(100)] == [None] * 100
        assert await redis.directory.sessions_of("alice") is None
        assert await redis.directory.put([session(1)]) is False
        assert await redis.recent.get([("a", [1])]) is None
        redis_server.start()

        async def back() -> bool:
            return await redis.limits.take("alice", 0.1, 1) is not None

        await eventually_answered(back)
        assert redis.up
        assert await redis.limits.take("alice", 0.1, 1) != 0.0
        assert b"cache_up 1.0" in telemetry.exposition()
        for outcome in (b"ok", b"failed", b"skipped"):
            assert b'cache_calls_total{outcome="%s"}' % outcome in telemetry.exposition()

    async def test_frozen(self, redis: Cache, redis_server: RedisServer, telemetry: Telemetry) -> None:
        assert await redis.limits.take("alice", 0.1, 1) == 0.0
        redis_server.signal(signal.SIGSTOP)
        for _ in range(FAILURES):
            async with within(30 * QUICK_SECONDS):
                assert await redis.limits.take("alice", 0.1, 1) is None

        async def away() -> bool:
            return not redis.up

        await eventually_answered(away)
        async with within(50 * QUICK_SECONDS):
            assert [await redis.limits.take("alice", 0.1, 1) for _ in range(100)] == [None] * 100
        redis_server.signal(signal.SIGCONT)

        async def back() -> bool:
            return await redis.limits.take("alice", 0.1, 1) is not None

        await eventually_answered(back)
        waits = [await redis.limits.take("alice", 0.1, 1) for _ in range(20)]
        assert all(wait is not None and 0 < wait <= 10 for wait in waits)  # answers belong to their questions again
        assert b'cache_calls_total{outcome="late"}' in telemetry.exposition()

    async def test_never_there(self, telemetry: Telemetry, redis_server: RedisServer) -> None:
        redis_server.kill()
        async with within(30 * QUICK_SECONDS), open_cache(redis_server.url, telemetry) as cache:
            assert await cache.limits.take("alice", 1.0, 1) is None

    async def test_what_cannot_be_written_is_dropped_and_counted(
        self, redis: Cache, redis_server: RedisServer, telemetry: Telemetry
    ) -> None:
        redis_server.signal(signal.SIGSTOP)
        for number in range(5_000):
            redis.recent.put({"a": {number: b"x"}}, 60)
        assert b"cache_dropped_writes_total" in telemetry.exposition()
        redis_server.signal(signal.SIGCONT)

        async def written() -> bool:
            return (await redis.recent.get([("a", [4_999])])) == [[b"x"]]

        await eventually_answered(written)
        assert await redis.recent.get([("a", [0])]) == [[None]]  # the oldest went

    async def test_rubbish_under_our_keys_is_no_answer(self, redis: Cache, redis_server: RedisServer) -> None:
        await redis.directory.beat("edge-1")
        with Redis(port=redis_server.port) as other:
            other.set("tidings:limit:number", "rubbish")
            other.rpush("tidings:limit:list", "rubbish")
            other.set("tidings:limit:future", 2**52)
            other.hset("tidings:user:alice", mapping={"edge-1/x": b"", "edge-1/1": b"\xff\xff", "no edge": b"", b"\xff/1": b""})
            other.set("tidings:user:bob", "rubbish")
            other.set("tidings:recent:a", "rubbish")
        assert await redis.limits.take("number", 0.1, 1) == 0.0
        assert await redis.limits.take("list", 0.1, 1) is None
        assert await redis.limits.take("future", 0.1, 1) == pytest.approx(10, abs=1)  # never longer than a drained bucket
        assert await listed(redis) == set()
        assert await redis.directory.sessions_of("bob") is None
        assert await redis.directory.put([session(1, "bob"), session(2, "carol")]), "what never can be written is left"
        assert await listed(redis, "carol") == {session(2, "carol")}
        assert await redis.recent.get([("a", [1]), ("b", [1])]) == [[None], [None]]
        assert redis.up


def test_the_circuit_opens_after_failures_in_a_row_and_lets_one_probe_through() -> None:
    circuit = Circuit()
    assert not any(circuit.failed(0.0) for _ in range(FAILURES - 1))
    assert not circuit.succeeded()
    assert [circuit.failed(1.0) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    assert not circuit.closed
    assert not circuit.allows(1.0 + PAUSE_SECONDS - 0.01)
    assert [circuit.allows(1.0 + PAUSE_SECONDS) for _ in range(3)] == [True, False, False]
    assert not circuit.failed(2.5)  # no news
    assert not circuit.allows(3.0)
    assert circuit.allows(2.5 + PAUSE_SECONDS)
    assert circuit.succeeded()
    assert circuit.allows(3.5)

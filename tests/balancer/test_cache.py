"""What balancers share by the cache: the rate of an address, and where users are. Over a real Redis, which also goes away."""

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from balancer.rate_limit import ConnectRate
from balancer.sessions import reconciled
from mesh import errors
from mesh.cache import Cache, SessionRecord
from mesh.credentials import mint_token
from mesh.open_cache import open_cache
from mesh.telemetry import Telemetry
from tests.balancer.conftest import SECRET, Running, Start
from tests.servers import RedisServer, redis_server  # noqa: F401  (a fixture)
from tidings.balancer.v1 import balancer_pb2 as pb
from tidings.common.v1 import error_pb2

BURST = 20
QUICK_SECONDS = 0.5
RATE = {"connects_per_second": 0.01, "connect_burst": BURST, "trust_forwarded_for": 1}


@pytest.fixture
async def cache(redis_server: RedisServer) -> AsyncIterator[Cache]:  # noqa: F811
    telemetry = Telemetry("test")
    async with open_cache(redis_server.url, telemetry) as one:
        yield one
    telemetry.close()


async def statuses(balancers: list[Running], times: int, ip: str) -> Counter[int]:
    """Ask each so many times from an address; gives how often which status came."""
    token = mint_token(SECRET, "alice", time.time(), 60)

    async def ask(balancer: Running) -> int:
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": ip}
        async with balancer.http.post(balancer.url(), headers=headers) as response:
            return response.status

    return Counter([await ask(balancer) for _ in range(times) for balancer in balancers])


async def sessions(balancer: Running, user_id: str = "alice") -> list[tuple[str, str, int]]:
    listed = await balancer.stub.ListSessions(pb.ListSessionsRequest(user_id=user_id))
    return [(one.edge_id, one.device_id, one.connected_time_ms) for one in listed.sessions]


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await reached():  # noqa: ASYNC110  (another process's state is looked at by polling)
            await asyncio.sleep(0.05)


class Shared:
    """The buckets of others, as told."""

    def __init__(self, *waits: float | None) -> None:
        self.waits = list(waits)
        self.asked: list[tuple[Any, ...]] = []

    async def take(self, *asked: Any) -> float | None:
        self.asked.append(asked)
        return self.waits.pop(0)


async def test_the_own_bucket_is_asked_first_and_alone_when_the_shared_one_cannot_say() -> None:
    shared = Shared(0.0, 2.5, None)
    rate = ConnectRate(1.0, 3, shared)
    assert [await rate.take("net", 0.0) for _ in range(4)] == [0.0, 2.5, 0.0, 1.0]
    assert shared.asked == [("connect:net", 1.0, 3)] * 3


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a moment is not the point."""
    monkeypatch.setattr("mesh.redis_cache.QUICK_SECONDS", QUICK_SECONDS)


@asynccontextmanager
async def two(start: Start, url: str) -> AsyncIterator[list[Running]]:
    """Two balancers with room for everybody."""
    async with start(**RATE, cache=url) as one, start(**RATE, cache=url) as other:
        for balancer in (one, other):
            await balancer.edge("edge-1").hello()
        yield [one, other]


@pytest.mark.redis
async def test_balancers_share_the_rate_of_an_address_while_they_can(start: Start, redis_server: RedisServer) -> None:  # noqa: F811
    async with two(start, redis_server.url) as pair:
        assert await statuses(pair, BURST, "10.0.0.1") == {200: BURST, 429: BURST}
        assert await statuses(pair[:1], BURST, "10.0.0.2") == {200: BURST}
        assert await statuses(pair[1:], 1, "10.0.0.2") == {429: 1}
        redis_server.flush()  # one more burst, but not from the balancer that remembers the last
        assert await statuses(pair, BURST - 1, "10.0.0.2") == {200: BURST - 1, 429: BURST - 1}


@pytest.mark.redis
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_without_redis_the_door_answers_quickly_each_balancer_limits_alone_and_later_both_again(
    start: Start,
    redis_server: RedisServer,  # noqa: F811
    fault: str,
) -> None:
    async with two(start, redis_server.url) as pair:
        redis_server.kill() if fault == "killed" else redis_server.signal(signal.SIGSTOP)
        started = time.monotonic()
        assert await statuses(pair, BURST + 2, "10.0.0.1") == {200: 2 * BURST, 429: 4}
        assert time.monotonic() - started < 25 * QUICK_SECONDS  # of forty that would wait, three do at each balancer
        redis_server.start() if fault == "killed" else redis_server.signal(signal.SIGCONT)
        addresses = itertools.count(1)

        async def back() -> bool:
            await statuses(pair, 1, f"10.1.0.{next(addresses)}")
            return all([b"cache_up 1.0" in await _metrics(balancer) for balancer in pair])

        await until(back)
        assert await statuses(pair, BURST, "10.0.0.3") == {200: BURST, 429: BURST}


async def _metrics(balancer: Running) -> bytes:
    async with balancer.http.get(balancer.url("/metrics")) as response:
        return await response.read()


@pytest.mark.redis
async def test_sessions_are_named_by_the_directory_and_counted_by_the_edges(
    start: Start,
    redis_server: RedisServer,  # noqa: F811
    cache: Cache,
) -> None:
    async with start(cache=redis_server.url) as balancer:
        await balancer.edge("edge-1").hello(("10.0.0.1", "alice"), ("10.0.0.2", "alice"), ("10.0.0.2", "bob"))
        other = balancer.edge("edge-2")
        await other.hello(("10.0.0.1", "alice"))
        for edge_id in ("edge-1", "edge-2", "edge-3"):
            await cache.directory.beat(edge_id)
        mine = [SessionRecord("alice", f"edge-{edge}", 1, f"device-{edge}", 1000 + edge) for edge in (1, 2, 3)]
        await cache.directory.put(mine)
        named = [("edge-1", "", 0), ("edge-1", "device-1", 1001)]
        assert await sessions(balancer) == [*named, ("edge-2", "device-2", 1002)]  # edge-3 reports to nobody
        assert b"session_store_hit_ratio 0.0" in await _metrics(balancer)  # one was nameless
        await cache.directory.put([SessionRecord("alice", "edge-1", 2, "tablet", 999)])
        assert await sessions(balancer) == [named[1], ("edge-1", "tablet", 999), ("edge-2", "device-2", 1002)]
        assert b"session_store_hit_ratio 0.5" in await _metrics(balancer)
        await other.leave()
        assert [one[0] for one in await sessions(balancer)] == ["edge-1", "edge-1"]
        assert await sessions(balancer, "carol") == []
        redis_server.kill()
        assert await sessions(balancer) == [("edge-1", "", 0)] * 2


async def test_in_one_process_without_redis_edges_are_known(start: Start) -> None:
    async with start() as balancer:
        await balancer.edge("edge-1").hello(("10.0.0.1", "alice"))
        assert await sessions(balancer) == [("edge-1", "", 0)]
        for user_id in ("", "a b", "x" * 129):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await sessions(balancer, user_id)
            error = errors.from_rpc_error(raised.value)
            assert (error.code, error.field) == (error_pb2.ERROR_CODE_INVALID_FIELD, "user_id")


def test_of_entries_that_outlived_their_sessions_the_newest_are_shown() -> None:
    found = [SessionRecord("alice", "edge-1", number, f"device-{number}", number) for number in range(1, 5)]
    assert reconciled("alice", found, {"edge-1": 2}) == found[2:]
    assert reconciled("alice", found, {}) == []

"""With PostgreSQL all stores go by its clock, whatever their machines show."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import grpc
import psycopg
import pytest

from mesh import errors, rpc, times
from mesh.followed_clock import FollowedClock
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from mesh.times import SECOND, microseconds, timestamp
from store.database_clock import DatabaseClock
from store.serve import serve
from store.settings import StoreSettings
from tests.store.notifications import NotificationClient
from tidings.store.v1 import notification_pb2 as pb
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub

HOUR = 3_600 * SECOND
TOLERANCE = 2 * SECOND  # between two questions, on a busy machine


class Fake:
    """A database that shows a time, or is away."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.away = False
        self.asked = asyncio.Event()

    async def read(self, work: Callable[[Any], Any]) -> Any:
        self.asked.set()
        if self.away:
            raise errors.unavailable("away")
        return work(self)

    write = read

    def execute(self, _: object) -> "Fake":
        return self

    def scalar_one(self) -> int:
        """What its clock shows."""
        return times.clock() + self.ahead


@pytest.mark.postgresql
@pytest.mark.parametrize("fast", [HOUR, -HOUR])
async def test_a_store_whose_clock_is_wrong_judges_by_the_database(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, fast: int
) -> None:
    monkeypatch.setattr("store.serve.clock", lambda: times.clock() + fast)
    telemetry = Telemetry("store-test")
    options: dict[str, Any] = {"database": postgres_url, "port": 0, "drain_seconds": 1, "reflection": False}
    async with (
        serve(StoreSettings(**options), MemoryRegistry(), telemetry) as instance,
        rpc.channel(instance.grpc_address, telemetry) as channel,
    ):
        await check_times(channel, postgres_url, fast)
        assert abs(ahead(telemetry) * SECOND - fast) < TOLERANCE
    telemetry.close()


def ahead(telemetry: Telemetry) -> float:
    """What the gauge shows."""
    [line] = re.findall(r"^store_clock_ahead_seconds\S* (\S+)$", telemetry.exposition().decode(), re.MULTILINE)
    return float(line)


async def check_times(channel: grpc.aio.Channel, url: str, fast: int) -> None:
    """What is due for half an hour is given, and not ended; what will be in half an hour is not given."""
    store = NotificationClient(channel, None, None)  # type: ignore[arg-type]  # made of requests of its own
    stub = NotificationStoreServiceStub(channel)
    now = database_time(url)
    names = {}
    for name, begins in {"due": now - SECOND, "later": now + HOUR // 2}.items():
        request = pb.CreateNotificationRequest(request_id=name, request_digest=b"0" * 16, notification_id=f"n{name:a>26}")
        request.spec.send_time.CopyFrom(timestamp(begins))
        request.spec.expire_time.CopyFrom(timestamp(now + HOUR * 3 // 4))
        names[name] = (await stub.CreateNotification(request)).notification.notification_id
    response = await store.claim_response()
    assert [one.notification_id for one in response.notifications] == [names["due"]], fast
    assert abs(microseconds(response.store_time) - database_time(url)) < TOLERANCE
    assert abs(microseconds(response.notifications[0].create_time) - now) < TOLERANCE


def database_time(url: str) -> int:
    """The database's clock."""
    with psycopg.connect(url) as connection:
        [found] = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone() or [0]
        return int(found)


async def test_it_follows_a_step_and_keeps_what_it_knows_while_the_database_is_away() -> None:
    database, clock, telemetry = Fake(HOUR), FollowedClock(), Telemetry("store-test")
    following = DatabaseClock(database, clock, telemetry)
    await following.measure()
    assert abs(clock() - times.clock() - HOUR) < TOLERANCE
    database.away = True
    with pytest.raises(errors.TidingsError):
        await following.measure()
    assert abs(clock() - times.clock() - HOUR) < TOLERANCE
    telemetry.close()


async def test_it_measures_again_and_outlives_failures() -> None:
    database, clock, telemetry = Fake(0), FollowedClock(), Telemetry("store-test")
    database.away = True
    running = asyncio.create_task(DatabaseClock(database, clock, telemetry).run(0.001))
    await asyncio.wait_for(database.asked.wait(), 5)
    database.ahead, database.away = -HOUR, False
    async with asyncio.timeout(5):
        while abs(clock() - times.clock() + HOUR) > TOLERANCE:
            database.asked.clear()
            await database.asked.wait()
    running.cancel()
    telemetry.close()

"""WatchNotification: the report at once, whenever it changes, until it is over."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from mesh import rpc
from mesh.errors import TidingsError
from tests.eventually import eventually_answered
from tests.scheduler.business import Business, stamp
from tests.scheduler.mesh_under_test import Mesh, Store
from tests.scheduler.router_twin import Router
from tests.scheduler.test_controls import send_to
from tidings.common.v1 import notification_pb2 as common
from tidings.scheduler.v1 import scheduler_pb2 as pb

LATER = stamp("2026-06-02 12:00")


class Watching:
    """One who watches a notification."""

    def __init__(self, business: Business, notification_id: str) -> None:
        self._call: Any = business.stub.WatchNotification(pb.WatchNotificationRequest(notification_id=notification_id))

    async def next(self) -> common.NotificationReport | None:
        """The next report; None at the end."""
        with rpc.named_errors():
            response = await asyncio.wait_for(self._call.read(), 10)
        return response.report if isinstance(response, pb.WatchNotificationResponse) else None

    async def until(self, state: common.NotificationState.ValueType) -> list[common.NotificationReport]:
        """Reports up to the first in this state."""
        reports = []
        while report := await self.next():
            reports.append(report)
            if report.state == state:
                return reports
        raise AssertionError("it ended before")

    def cancel(self) -> None:
        """Hear no more."""
        self._call.cancel()


async def refused(watching: Watching) -> str:
    """The reason that watching ends with."""
    with pytest.raises(TidingsError) as raised:
        while await watching.next() is not None:
            pass
    return raised.value.reason


async def test_from_the_first_report_to_the_final_one(store: Store, router: Router, business: Business) -> None:
    notification_id = await business.send("a", "b", send_time=LATER)
    watching = Watching(business, notification_id)
    first = await watching.next()
    assert first is not None
    assert (first.state, first.expansion) == (common.NOTIFICATION_STATE_SCHEDULED, 0)
    await business.reschedule(notification_id)
    await send_to(store, router, notification_id, "a")
    sent = (await watching.until(common.NOTIFICATION_STATE_SENDING))[-1]
    while sent.sent == 0:
        sent = await watching.next() or sent
    assert (sent.expansion, sent.pending, sent.sent) == (2, 2, 1)
    await business.cancel(notification_id)
    final = await watching.next()
    assert final is not None
    assert (final.state, final.sent, final.cancelled) == (common.NOTIFICATION_STATE_CANCELLED, 1, 2)
    assert await watching.next() is None


async def test_nothing_is_said_while_nothing_changes(mesh: Mesh, business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    watching = Watching(business, notification_id)
    await watching.next()
    mesh.clock.advance(seconds=1)  # the time of reading changes, and nothing else
    reads = readings(mesh)

    async def often() -> bool:
        return readings(mesh) >= reads + 5

    await eventually_answered(often)
    await business.pause(notification_id)
    report = await watching.next()
    assert report is not None
    assert report.state == common.NOTIFICATION_STATE_PAUSED
    watching.cancel()


def readings(mesh: Mesh) -> float:
    """Calls to GetNotifications that the store has served."""
    lines = mesh.telemetry.exposition().decode().splitlines()
    counted = [line for line in lines if line.startswith("rpc_server_duration_seconds_count") and "GetNotifications" in line]
    return sum(float(line.split()[-1]) for line in counted)


async def test_many_watchers_of_one_notification_all_hear_the_end(business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    watchers = [Watching(business, notification_id) for _ in range(20)]
    for watching in watchers:
        await watching.next()
    await business.cancel(notification_id)
    for watching in watchers:
        report = await watching.next()
        assert report is not None
        assert report.state == common.NOTIFICATION_STATE_CANCELLED
        assert await watching.next() is None


async def test_what_is_over_is_told_once(business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    await business.cancel(notification_id)
    watching = Watching(business, notification_id)
    report = await watching.next()
    assert report is not None
    assert report.state == common.NOTIFICATION_STATE_CANCELLED
    assert await watching.next() is None


async def test_what_does_not_exist_is_not_found(business: Business) -> None:
    for unknown in ("n" + "a" * 26, "x"):
        assert await refused(Watching(business, unknown)) == "NOTIFICATION_NOT_FOUND"


async def test_more_watchers_than_allowed_are_refused_until_one_leaves(mesh: Mesh, store: Store) -> None:
    business = await mesh.scheduler(max_watches=1)
    notification_id = await business.send(send_time=LATER)
    first = Watching(business, notification_id)
    await first.next()
    assert await refused(Watching(business, notification_id)) == "OVERLOADED"
    first.cancel()
    await eventually_answered(lambda: allowed(Watching(business, notification_id)))


async def allowed(watching: Watching) -> bool:
    """Whether it gets a first report."""
    try:
        return await watching.next() is not None
    except TidingsError as error:
        assert error.reason == "OVERLOADED"
        return False
    finally:
        watching.cancel()


async def test_a_scheduler_that_stops_says_so_at_once(mesh: Mesh, store: Store) -> None:
    async with asyncio.timeout(10), AsyncExitStack() as life:
        business = await mesh.scheduler(life, drain_seconds=60)
        watching = Watching(business, await business.send(send_time=LATER))
        await watching.next()
    assert await refused(watching) == "UNAVAILABLE"


async def test_watching_outlives_a_store_that_is_away_for_a_while(mesh: Mesh, router: Router) -> None:
    async with AsyncExitStack() as first:
        await mesh.store(first)
        business = await mesh.scheduler()
        notification_id = await business.send(send_time=LATER)
        watching = Watching(business, notification_id)
        await watching.next()
    mesh.clock.advance(days=1)
    await mesh.store()
    await router.until(lambda: notification_id in router.ids)
    report = await watching.next()
    assert report is not None
    assert report.state == common.NOTIFICATION_STATE_EXPANDING
    watching.cancel()

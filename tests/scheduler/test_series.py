"""Notifications that recur: one occurrence after the other, whatever happens to any of them."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pyroaring import BitMap

from mesh.errors import TidingsError
from mesh.followed_clock import FollowedClock
from mesh.nodes import NodePool
from mesh.times import timestamp
from scheduler.grpc_store import GrpcNotificationStore
from scheduler.recurrence import Calendar
from scheduler.series import Series
from tests.eventually import eventually_answered
from tests.scheduler.business import Business, at, refusal, spec, stamp
from tests.scheduler.mesh_under_test import Mesh, Store
from tests.scheduler.router_twin import Router
from tidings.common.v1 import notification_pb2 as common
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings.store.v1 import notification_pb2 as stored

DAILY = {"cron": "0 8 * * *"}


def recurring(*recipients: str, recurrence: dict[str, Any] | None = None, **fields: Any) -> common.NotificationSpec:
    """A notification that recurs; daily at 8 if nothing else is said."""
    return spec(*recipients, recurrence=common.Recurrence(**(recurrence or DAILY)), **fields)


async def start(business: Business, recurrence: dict[str, Any] | None = None, **fields: Any) -> pb.Notification:
    """Upload one that recurs."""
    return (await business.upload(recurring(recurrence=recurrence, **fields))).notification


async def series(business: Business, first: pb.Notification) -> list[pb.Notification]:
    """All occurrences, the first first."""
    return (await business.list(series_id=first.series_id))[::-1]


async def times(business: Business, first: pb.Notification) -> list[int]:
    """Their send times in microseconds, the first first."""
    return [one.spec.send_time.ToMicroseconds() for one in await series(business, first)]


async def number(business: Business, first: pb.Notification, wanted: int) -> list[pb.Notification]:
    """All occurrences, once there are so many."""

    async def enough() -> list[pb.Notification] | None:
        found = await series(business, first)
        return found if len(found) >= wanted else None

    return await eventually_answered(enough) or []


async def test_the_first_occurrence_is_at_the_first_time_and_the_next_is_made_when_it_is_due(
    mesh: Mesh, router: Router, business: Business
) -> None:
    first = await start(business)
    assert (first.occurrence, first.series_id) == (1, first.notification_id)
    assert (first.spec.send_time, first.spec.expire_time) == (stamp("2026-06-02 08:00"), stamp("2026-06-09 08:00"))
    assert len(await series(business, first)) == 1
    for day in (2, 3, 4):
        mesh.clock.now = at(f"2026-06-0{day} 08:00")
        await router.takes(day - 1)
    occurrences = await series(business, first)
    assert [one.occurrence for one in occurrences] == [1, 2, 3, 4]
    assert await times(business, first) == [at(f"2026-06-0{day} 08:00") for day in (2, 3, 4, 5)]
    assert router.ids == [one.notification_id for one in occurrences[:3]]
    last = occurrences[-1]
    assert (last.spec.audience, last.spec.content) == (first.spec.audience, first.spec.content)
    assert last.spec.expire_time == stamp("2026-06-12 08:00")


async def test_a_send_time_of_its_own_comes_before_those_of_the_schedule(mesh: Mesh, router: Router, business: Business) -> None:
    first = await start(business, send_time=stamp("2026-06-01 12:30"))
    mesh.clock.advance(minutes=30)
    await number(business, first, 2)
    assert await times(business, first) == [at("2026-06-01 12:30"), at("2026-06-02 08:00")]


async def test_times_are_of_the_time_zone_also_over_a_change_of_the_clocks(mesh: Mesh, router: Router, business: Business) -> None:
    mesh.clock.now = at("2026-10-23 12:00")
    first = await start(business, {"cron": "30 2 * * *", "time_zone": "Europe/Zurich"})
    for time in ("2026-10-24 02:30+02:00", "2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"):
        mesh.clock.now = at(time)
        before = len(router.ids)
        await router.takes(before + 1)
    assert await times(business, first) == [
        at("2026-10-24 02:30+02:00"),
        at("2026-10-25 02:30+02:00"),
        at("2026-10-26 02:30+01:00"),
        at("2026-10-27 02:30+01:00"),
    ]


async def test_missed_occurrences_are_left_out(mesh: Mesh, router: Router, store: Store) -> None:
    async with AsyncExitStack() as first_life:
        first = await start(await mesh.scheduler(first_life))
    mesh.clock.now = at("2026-06-05 10:00")
    business = await mesh.scheduler()
    await router.until(lambda: router.ids == [first.notification_id])
    assert await times(business, first) == [at("2026-06-02 08:00"), at("2026-06-06 08:00")]


async def test_a_series_goes_on_though_its_occurrence_expired_while_nobody_was_there(
    mesh: Mesh, router: Router, store: Store
) -> None:
    async with AsyncExitStack() as first_life:
        first = await start(await mesh.scheduler(first_life), expire_time=stamp("2026-06-02 09:00"))
    mesh.clock.now = at("2026-06-05 10:00")
    business = await mesh.scheduler()
    await number(business, first, 2)
    await business.reaches(first.notification_id, common.NOTIFICATION_STATE_EXPIRED)
    assert await times(business, first) == [at("2026-06-02 08:00"), at("2026-06-06 08:00")]
    mesh.clock.now = at("2026-06-06 08:00")
    await router.until(lambda: router.ids)
    assert first.notification_id not in router.ids


async def test_the_last_occurrence_that_expired_unseen_ends_too(mesh: Mesh, router: Router, store: Store) -> None:
    async with AsyncExitStack() as first_life:
        business = await mesh.scheduler(first_life)
        first = await start(business, DAILY | {"max_occurrences": 1}, expire_time=stamp("2026-06-02 09:00"))
    mesh.clock.now = at("2026-06-05 10:00")
    business = await mesh.scheduler()
    await business.reaches(first.notification_id, common.NOTIFICATION_STATE_EXPIRED)
    assert (len(await series(business, first)), router.ids) == (1, [])


@pytest.mark.parametrize("end", [{"max_occurrences": 2}, {"end_time": stamp("2026-06-04 08:00")}])
async def test_a_series_ends_after_its_last_occurrence(mesh: Mesh, router: Router, business: Business, end: dict[str, Any]) -> None:
    first = await start(business, DAILY | end)
    for day in (2, 3):
        mesh.clock.now = at(f"2026-06-0{day} 08:00")
        await router.takes(day - 1)
    mesh.clock.now = at("2026-06-10 08:00")
    probe = await business.send("probe")
    await router.until(lambda: probe in router.ids)
    assert await times(business, first) == [at("2026-06-02 08:00"), at("2026-06-03 08:00")]


async def test_several_schedulers_make_each_occurrence_once(mesh: Mesh, router: Router, business: Business) -> None:
    for _ in range(2):
        await mesh.scheduler()
    first = await start(business, {"cron": "* * * * *"})
    for minute in range(1, 6):
        mesh.clock.advance(minutes=1)
        await router.takes(minute)
    occurrences = await number(business, first, 6)
    assert [one.occurrence for one in occurrences] == [1, 2, 3, 4, 5, 6]


async def test_a_claim_repeated_after_a_crash_makes_nothing_twice(mesh: Mesh, store: Store, router: Router) -> None:
    """A scheduler died after it had made the next occurrence and before it had handed over the one before."""
    async with AsyncExitStack() as first_life:
        business = await mesh.scheduler(first_life)
        first = await start(business)
    mesh.clock.now = at("2026-06-02 08:00")
    lost = stored.ClaimNotificationsRequest(claimer_id="died", limit=10)
    lost.lease.seconds = 10
    assert len((await store.notifications.ClaimNotifications(lost)).notifications) == 1
    router.refuse = True
    business = await mesh.scheduler()
    mesh.clock.advance(seconds=11)
    await router.until(lambda: len(router.calls) >= 3)
    router.refuse = False
    await router.until(lambda: first.notification_id in router.ids)
    assert [one.occurrence for one in await series(business, first)] == [1, 2]


async def test_cancelling_one_occurrence_lets_the_series_go_on(mesh: Mesh, router: Router, business: Business) -> None:
    first = await start(business)
    await business.cancel(first.notification_id)
    assert await times(business, first) == [at("2026-06-02 08:00"), at("2026-06-03 08:00")]
    mesh.clock.now = at("2026-06-03 08:00")
    await router.until(lambda: router.ids)
    assert first.notification_id not in router.ids


async def test_pausing_one_occurrence_lets_the_others_go_on(mesh: Mesh, router: Router, business: Business) -> None:
    first = await start(business)
    await business.pause(first.notification_id)
    await business.pause(first.notification_id)
    mesh.clock.now = at("2026-06-03 08:00")
    occurrences = await number(business, first, 3)
    await router.until(lambda: router.ids == [occurrences[1].notification_id])
    await business.resume(first.notification_id)
    await router.until(lambda: first.notification_id in router.ids)
    assert len(await series(business, first)) == 3


@pytest.mark.parametrize("named", [0, 1, 2])
async def test_cancelling_the_series_ends_all_of_it_whichever_occurrence_is_named(
    mesh: Mesh, router: Router, business: Business, named: int
) -> None:
    first = await start(business, {"cron": "* * * * *"})
    for minute in (1, 2):
        mesh.clock.advance(minutes=1)
        await router.takes(minute)
    occurrences = await series(business, first)
    answer = await business.cancel(occurrences[named].notification_id, "whole", whole_series=True)
    assert answer.notification.notification_id == occurrences[named].notification_id
    mesh.clock.advance(minutes=10)
    probe = await business.send("probe")
    await router.until(lambda: probe in router.ids)
    assert [one.report.state for one in await series(business, first)] == [common.NOTIFICATION_STATE_CANCELLED] * 3
    assert await business.cancel(occurrences[named].notification_id, "whole", whole_series=True) == answer
    conflict = business.cancel(first.notification_id, whole_series=True)
    assert await refusal(conflict) == ("NOTIFICATION_STATE_CONFLICT", "notification_id")


async def test_a_series_is_ended_by_the_id_of_an_occurrence_that_is_over(mesh: Mesh, router: Router, business: Business) -> None:
    first = await start(business)
    await business.cancel(first.notification_id)
    await business.cancel(first.notification_id, whole_series=True)
    assert [one.report.state for one in await series(business, first)] == [common.NOTIFICATION_STATE_CANCELLED] * 2


async def test_no_occurrence_is_made_once_the_series_is_cancelled_however_close(mesh: Mesh, business: Business) -> None:
    """Claims and cancellations at the same moment, again and again: what is cancelled stays alone."""
    other = await mesh.scheduler()
    for _ in range(10):
        first = await start(business, {"cron": "* * * * *"})
        mesh.clock.advance(minutes=1)
        await asyncio.gather(
            other.cancel(first.notification_id, whole_series=True), refusal_or_none(business.pause(first.notification_id))
        )
        states = {one.report.state for one in await series(business, first)}
        assert states == {common.NOTIFICATION_STATE_CANCELLED}
        mesh.clock.advance(minutes=5)
        await business.send("probe")
        assert {one.report.state for one in await series(business, first)} == states


async def refusal_or_none(call: Any) -> str:
    """The reason a call fails with, if it does."""
    try:
        await call
    except TidingsError as error:
        return error.reason
    return ""


async def test_an_occurrence_moved_past_others_is_followed_by_the_next_one_after_it(
    mesh: Mesh, router: Router, business: Business
) -> None:
    first = await start(business)
    await business.reschedule(first.notification_id, send_time=timestamp(at("2026-06-04 12:00")))
    mesh.clock.now = at("2026-06-04 12:00")
    await router.until(lambda: router.ids)
    assert await times(business, first) == [at("2026-06-04 12:00"), at("2026-06-05 08:00")]


async def test_an_audience_settled_at_upload_is_that_of_all_occurrences(
    mesh: Mesh, router: Router, store: Store, business: Business
) -> None:
    mesh.tags.put("gold", *await store.ordinals("a", "b"))
    first = await start(business, expression="gold", expand_at=common.EXPAND_AT_UPLOAD)
    mesh.tags.put("gold", *await store.ordinals("a", "b", "c"))
    mesh.clock.now = at("2026-06-02 08:00")
    second = (await number(business, first, 2))[1]
    assert (second.report.expansion, second.report.snapshot_version) == (2, first.report.snapshot_version)
    request = stored.ReadRecipientsRequest(notification_id=second.notification_id, outcomes=[common.OUTCOME_EXPANSION])
    chunks = [BitMap.deserialize(chunk.user_ordinals[0]) async for chunk in store.notifications.ReadRecipients(request)]
    assert chunks == [BitMap(await store.ordinals("a", "b"))]


async def test_later_occurrences_are_known_to_name_the_same_tags(
    mesh: Mesh, router: Router, store: Store, business: Business
) -> None:
    mesh.tags.put("gold", *await store.ordinals("a"))
    first = await start(business, expression="gold")
    mesh.clock.now = at("2026-06-02 08:00")
    await number(business, first, 2)
    references = await store.notifications.ListReferences(stored.ListReferencesRequest(names=["gold"]))
    assert len(references.notification_ids) == 2


async def test_without_the_store_no_occurrence_is_skipped(mesh: Mesh, router: Router) -> None:
    async with AsyncExitStack() as first_life:
        await mesh.store(first_life)
        business = await mesh.scheduler()
        first = await start(business)
    mesh.clock.now = at("2026-06-02 08:00")
    await mesh.store()
    await router.until(lambda: router.ids == [first.notification_id])
    assert len(await number(business, first, 2)) == 2


async def test_a_claim_that_was_overtaken_makes_nothing_and_is_not_handed_over(mesh: Mesh, store: Store) -> None:
    async with AsyncExitStack() as life:
        business = await mesh.scheduler(life)
        first = await start(business)
    mesh.clock.now = at("2026-06-02 08:00")
    claim = stored.ClaimNotificationsRequest(claimer_id="slow", limit=10)
    claim.lease.seconds = 10
    [slow] = (await store.notifications.ClaimNotifications(claim)).notifications
    pool = await mesh.enter(NodePool.open(mesh.registry, "store", mesh.telemetry))
    makes = Series(GrpcNotificationStore(pool, FollowedClock()), Calendar.load(), mesh.clock)
    mesh.clock.advance(seconds=11)
    [quick] = (await store.notifications.ClaimNotifications(claim)).notifications
    assert not await makes.follow_claimed(slow)
    listing = stored.ListNotificationsRequest(series_id=first.series_id, page_size=10)
    assert len((await store.notifications.ListNotifications(listing)).notifications) == 1
    assert await makes.follow_claimed(quick)
    assert await makes.follow_claimed(quick)
    assert len((await store.notifications.ListNotifications(listing)).notifications) == 2


async def test_one_whose_next_occurrence_can_not_be_made_is_put_aside_and_holds_up_no_other(
    mesh: Mesh, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.store(notification_failures=3)
    await mesh.audience()
    business = await mesh.scheduler()
    first = await start(business, priority=9)
    follow = Calendar.next_time

    def stumble(calendar: Calendar, recurrence: common.Recurrence, after: int) -> int | None:
        if recurrence.cron == DAILY["cron"]:
            raise LookupError("no such day")
        return follow(calendar, recurrence, after)

    monkeypatch.setattr(Calendar, "next_time", stumble)
    mesh.clock.now = first.spec.send_time.ToMicroseconds()
    other = await business.send("ann")
    await router.takes(1)
    assert router.ids == [other]

    async def paused() -> bool:
        mesh.clock.advance(seconds=1)
        return await business.state(first.notification_id) == common.NOTIFICATION_STATE_PAUSED

    await eventually_answered(paused)
    assert "no such day" in (await business.get(first.notification_id)).report.reason
    monkeypatch.undo()
    monkeypatch.setattr("store.serve.clock", mesh.clock)
    await business.resume(first.notification_id)
    await router.takes(2)
    assert len(await number(business, first, 2)) == 2

"""From due to a router: order, time, several schedulers, restarts, and routers and stores that are away."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from mesh import naming
from mesh.errors import TidingsError
from mesh.nodes import NodePool
from mesh.times import SECOND, clock, timestamp
from scheduler.grpc_routers import GrpcRouter, GrpcRouters
from scheduler.series import Series
from tests.eventually import eventually_answered
from tests.scheduler.business import Business, spec, stamp
from tests.scheduler.mesh_under_test import Mesh, Store
from tests.scheduler.router_twin import Router
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as stored

LATER = stamp("2026-06-02 12:00")


async def test_what_is_due_together_goes_by_priority_then_by_time(mesh: Mesh, router: Router, business: Business) -> None:
    sent = {}
    for priority, hour in [(0, 3), (9, 4), (5, 2), (5, 1), (9, 2)]:
        sent[-priority, hour] = await business.send(priority=priority, send_time=stamp(f"2026-06-02 0{hour}:00"))
    mesh.clock.advance(days=1)
    await router.until(lambda: len(router.started) == 5)
    assert router.ids == [sent[key] for key in sorted(sent)]


async def test_nothing_goes_before_its_time(mesh: Mesh, router: Router, business: Business) -> None:
    late, early = await business.send(send_time=stamp("2026-06-01 13:00")), await business.send(send_time=stamp("2026-06-01 12:30"))
    mesh.clock.advance(minutes=30)
    await router.until(lambda: router.ids == [early])
    mesh.clock.advance(minutes=29, seconds=59)
    probe = await business.send("probe")
    await router.until(lambda: probe in router.ids)
    assert late not in router.ids
    mesh.clock.advance(seconds=1)
    await router.until(lambda: late in router.ids)


async def test_each_goes_to_the_router_that_owns_it(mesh: Mesh, business: Business) -> None:
    routers = {router.router_id: router for router in [await mesh.router() for _ in range(3)]}
    sent = [await business.send(send_time=LATER) for _ in range(30)]
    mesh.clock.advance(days=1)
    for router_id, router in routers.items():
        mine = [one for one in sent if naming.owner(one, routers) == router_id]
        await router.takes(len(mine))
        assert router.ids == mine


async def test_several_schedulers_share_the_work_and_repeat_nothing(mesh: Mesh, router: Router, business: Business) -> None:
    others = [await mesh.scheduler(claim_batch=7), await mesh.scheduler(claim_batch=3)]
    sent = [await one.send(send_time=LATER) for one in (business, *others) for _ in range(20)]
    mesh.clock.advance(days=1)
    await router.until(lambda: len(router.ids) >= len(sent))
    assert sorted(router.ids) == sorted(sent)
    assert (len(router.started), {fence for _, fence in router.started}) == (len(sent), {1})


async def test_what_one_scheduler_takes_in_another_hands_over(mesh: Mesh, router: Router, store: Store) -> None:
    async with AsyncExitStack() as first:
        business = await mesh.scheduler(first)
        notification_id = await business.send(send_time=LATER)
    await mesh.scheduler()
    mesh.clock.advance(days=1)
    await router.until(lambda: notification_id in router.ids)


async def test_late_after_all_are_away_what_expired_is_not_sent_and_the_rest_is(mesh: Mesh, router: Router, store: Store) -> None:
    async with AsyncExitStack() as first:
        business = await mesh.scheduler(first)
        expired = await business.send(send_time=LATER, expire_time=stamp("2026-06-02 13:00"))
        late = await business.send(send_time=LATER, expire_time=stamp("2026-06-12 13:00"))
    mesh.clock.advance(days=5)
    business = await mesh.scheduler()
    await router.until(lambda: late in router.ids)
    await business.reaches(expired, common.NOTIFICATION_STATE_EXPIRED)
    assert router.ids == [late]


async def test_a_notification_whose_router_died_goes_to_another_under_a_new_fence(mesh: Mesh, business: Business) -> None:
    async with AsyncExitStack() as first:
        dying = await mesh.router(first)
        notification_id = await business.send()
        await dying.until(lambda: dying.started)
    router = await mesh.router()
    mesh.clock.advance(seconds=9.9)
    probe = await business.send("probe")
    await router.until(lambda: probe in router.ids)
    assert notification_id not in router.ids, "its lease still runs"
    mesh.clock.advance(seconds=0.2)
    await router.until(lambda: notification_id in router.ids)
    assert (dying.started, dict(router.started)[notification_id]) == ([(notification_id, 1)], 2)


async def test_without_a_router_it_waits_and_goes_when_one_comes(mesh: Mesh, store: Store, business: Business) -> None:
    notification_id = await business.send()
    await business.reaches(notification_id, common.NOTIFICATION_STATE_EXPANDING)
    router = await mesh.router()
    await router.until(lambda: notification_id in router.ids)


async def test_without_a_router_the_store_is_not_asked_in_a_spin(mesh: Mesh, store: Store) -> None:
    business = await mesh.scheduler(poll_seconds=60)
    notification_id = await business.send()
    await business.reaches(notification_id, common.NOTIFICATION_STATE_EXPANDING)
    before, started = claims(mesh), time.monotonic()
    await asyncio.sleep(0.5)  # watched from outside: how often it asks in this time
    assert claims(mesh) - before < 20 * (time.monotonic() - started)


def claims(mesh: Mesh) -> float:
    """Calls to ClaimNotifications that the store has served."""
    lines = mesh.telemetry.exposition().decode().splitlines()
    counted = [line for line in lines if line.startswith("rpc_server_duration_seconds_count") and "ClaimNotifications" in line]
    return sum(float(line.split()[-1]) for line in counted)


async def test_what_a_router_refuses_is_tried_again(router: Router, business: Business) -> None:
    router.refuse = True
    notification_id = await business.send()
    await router.until(lambda: len(router.calls) >= 3)
    assert not router.started
    router.refuse = False
    await router.until(lambda: notification_id in router.ids)
    assert router.started[0][1] == len(router.calls), "each try is a claim with a fence of its own"


async def test_what_a_router_fails_over_is_tried_again_when_its_lease_is_over(
    mesh: Mesh, router: Router, business: Business
) -> None:
    router.fail = True
    notification_id = await business.send()
    await router.until(lambda: router.calls)
    router.fail = False
    mesh.clock.advance(seconds=10.1)
    await router.until(lambda: router.started == [(notification_id, 2)])


async def test_a_full_router_holds_up_no_other(mesh: Mesh, store: Store) -> None:
    full, idle = await mesh.router(), await mesh.router()
    full.room = 1
    business = await mesh.scheduler(claim_room=2)
    sent = [await business.send(send_time=LATER) for _ in range(20)]
    mine = [one for one in sent if naming.owner(one, [full.router_id, idle.router_id]) == full.router_id]
    for one in mine:
        await business.prioritize(one, 9)
    mesh.clock.advance(days=1)
    async with asyncio.timeout(5):
        await idle.takes(len(sent) - len(mine))
        await full.takes(1)
    assert (full.ids, set(idle.ids)) == (mine[:1], set(sent) - set(mine))
    full.room = len(sent)
    async with asyncio.timeout(5):
        await full.takes(len(mine))
    assert sorted(full.ids) == sorted(mine), "once it takes things again, it gets all of them, though their leases still run"


async def test_what_a_router_took_without_an_answer_stays_with_it(mesh: Mesh, router: Router, business: Business) -> None:
    router.mute = True
    notification_id = await business.send()
    await router.until(lambda: router.started)
    router.mute = False
    for _ in range(20):  # the first of them goes after the time for the answer is over
        probe = await business.send()
        await router.until(lambda: probe in router.ids)  # noqa: B023
    assert dict(router.started)[notification_id] == 1
    mesh.clock.advance(seconds=10.1)
    await router.until(lambda: (notification_id, 2) in router.started)


async def test_what_a_router_left_without_an_answer_goes_to_another_at_once(mesh: Mesh, business: Business) -> None:
    async with AsyncExitStack() as life:
        mute = await mesh.router(life)
        mute.mute = True
        notification_id = await business.send()
        await mute.until(lambda: mute.started)
    router = await mesh.router()
    await router.until(lambda: router.started == [(notification_id, 2)])


async def test_an_occurrence_that_can_not_be_prepared_harms_no_other(
    mesh: Mesh, router: Router, business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = Series.follow_claimed

    async def fails(series: Series, claimed: stored.StoredNotification) -> bool:
        if claimed.notification_id == broken:
            raise ZeroDivisionError
        return await follow(series, claimed)

    monkeypatch.setattr(Series, "follow_claimed", fails)
    daily = common.Recurrence(cron="0 8 * * *")
    broken, fine = [await business.send(recurrence=daily) for _ in range(2)]
    mesh.clock.advance(days=1)
    await router.until(lambda: fine in router.ids)
    last = await business.send()
    await router.until(lambda: last in router.ids)
    assert broken not in router.ids
    monkeypatch.setattr(Series, "follow_claimed", follow)
    mesh.clock.advance(seconds=10.1)
    await router.until(lambda: broken in router.ids)


async def test_a_router_that_hangs_holds_up_no_other(mesh: Mesh, store: Store) -> None:
    hanging, fine = await mesh.router(), await mesh.router()
    business = await mesh.scheduler(handover_seconds=5)
    hanging.answering.clear()
    sent = [await business.send() for _ in range(20)]
    mine = [one for one in sent if naming.owner(one, [hanging.router_id, fine.router_id]) == fine.router_id]
    async with asyncio.timeout(5):
        await fine.until(lambda: len(fine.ids) == len(mine))
    assert sorted(fine.ids) == sorted(mine)
    hanging.answering.set()
    await hanging.until(lambda: len(hanging.ids) == len(sent) - len(mine))


async def test_while_the_store_is_away_nothing_is_lost(mesh: Mesh, router: Router) -> None:
    async with AsyncExitStack() as first:
        await mesh.store(first)
        business = await mesh.scheduler()
        notification_id = await business.send(send_time=LATER)
    mesh.clock.advance(days=1)
    await mesh.store()
    await router.until(lambda: notification_id in router.ids)


async def test_what_is_held_at_the_stop_is_released_at_once(mesh: Mesh, router: Router, store: Store) -> None:
    router.refuse = True
    async with AsyncExitStack() as first:
        business = await mesh.scheduler(first, claim_room=1, drain_seconds=60)
        notification_id = await business.send()
        await router.until(lambda: len(router.calls) >= 6)  # by now it is held for a second and more
        before = time.monotonic()
    assert time.monotonic() - before < 30, "it did not wait out the drain"
    request = stored.ClaimNotificationsRequest(claimer_id="test", limit=10)
    request.lease.seconds = 10
    claimed = (await store.notifications.ClaimNotifications(request)).notifications
    assert [one.notification_id for one in claimed] == [notification_id]


async def test_no_more_is_claimed_than_there_is_room_for(mesh: Mesh, router: Router, store: Store) -> None:
    router.answering.clear()
    business = await mesh.scheduler(claim_room=4, claim_batch=10, handover_seconds=5)
    sent = [await business.send() for _ in range(10)]
    await router.until(lambda: router.calls)
    states = [await business.state(one) for one in sent]
    assert states.count(common.NOTIFICATION_STATE_EXPANDING) <= 4
    router.answering.set()
    await router.until(lambda: len(router.ids) == 10)
    assert sorted(router.ids) == sorted(sent)


@pytest.mark.parametrize("ahead", [0.0, 0.25])
async def test_it_goes_just_ahead_of_its_time_not_when_the_next_poll_is(
    mesh: Mesh, router: Router, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    mesh.real_time(monkeypatch)
    await mesh.store()
    business = await mesh.scheduler(poll_seconds=60, claim_ahead_seconds=ahead)
    due = clock() + SECOND // 2
    notification_id = await business.send(send_time=timestamp(due))
    await router.until(lambda: notification_id in router.ids)
    assert 0 <= clock() - due + ahead * SECOND < 5 * SECOND


async def test_a_claim_answered_too_late_for_a_stopping_scheduler_is_given_back(mesh: Mesh, router: Router, store: Store) -> None:
    async with AsyncExitStack() as first:
        business = await mesh.scheduler(first)
        sent: list[Any] = [await business.upload(spec()) for _ in range(30)]
    await mesh.scheduler()
    await router.until(lambda: len(router.ids) == len(sent))


async def test_a_router_that_left_since_it_was_chosen_is_unavailable(mesh: Mesh) -> None:
    pool = await mesh.enter(NodePool.open(mesh.registry, "router", mesh.telemetry))
    routers = GrpcRouters(pool, within=1)

    async def owner() -> GrpcRouter | None:
        try:
            return routers.owner("n1")
        except TidingsError:
            return None

    async def gone() -> bool:
        return await owner() is None

    async with AsyncExitStack() as life:
        await mesh.router(life)
        chosen = await eventually_answered(owner)
    await eventually_answered(gone)
    assert chosen is not None
    for call in (chosen.start([stored.Claim(notification_id="n1", fence=1)]), chosen.refresh(["n1"])):
        with pytest.raises(TidingsError, match="left") as raised:
            await call
        assert raised.value.reason == "UNAVAILABLE"

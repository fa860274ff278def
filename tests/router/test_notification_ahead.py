"""Notifications that a router was given ahead of their time, and first steps that are stored with the audience."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from pyroaring import BitMap

from tests.eventually import eventually
from tests.router.conftest import Mesh
from tests.router.fake_edge import edge
from tests.router.notification_mesh import NotificationMesh, RouterHand, gauge, notification_mesh
from tests.router.notification_twin import Kept
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as store

AHEAD = 0.4  # seconds


@pytest.fixture
async def world(mesh: Mesh) -> AsyncIterator[NotificationMesh]:
    async with notification_mesh(mesh) as made:
        made.memory.takes_first = True
        yield made


@pytest.fixture
async def router(world: NotificationMesh) -> RouterHand:
    return await world.router()


@pytest.mark.parametrize("settled", [False, True])
async def test_nobody_is_sent_it_before_its_time(world: NotificationMesh, router: RouterHand, settled: bool) -> None:
    due = time.monotonic() + AHEAD
    kept = world.memory.put("a", 1, 2, due_in=AHEAD)
    if settled:
        kept.expansion = BitMap([1, 2])
    async with edge(router.address, 1, 2) as one:
        await router.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2])
        assert 0 <= one.heard_at[0] - due < 5.0  # a machine that stands still meanwhile


async def test_its_audience_is_settled_when_its_time_comes(world: NotificationMesh, router: RouterHand) -> None:
    settled_at: list[float] = []
    world.memory.before_expansion = lambda one: settled_at.append(time.monotonic())
    await world.tagsvc()
    due = time.monotonic() + AHEAD
    kept = world.memory.put("a", due_in=AHEAD, audience=common.Audience(expression="vip"))
    async with edge(router.address, 7) as one:
        await router.start()
        await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 1)
        assert world.tags.expanded == []
        await world.tags.add("vip", 7)
        await one.until(lambda: one.notified(kept.notification_id) == [7])
    assert settled_at[0] >= due


@pytest.mark.parametrize("hinted", [False, True])
async def test_what_is_cancelled_while_it_waits_is_sent_to_nobody(
    world: NotificationMesh, router: RouterHand, hinted: bool
) -> None:
    kept = world.memory.put("a", 1, due_in=AHEAD)
    async with edge(router.address, 1) as one:
        await router.start()
        await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 1)
        await world.control(kept, cancel=store.CancelAction())
        if hinted:
            await router.refresh(kept)
        await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 0)
        await one.settled()
        assert one.broadcasts == [] and not kept.sent


async def test_the_first_step_is_stored_with_the_audience_before_it_is_sent(world: NotificationMesh, router: RouterHand) -> None:
    kept = world.memory.put("a", 1, 2, 3)
    world.memory.answering.clear()
    async with edge(router.address, 1, 2) as one:
        await router.start()
        await world.memory.until(lambda: bool(kept.sent))
        await one.settled()
        assert one.broadcasts == []
        world.memory.answering.set()
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2])
        await one.batch(opened_user_ordinals=[3])
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2, 3])
    assert _steps(world, kept) == [{1, 2}, {3}], "nobody's sending is written twice"


async def test_a_first_step_being_stored_when_its_router_leaves_is_sent(world: NotificationMesh) -> None:
    kept = world.memory.put("a", 1, 2)
    world.memory.answering.clear()
    async with AsyncExitStack() as first:
        leaving = await world.router(first)
        async with edge(leaving.address, 1) as one:
            await leaving.start()
            await world.memory.until(lambda: bool(kept.sent))
            closing = asyncio.create_task(first.aclose())
            await _takes_no_more(leaving)
            world.memory.answering.set()
            await one.until(lambda: one.notified(kept.notification_id) == [1])
            await closing


async def test_a_first_step_whose_answer_was_lost_is_sent_once_and_not_written_again(world: NotificationMesh) -> None:
    router = await world.router(resend_seconds=60)
    kept = world.memory.put("a", 1, 2, 3)
    world.memory.lose_expansions = 2
    async with edge(router.address, 1, 2) as one:
        await router.start()
        await world.memory.until(lambda: bool(kept.sent))
        await one.batch(opened_user_ordinals=[3])
        await one.until(lambda: set(one.notified(kept.notification_id)) == {1, 2, 3})
        await one.settled()
        assert sorted(one.notified(kept.notification_id)) == [1, 2, 3]
    assert _steps(world, kept) == [{1, 2}, {3}]


async def test_one_of_a_lower_priority_goes_after_a_higher_one_of_the_same_time(
    world: NotificationMesh, router: RouterHand
) -> None:
    low, high = (world.memory.put(name, 1, due_in=AHEAD, priority=priority) for name, priority in (("a", 1), ("b", 9)))
    low.spec.send_time.CopyFrom(high.spec.send_time)
    async with edge(router.address, 1) as one:
        await router.start()
        await one.until(lambda: len(one.broadcasts) == 2)
        assert [sent.notification_id for sent in one.broadcasts] == [high.notification_id, low.notification_id]


async def _takes_no_more(router: RouterHand) -> None:
    """Wait until it has begun to leave."""
    async with asyncio.timeout(10):
        while not await router.start(store.Claim(notification_id="n-unknown", fence=1)):  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)


def _steps(world: NotificationMesh, kept: Kept) -> list[set[int]]:
    return [set(step) for name, step in world.memory.steps if name == kept.notification_id]

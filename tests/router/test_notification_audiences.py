"""From audiences to recipients over the wire: tagsvc, the replica while it is away, and what can't be expanded."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from pyroaring import BitMap

from mesh import errors
from tests.eventually import eventually
from tests.router.conftest import Mesh
from tests.router.fake_edge import edge
from tests.router.notification_mesh import NotificationMesh, gauge, notification_mesh
from tests.router.notification_twin import Kept, notification
from tidings.common.v1 import notification_pb2 as common

SENDING, FAILED = common.NOTIFICATION_STATE_SENDING, common.NOTIFICATION_STATE_FAILED


@pytest.fixture
async def world(mesh: Mesh) -> AsyncIterator[NotificationMesh]:
    async with notification_mesh(mesh) as made:
        yield made


def audience(expression: str = "", excluded: str = "") -> common.Audience:
    return common.Audience(expression=expression, excluded_expression=excluded)


async def test_expressions_named_users_and_exclusions_are_put_together(world: NotificationMesh) -> None:
    await world.tagsvc()
    router = await world.router()
    await world.tags.add("vip", *range(1, 11))
    await world.tags.add("bounced", 2, 3, 30)
    kept = world.memory.put("a", 30, 40, excluded=(5,), audience=audience("vip", "bounced"))
    only_excluded = world.memory.put("b", 1, 2, 3, audience=audience(excluded="bounced"))
    nobody = world.memory.put("c", audience=audience("vip & !vip"))
    await router.start()
    await world.memory.until(lambda: kept.state == only_excluded.state == SENDING and nobody.over)
    assert kept.expansion == BitMap([1, 4, 6, 7, 8, 9, 10, 40])
    assert only_excluded.expansion == BitMap([1])
    assert kept.snapshot_version == only_excluded.snapshot_version == 2
    assert nobody.state == common.NOTIFICATION_STATE_COMPLETED
    await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 2)


async def test_what_an_expression_lacks_is_its_reason_to_fail(world: NotificationMesh) -> None:
    await world.tagsvc()
    router = await world.router()
    unknown = world.memory.put("a", 1, audience=audience("nosuchtag"))
    broken = world.memory.put("b", 1, audience=audience("a +"))
    async with edge(router.address, 1) as one:
        await router.start()
        await world.memory.until(lambda: unknown.state == FAILED and broken.state == FAILED)
        await one.settled()
        assert not one.broadcasts
    assert unknown.reason.startswith("UNKNOWN_TAG: ") and "nosuchtag" in unknown.reason
    assert broken.reason.startswith("INVALID_EXPRESSION: ")
    await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 0)


async def test_the_replica_answers_while_tagsvc_is_away(world: NotificationMesh) -> None:
    other = world.memory.put("other", 1, 2, 3)
    other.sent = BitMap([1])
    other.state = common.NOTIFICATION_STATE_CANCELLED
    other.expansion = BitMap([1, 2, 3])
    eve = world.mesh.memory.user("eve").user_ordinal
    async with AsyncExitStack() as first:
        await world.tagsvc(first)
        router = await world.router()
        await world.tags.add("vip", *range(10, 21))
        await eventually(lambda: gauge(world.mesh, "router_tag_version") == 1)
        await world.tags.add("vip", 21)
        await world.tags.add("bounced", 12)
        await eventually(lambda: gauge(world.mesh, "router_tag_version") == 3)
    kept = world.memory.put("a", audience=audience(f"vip + user:eve + sent({notification('other')})", "bounced"))
    await router.start()
    await world.memory.until(lambda: kept.state == SENDING)
    assert kept.expansion == (BitMap(range(10, 22)) | BitMap([eve, 1])) - BitMap([12])
    assert kept.snapshot_version == 3
    async with AsyncExitStack() as second:
        await world.tags.add("vip", 22)
        await world.tagsvc(second)
        await eventually(lambda: gauge(world.mesh, "router_tag_version") == 4)


async def test_the_replica_answers_when_tagsvc_keeps_silent(world: NotificationMesh) -> None:
    await world.tagsvc()
    router = await world.router(expand_seconds=0.2)
    await world.tags.add("vip", 1)
    await eventually(lambda: gauge(world.mesh, "router_tag_version") == 1)
    world.tags.speaking.clear()
    kept = world.memory.put("a", audience=audience("vip"))
    await router.start()
    await world.memory.until(lambda: kept.state == SENDING)
    assert world.tags.expanded == ["vip"]
    world.tags.speaking.set()


async def test_without_tagsvc_and_replica_it_waits_and_others_go_on(world: NotificationMesh) -> None:
    router = await world.router(lease_seconds=1, resend_seconds=60)
    waiting = [world.memory.put(f"w{letter}", audience=audience("vip"), priority=9) for letter in "abcdefghijkl"]
    other = world.memory.put("other", 1)
    async with edge(router.address, 1) as one:
        await router.start()
        await one.until(lambda: one.notified(other.notification_id) == [1])
        until = waiting[0].lease_until
        await world.memory.until(lambda: waiting[0].lease_until != until)  # it is renewed meanwhile
        assert {kept.state for kept in waiting} == {common.NOTIFICATION_STATE_EXPANDING}
        await world.tags.add("vip", 1)
        await world.tagsvc()
        await one.until(lambda: len(one.broadcasts) == 13)


async def test_a_replica_that_lacks_a_tag_decides_nothing(world: NotificationMesh) -> None:
    router = await world.router(lease_seconds=1)
    async with AsyncExitStack() as first:
        await world.tags.add("old", 1)
        await world.tagsvc(first)
        await eventually(lambda: gauge(world.mesh, "router_tag_version") == 1)
    await world.tags.add("new", 2)
    kept = world.memory.put("a", audience=audience("new"))
    await router.start()
    await world.memory.until(lambda: world.memory.progress != [])  # its lease is renewed
    assert kept.state == common.NOTIFICATION_STATE_EXPANDING
    await world.tagsvc()
    await world.memory.until(lambda: kept.state == SENDING)
    assert kept.expansion == BitMap([2])


async def test_what_is_not_expanded_in_time_expires(world: NotificationMesh) -> None:
    router = await world.router(replicate_tags=False)
    kept = world.memory.put("a", audience=audience("vip"), seconds=0.5)
    await router.start()
    await world.memory.until(lambda: kept.state == common.NOTIFICATION_STATE_EXPIRED)
    await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 0)


async def test_an_expansion_that_is_stored_already_is_the_one_that_counts(world: NotificationMesh) -> None:
    await world.tagsvc()
    router = await world.router()
    kept = world.memory.put("a", 1, 2)

    def another_attempt(one: Kept) -> None:
        one.expansion, one.state = BitMap([2, 3, 4]), SENDING

    world.memory.before_expansion = another_attempt
    async with edge(router.address, 1, 2, 3) as one:
        await router.start()
        await one.until(lambda: one.notified(kept.notification_id) == [2, 3])
        await one.settled()
        assert 1 not in one.notified(kept.notification_id)


async def test_a_notification_stopped_before_it_is_expanded_is_not_sent(world: NotificationMesh) -> None:
    router = await world.router(replicate_tags=False)
    kept, other = world.memory.put("a", 1), world.memory.put("b", 1)
    claims = world.memory.claim()
    kept.fence += 1
    kept.state = common.NOTIFICATION_STATE_PAUSED
    async with edge(router.address, 1) as one:
        await router.start(*claims)
        await one.until(lambda: one.notified(other.notification_id) == [1])
        await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 1)
        assert one.notified(kept.notification_id) == []


async def test_a_store_that_is_away_at_the_start_delays_it(world: NotificationMesh) -> None:
    router = await world.router()
    kept = world.memory.put("a", 1)
    claims = world.memory.claim()
    world.memory.refuse = errors.unavailable("away")
    async with edge(router.address, 1) as one:
        await router.start(*claims)
        await eventually(lambda: world.memory.refused >= 2)
        world.memory.refuse = None
        await one.until(lambda: one.notified(kept.notification_id) == [1])

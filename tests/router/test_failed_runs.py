"""Notifications that a router can't run for a reason nobody foresaw: told to the store, put aside there, and run once mended."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyroaring import BitMap

from mesh import errors
from store.serve import serve as serve_store
from store.settings import StoreSettings
from tests.eventually import eventually
from tests.router.conftest import Mesh
from tests.router.fake_edge import edge
from tests.router.notification_mesh import QUICK, NotificationMesh, gauge, notification_mesh
from tests.router.notification_twin import Kept
from tests.router.test_notifications_with_store import COMPLETED, Business
from tests.store.behind import execute, query
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import dead_letter_pb2 as pb
from tidings.store.v1.dead_letter_pb2_grpc import DeadLetterServiceStub

PAUSED = common.NOTIFICATION_STATE_PAUSED


@pytest.fixture
async def world(mesh: Mesh) -> AsyncIterator[NotificationMesh]:
    async with notification_mesh(mesh) as world:
        yield world


async def _failed(world: NotificationMesh, broken: Kept) -> tuple[str, str]:
    """Why a run of it failed, once its router has said so."""
    await world.memory.until(lambda: bool(world.memory.failed_runs))
    [run] = world.memory.failed_runs
    assert (run.claim.notification_id, run.claim.fence) == (broken.notification_id, broken.fence)
    return run.reason, run.detail


async def test_one_that_can_not_be_prepared_is_given_up_after_a_while(world: NotificationMesh) -> None:
    router = await world.router()
    kept, broken = world.memory.put("kept", 1), world.memory.put("broken", 1, priority=9)
    tries = 0

    def fault(one: Kept) -> None:
        nonlocal tries
        if one is broken:
            tries += 1
            raise errors.internal("it broke")

    world.memory.before_expansion = fault
    async with edge(router.address, 1) as one:
        await router.start()
        await one.until(lambda: bool(one.notified(kept.notification_id)))
        assert await _failed(world, broken) == ("INTERNAL", "it broke")
        assert tries == 5 and not one.notified(broken.notification_id)
        await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 1)
        world.memory.before_expansion = lambda _: None
        await router.start()
        await one.until(lambda: bool(one.notified(broken.notification_id)))


async def test_a_store_that_is_away_is_no_failure_of_the_notification(world: NotificationMesh) -> None:
    router = await world.router()
    kept, away = world.memory.put("kept", 1), True

    def fault(_: Kept) -> None:
        if away:
            raise errors.unavailable("away")

    world.memory.before_expansion = fault
    async with edge(router.address, 1) as one:
        await router.start()
        await asyncio.sleep(0.5)  # of attempts
        away = False
        await one.until(lambda: bool(one.notified(kept.notification_id)))
    assert not world.memory.failed_runs


async def test_one_whose_progress_is_refused_is_given_up(world: NotificationMesh) -> None:
    router = await world.router()
    broken = world.memory.put("broken", 1)
    world.memory.poison = broken.notification_id
    async with edge(router.address, 1):
        await router.start()
        assert (await _failed(world, broken))[0] == "INVALID_FIELD"


async def test_a_record_that_makes_no_sense_harms_no_other(world: NotificationMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    router = await world.router()
    kept, broken = world.memory.put("kept", 1), world.memory.put("broken", 1)

    def stumble(notification_id: str, _: object) -> bytes:
        if notification_id == broken.notification_id:
            raise LookupError("what is this")
        return b"frame"

    monkeypatch.setattr("router.frames.notification", stumble)
    async with edge(router.address, 1) as one:
        await router.start()
        await one.until(lambda: bool(one.notified(kept.notification_id)))
        assert await _failed(world, broken) == ("INTERNAL", "an unforeseen fault: LookupError('what is this')")


async def test_put_aside_by_the_store_mended_replayed_and_sent(mesh: Mesh, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tidings.sqlite'}"
    options: dict[str, Any] = {"port": 0, "database": url, "notification_failures": 2}
    async with (
        serve_store(StoreSettings(**options), mesh.registry, mesh.telemetry) as store,
        grpc.aio.insecure_channel(store.grpc_address) as channel,
    ):
        business, letters = Business(mesh, channel), DeadLetterServiceStub(channel)
        router = await mesh.router(**QUICK)
        async with edge(router.grpc_address, 1, 2) as one:
            broken, kept = await business.upload("broken", BitMap([1]), priority=9), await business.upload("kept", BitMap([2]))
            spoil = "UPDATE notification_uploads SET audience = :audience WHERE notification_id = :name"
            execute(url, spoil, audience=b"\xff", name=broken)
            async with asyncio.timeout(20):
                while not query(url, "SELECT 1 FROM notifications WHERE state = 4"):
                    await business.hand_over(router)
                    await asyncio.sleep(0.05)
            assert set(one.notified(kept)) == {2} and not one.notified(broken)
            [letter] = (await letters.ListDeadLetters(pb.ListDeadLettersRequest())).dead_letters
            assert (letter.subject, letter.attempts) == (broken, 2)
            assert 'store_dead_letters_total{kind="notification"} 1.0' in mesh.telemetry.exposition().decode()
            execute(url, spoil, audience=b"", name=broken)
            assert (await business.report(broken)).state == PAUSED
            await letters.ReplayDeadLetter(pb.ReplayDeadLetterRequest(dead_letter_id=letter.dead_letter_id))
            assert await business.hand_over(router) == [broken]
            await one.until(lambda: bool(one.notified(broken)))
            await one.acknowledge(broken, 1)
            await business.until(broken, COMPLETED)
            await eventually(lambda: 'store_dead_letters{kind="notification"} 0.0' in mesh.telemetry.exposition().decode())

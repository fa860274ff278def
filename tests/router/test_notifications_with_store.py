"""Notifications over the real store on SQLite and the real tagsvc: lives from upload to the last number."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyroaring import BitMap

from mesh import patience, rpc
from store.serve import serve as serve_store
from store.settings import StoreSettings
from tagsvc.serve import serve as serve_tagsvc
from tagsvc.settings import TagsvcSettings
from tests.eventually import eventually
from tests.router.conftest import Mesh
from tests.router.fake_edge import edge
from tests.router.notification_mesh import QUICK, gauge
from tests.router.notification_twin import notification
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import notification_pb2 as router_pb
from tidings.router.v1.notification_pb2_grpc import NotificationServiceStub
from tidings.store.v1 import notification_pb2 as pb
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub
from tidings.tag.v1 import tag_pb2
from tidings.tag.v1.tag_pb2_grpc import TagServiceStub

CANCELLED, COMPLETED = common.NOTIFICATION_STATE_CANCELLED, common.NOTIFICATION_STATE_COMPLETED


class Business:
    """A business and a scheduler in one, at a real store."""

    def __init__(self, mesh: Mesh, channel: grpc.aio.Channel) -> None:
        self.mesh = mesh
        self.store: Any = NotificationStoreServiceStub(channel)

    async def upload(self, name: str, recipients: BitMap, *, seconds: float = 600.0, expression: str = "", **spec: Any) -> str:
        """A notification that is due; gives its id."""
        made = common.NotificationSpec(content=Content(text=Text(text=name)), **spec)
        made.audience.expression = expression
        made.send_time.FromMicroseconds(int(time.time() * 1e6))
        made.expire_time.FromMicroseconds(int((time.time() + seconds) * 1e6))
        request = pb.CreateNotificationRequest(
            request_id=name,
            request_digest=bytes(32),
            notification_id=notification(name),
            spec=made,
            recipient_ordinals=recipients.serialize(),
        )
        return str((await self.store.CreateNotification(request)).notification.notification_id)

    async def hand_over(self, router: Instance) -> list[str]:
        """Claim what is due and start it; gives the ids."""
        request = pb.ClaimNotificationsRequest(claimer_id="scheduler-1", limit=100)
        request.lease.FromSeconds(10)
        claimed = (await self.store.ClaimNotifications(request)).notifications
        claims = [router_pb.StartNotification(notification_id=one.notification_id, fence=one.fence) for one in claimed]
        async with grpc.aio.insecure_channel(router.grpc_address) as channel:
            stub: Any = NotificationServiceStub(channel)
            await stub.StartNotifications(router_pb.StartNotificationsRequest(notifications=claims))
        return [one.notification_id for one in claimed]

    async def control(self, notification_id: str, **action: Any) -> common.NotificationReport:
        """Change it; gives its numbers right then."""
        request = pb.ControlNotificationRequest(
            request_id=f"{notification_id}-{next(iter(action))}",
            request_digest=bytes(32),
            notification_id=notification_id,
            **action,
        )
        report: common.NotificationReport = (await self.store.ControlNotification(request)).notification.report
        return report

    async def report(self, notification_id: str) -> common.NotificationReport:
        """Its numbers, which always sum up."""
        found = await self.store.GetNotifications(pb.GetNotificationsRequest(notification_ids=[notification_id]))
        report: common.NotificationReport = found.notifications[0].report
        assert report.expansion == report.delivered + report.pending + report.failed + report.expired + report.cancelled
        return report

    async def until(self, notification_id: str, state: int) -> common.NotificationReport:
        """Its numbers once it is in a state."""
        for _ in range(500):
            report = await self.report(notification_id)
            if report.state == state:
                return report
        raise AssertionError(f"{notification_id} is {report.state}, not {state}")

    async def runs(self, number: int) -> None:
        """Wait until so many are under way."""
        await eventually(lambda: gauge(self.mesh, "router_notification_runs") == number)


async def _give_vip(service: Any) -> int:
    change = tag_pb2.TagChange(tag="vip", add_user_ids=["ann", "ben"])
    with rpc.named_errors():
        answers = service.ApplyMapping(iter([tag_pb2.ApplyMappingRequest(tags=[change], create_tags=True)]))
        versions: list[int] = [answer.version async for answer in answers]
    return versions[-1]


@pytest.fixture
async def business(tmp_path: Path, mesh: Mesh) -> AsyncIterator[Business]:
    options: dict[str, Any] = {"port": 0, "database": f"sqlite:///{tmp_path / 'tidings.sqlite'}"}
    async with (
        serve_store(StoreSettings(**options), mesh.registry, mesh.telemetry) as store,
        grpc.aio.insecure_channel(store.grpc_address) as channel,
    ):
        yield Business(mesh, channel)


async def test_a_notification_lives_to_its_end(business: Business) -> None:
    router = await business.mesh.router(**QUICK)
    everyone = BitMap(range(1, 1_000_001))
    async with edge(router.grpc_address, *range(1, 1_000_001, 1000)) as one:
        name = await business.upload("a", everyone)
        assert await business.hand_over(router) == [name]
        await one.until(lambda: len(one.notified(name)) >= 1000)
        assert len(set(one.notified(name))) == 1000
        await one.acknowledge(name, *range(1, 1_000_001, 1000))
        await one.batch(opened_user_ordinals=[2, 3])
        await one.until(lambda: {2, 3} <= set(one.notified(name)))
        await one.acknowledge(name, 2)
        await eventually(lambda: gauge(business.mesh, "router_notification_acknowledgements_total") == 1001)
        report = await business.report(name)
        assert (report.expansion, report.sent, report.delivered, report.pending) == (1_000_000, 1002, 1001, 998_999)


async def test_everybody_has_it_and_it_is_over(business: Business) -> None:
    router = await business.mesh.router(**QUICK)
    async with edge(router.grpc_address, 1, 2) as one:
        name = await business.upload("a", BitMap([1, 2]))
        await business.hand_over(router)
        await one.until(lambda: set(one.notified(name)) == {1, 2})
        await one.acknowledge(name, 1, 2)
        report = await business.until(name, COMPLETED)
        assert (report.delivered, report.pending) == (2, 0)
        await business.runs(0)


async def test_cancelling_in_the_middle_tells_how_many_had_gone(business: Business) -> None:
    router = await business.mesh.router(**QUICK)
    async with edge(router.grpc_address, *range(1, 2001)) as one:
        name = await business.upload("a", BitMap(range(1, 2001)), rate_per_second=1000)
        await business.hand_over(router)
        await one.until(lambda: len(one.broadcasts) >= 4)
        cancelled = await business.control(name, cancel=pb.CancelAction())
        await business.runs(0)
        await one.settled()
        assert cancelled.state == CANCELLED and 0 < cancelled.sent < 2000
        assert len(set(one.notified(name))) <= cancelled.sent
        await one.acknowledge(name, 1)
        await eventually(lambda: gauge(business.mesh, "router_notification_acknowledgements_total") == 1)
        report = await business.report(name)
        assert (report.sent, report.delivered, report.cancelled) == (cancelled.sent, 1, 1999)


async def test_paused_resumed_and_taken_over_by_another_router(business: Business) -> None:
    first = await business.mesh.router(**QUICK)
    async with edge(first.grpc_address, 1, 2) as one:
        name = await business.upload("a", BitMap([1, 2, 3]))
        await business.hand_over(first)
        await one.until(lambda: {1, 2} <= set(one.notified(name)))
        await one.acknowledge(name, 1)
        await eventually(lambda: gauge(business.mesh, "router_notification_acknowledgements_total") == 1)
        await business.control(name, pause=pb.PauseAction())
        await one.batch(opened_user_ordinals=[3])
        await business.runs(0)
        assert 3 not in one.notified(name)
    await business.control(name, resume=pb.ResumeAction())
    second = await business.mesh.router(**QUICK)
    assert await business.hand_over(second) == [name]
    async with edge(second.grpc_address, 1, 2, 3) as two:
        await two.until(lambda: set(two.notified(name)) == {2, 3})
        await two.acknowledge(name, 2, 3)
        assert (await business.until(name, COMPLETED)).delivered == 3


async def test_expiry_ends_it_at_its_time(business: Business) -> None:
    router = await business.mesh.router(**QUICK)
    async with edge(router.grpc_address, 1) as one:
        sent = await business.upload("sent", BitMap([1, 2]), seconds=1.0)
        unsent = await business.upload("unsent", BitMap([3]), seconds=1.0)
        await business.hand_over(router)
        await one.until(lambda: 1 in one.notified(sent))
        await business.runs(0)
        assert (await business.until(sent, COMPLETED)).expired == 2
        assert (await business.until(unsent, common.NOTIFICATION_STATE_EXPIRED)).expired == 1


async def test_a_tag_is_expanded_by_tagsvc_and_by_the_replica_when_that_is_gone(business: Business) -> None:
    mesh = business.mesh
    async with AsyncExitStack() as tags:
        options: dict[str, Any] = {"port": 0, "mesh_port": 0}
        tagsvc = await tags.enter_async_context(serve_tagsvc(TagsvcSettings(**options), mesh.registry, mesh.telemetry))
        router = await mesh.router(**QUICK)
        channel = await tags.enter_async_context(grpc.aio.insecure_channel(tagsvc.grpc_address))
        service: Any = TagServiceStub(channel)
        version = await patience.until_done(lambda: _give_vip(service), 10.0)  # it may still be loading
        live = await business.upload("live", BitMap(), expression="vip")
        unknown = await business.upload("unknown", BitMap(), expression="nosuchtag")
        await business.hand_over(router)
        report = await business.until(live, common.NOTIFICATION_STATE_SENDING)
        assert (report.expansion, report.snapshot_version) == (2, version)
        failed = await business.until(unknown, common.NOTIFICATION_STATE_FAILED)
        assert failed.reason.startswith("UNKNOWN_TAG: ") and "nosuchtag" in failed.reason
        await eventually(lambda: gauge(mesh, "router_tag_version") == version)
    alone = await business.upload("alone", BitMap(), expression="vip & !user:ben")
    await business.hand_over(router)
    report = await business.until(alone, common.NOTIFICATION_STATE_SENDING)
    assert (report.expansion, report.snapshot_version) == (1, version)

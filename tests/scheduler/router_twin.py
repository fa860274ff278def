"""A router's side of the hand-over: it takes down what it is told, and can be made to refuse, fail or hang."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mesh import errors, rpc
from mesh.naming import new_instance_id
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import notification_pb2 as pb
from tidings.router.v1.notification_pb2_grpc import NotificationServiceServicer, add_NotificationServiceServicer_to_server


class Router(NotificationServiceServicer):
    """One router.

    Attributes:
        router_id: its instance id.
        started: notifications taken, in order, as (id, fence).
        calls: what each StartNotifications named, refused or not.
        refreshed: ids it was told to look at.
        refuse: refuse what comes.
        fail: fail what comes.
        mute: take what comes, and never answer.
        room: take so many; refuse the rest.
        answering: cleared to hold its answers.
    """

    def __init__(self) -> None:
        self.router_id = new_instance_id("router")
        self.started: list[tuple[str, int]] = []
        self.calls: list[list[str]] = []
        self.refreshed: list[str] = []
        self.refuse = False
        self.fail = False
        self.mute = False
        self.room = sys.maxsize
        self.answering = asyncio.Event()
        self.answering.set()
        self._told = asyncio.Condition()

    @property
    def ids(self) -> list[str]:
        """Notifications taken, in the order in which each was first."""
        return list(dict.fromkeys(notification_id for notification_id, _ in self.started))

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something it was told makes this true."""
        async with self._told, asyncio.timeout(10):
            await self._told.wait_for(holds)

    async def takes(self, count: int) -> None:
        """Wait until it has taken so many."""
        await self.until(lambda: len(self.ids) >= count)

    async def StartNotifications(self, request: pb.StartNotificationsRequest, context: Any) -> pb.StartNotificationsResponse:
        """Take notifications."""
        ids = [one.notification_id for one in request.notifications]
        self.calls.append(ids)
        await self._tell()
        await self.answering.wait()
        if self.fail:
            raise errors.unavailable("this router fails")
        if self.refuse:
            return pb.StartNotificationsResponse(refused_notification_ids=ids)
        room = max(0, self.room - len(self.started))
        self.started.extend((one.notification_id, one.fence) for one in request.notifications[:room])
        await self._tell()
        if self.mute:
            await asyncio.Event().wait()
        return pb.StartNotificationsResponse(refused_notification_ids=ids[room:])

    async def RefreshNotifications(self, request: pb.RefreshNotificationsRequest, context: Any) -> pb.RefreshNotificationsResponse:
        """Look at notifications."""
        self.refreshed.extend(request.notification_ids)
        await self._tell()
        await self.answering.wait()
        return pb.RefreshNotificationsResponse()

    async def _tell(self) -> None:
        async with self._told:
            self._told.notify_all()


@asynccontextmanager
async def serve(router: Router, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Router]:
    """Run one."""
    add: dict[str, rpc.AddServicer] = {
        "tidings.router.v1.NotificationService": lambda server: add_NotificationServiceServicer_to_server(router, server)
    }
    async with rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=0.1) as port:
        instance = Instance(service="router", instance_id=router.router_id, grpc_address=f"127.0.0.1:{port}")
        async with registry.register(instance):
            yield router

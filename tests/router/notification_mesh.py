"""A mesh with notifications: store and tagsvc twins, routers with quick resends, and a scheduler's hands."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from tests.router import audience_twin
from tests.router.audience_twin import Tags
from tests.router.conftest import Mesh
from tests.router.notification_twin import Kept, NotificationMemory
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import notification_pb2 as pb
from tidings.router.v1.notification_pb2_grpc import NotificationServiceStub
from tidings.store.v1 import notification_pb2 as store
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub

QUICK: dict[str, Any] = {
    "resend_seconds": 0.4,
    "resend_longest_seconds": 1.6,
    "acknowledge_seconds": 0.02,
    "expand_seconds": 0.3,
}


class NotificationMesh:
    """See above.

    Attributes:
        memory: what the stores hold of notifications.
        tags: what the tagsvc holds.
    """

    def __init__(self, mesh: Mesh, stack: AsyncExitStack) -> None:
        self.mesh = mesh
        self.stack = stack
        self.memory = NotificationMemory()
        self.tags = Tags()
        mesh.memory.more = self.memory.service()

    async def tagsvc(self, stack: AsyncExitStack | None = None) -> Instance:
        """A tagsvc, until that stack is closed."""
        server = audience_twin.serve(self.tags, self.mesh.registry, self.mesh.telemetry)
        return await (stack or self.stack).enter_async_context(server)

    async def router(self, stack: AsyncExitStack | None = None, **settings: object) -> "RouterHand":
        """A router, until that stack is closed, and who calls it, for longer."""
        instance = await self.mesh.router(stack, **(QUICK | settings))
        channel = await self.stack.enter_async_context(grpc.aio.insecure_channel(instance.grpc_address))
        return RouterHand(self.memory, instance, NotificationServiceStub(channel))

    async def control(self, kept: Kept, **action: Any) -> store.StoredNotification:
        """What a business asks of the store; gives the answer."""
        (instance,) = (await anext(self.mesh.registry.watch("store"))).values()
        async with grpc.aio.insecure_channel(instance.grpc_address) as channel:
            stub: Any = NotificationStoreServiceStub(channel)
            request = store.ControlNotificationRequest(notification_id=kept.notification_id, **action)
            answer: store.ControlNotificationResponse = await stub.ControlNotification(request)
            return answer.notification


class RouterHand:
    """A router, as a scheduler calls it."""

    def __init__(self, memory: NotificationMemory, instance: Instance, stub: Any) -> None:
        self.memory = memory
        self.instance = instance
        self.address = instance.grpc_address
        self.stub = stub

    async def start(self, *claims: store.Claim) -> list[str]:
        """Hand over claims, or else all that is due; gives what is refused."""
        parts = [
            pb.StartNotification(notification_id=one.notification_id, fence=one.fence) for one in claims or self.memory.claim()
        ]
        response = await self.stub.StartNotifications(pb.StartNotificationsRequest(notifications=parts))
        return list(response.refused_notification_ids)

    async def refresh(self, *kept: Kept) -> None:
        """Hint at a change."""
        await self.stub.RefreshNotifications(pb.RefreshNotificationsRequest(notification_ids=[one.notification_id for one in kept]))


@asynccontextmanager
async def notification_mesh(mesh: Mesh) -> AsyncIterator[NotificationMesh]:
    """One with a store."""
    async with AsyncExitStack() as stack:
        world = NotificationMesh(mesh, stack)
        await mesh.store()
        yield world


def gauge(mesh: Mesh, name: str) -> float:
    """A metric's value now, over all labels."""
    lines = mesh.telemetry.exposition().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

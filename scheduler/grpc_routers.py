"""`Routers` over gRPC: those that the registry knows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from mesh import errors
from mesh.node import Node
from mesh.nodes import NodePool
from tidings.router.v1 import notification_pb2 as router
from tidings.router.v1.notification_pb2_grpc import NotificationServiceStub
from tidings.store.v1.notification_pb2 import Claim

_REFRESH_SECONDS = 1.0  # a hint that comes later is of no use: the router has looked in the store by itself


class GrpcRouter:
    """See `Router`.

    Args:
        within: seconds it may take to accept notifications.
    """

    def __init__(self, node: Node, within: float) -> None:
        self._node = node
        self._within = within

    @property
    def router_id(self) -> str:
        """See `Router`."""
        return self._node.instance_id

    async def start(self, claims: Sequence[Claim]) -> set[str]:
        """See `Router`."""
        parts = [router.StartNotification(notification_id=one.notification_id, fence=one.fence) for one in claims]
        request = router.StartNotificationsRequest(notifications=parts)
        with _judged(self._node, self._within):
            response = await self._node.stub(NotificationServiceStub).StartNotifications(request, timeout=self._within)
        return set(response.refused_notification_ids)

    async def left(self) -> None:
        """See `Router`."""
        await self._node.leaving.wait()

    async def refresh(self, notification_ids: Sequence[str]) -> None:
        """See `Router`."""
        request = router.RefreshNotificationsRequest(notification_ids=notification_ids)
        with _judged(self._node, _REFRESH_SECONDS):
            await self._node.stub(NotificationServiceStub).RefreshNotifications(request, timeout=_REFRESH_SECONDS)


@contextmanager
def _judged(node: Node, within: float) -> Iterator[None]:
    """See `Node.judged`; also of a router that left since it was chosen: its channel takes no new call."""
    try:
        with node.judged(within):
            yield
    except grpc.aio.UsageError as error:
        raise errors.unavailable("this router left") from error


class GrpcRouters:
    """See `Routers`."""

    def __init__(self, pool: NodePool, within: float) -> None:
        self._pool = pool
        self._within = within

    def owner(self, notification_id: str) -> GrpcRouter:
        """See `Routers`."""
        return GrpcRouter(self._pool.owner(notification_id), self._within)

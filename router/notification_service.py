"""NotificationService over gRPC: how schedulers hand over."""

from typing import Any

from mesh import errors
from router.notifications import Notifications
from tidings.router.v1 import notification_pb2 as pb
from tidings.router.v1.notification_pb2_grpc import NotificationServiceServicer

_MAX = 1000
Context = Any  # grpc.aio.ServicerContext


class NotificationServicer(NotificationServiceServicer):
    """See the contract."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    async def StartNotifications(self, request: pb.StartNotificationsRequest, context: Context) -> pb.StartNotificationsResponse:
        """Takes claims."""
        if len(request.notifications) > _MAX:
            raise errors.invalid_field("notifications", f"at most {_MAX:,}")
        return pb.StartNotificationsResponse(refused_notification_ids=self._notifications.start(request.notifications))

    async def RefreshNotifications(
        self, request: pb.RefreshNotificationsRequest, context: Context
    ) -> pb.RefreshNotificationsResponse:
        """Looks in the store."""
        if len(request.notification_ids) > _MAX:
            raise errors.invalid_field("notification_ids", f"at most {_MAX:,}")
        self._notifications.refresh(request.notification_ids)
        return pb.RefreshNotificationsResponse()

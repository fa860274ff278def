"""tidings.scheduler.v1.NotificationService: contract in, one call, contract out."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from scheduler import checks
from scheduler.audiences import Audiences
from scheduler.codec import notification
from scheduler.controls import Controls
from scheduler.listing import Listing
from scheduler.recipients import Recipients
from scheduler.requests import request_key
from scheduler.uploads import Uploads
from scheduler.watches import Watches
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings.scheduler.v1.scheduler_pb2_grpc import NotificationServiceServicer

_RECIPIENTS = 1_000
_MOST_RECIPIENTS = 10_000
Context = grpc.aio.ServicerContext[Any, Any]


class NotificationServicer(NotificationServiceServicer):
    """Serves businesses."""

    def __init__(
        self,
        uploads: Uploads,
        controls: Controls,
        listing: Listing,
        watches: Watches,
        audiences: Audiences,
        recipients: Recipients,
    ) -> None:
        self._uploads = uploads
        self._controls = controls
        self._listing = listing
        self._watches = watches
        self._audiences = audiences
        self._recipients = recipients

    async def UploadNotification(self, request: pb.UploadNotificationRequest, context: Context) -> pb.UploadNotificationResponse:
        """Takes a notification in."""
        stored = await self._uploads.upload(request_key(request.request_id, request), request.spec)
        return pb.UploadNotificationResponse(notification=notification(stored), estimated_audience=stored.estimated_audience)

    async def CancelNotification(self, request: pb.CancelNotificationRequest, context: Context) -> pb.CancelNotificationResponse:
        """Ends one, or a series."""
        key = request_key(request.request_id, request)
        stored = await self._controls.cancel(key, request.notification_id, whole_series=request.whole_series)
        return pb.CancelNotificationResponse(notification=notification(stored), sent=stored.report.sent)

    async def PrioritizeNotification(
        self, request: pb.PrioritizeNotificationRequest, context: Context
    ) -> pb.PrioritizeNotificationResponse:
        """Sets a priority."""
        key = request_key(request.request_id, request)
        stored = await self._controls.prioritize(key, request.notification_id, request.priority)
        return pb.PrioritizeNotificationResponse(notification=notification(stored))

    async def RescheduleNotification(
        self, request: pb.RescheduleNotificationRequest, context: Context
    ) -> pb.RescheduleNotificationResponse:
        """Moves one."""
        key = request_key(request.request_id, request)
        send_time = _given(request, "send_time")
        expire_time = _given(request, "expire_time")
        stored = await self._controls.reschedule(key, request.notification_id, send_time, expire_time)
        return pb.RescheduleNotificationResponse(notification=notification(stored))

    async def PauseNotification(self, request: pb.PauseNotificationRequest, context: Context) -> pb.PauseNotificationResponse:
        """Holds one back."""
        stored = await self._controls.pause(request_key(request.request_id, request), request.notification_id)
        return pb.PauseNotificationResponse(notification=notification(stored))

    async def ResumeNotification(self, request: pb.ResumeNotificationRequest, context: Context) -> pb.ResumeNotificationResponse:
        """Lets one go on."""
        stored = await self._controls.resume(request_key(request.request_id, request), request.notification_id)
        return pb.ResumeNotificationResponse(notification=notification(stored))

    async def GetNotification(self, request: pb.GetNotificationRequest, context: Context) -> pb.GetNotificationResponse:
        """One of them."""
        stored = await self._listing.get(checks.notification_id(request.notification_id))
        return pb.GetNotificationResponse(notification=notification(stored))

    async def ListNotifications(self, request: pb.ListNotificationsRequest, context: Context) -> pb.ListNotificationsResponse:
        """A page of them."""
        page = await self._listing.page(request)
        return pb.ListNotificationsResponse(
            notifications=map(notification, page.notifications), next_page_token=page.next_page_token
        )

    async def WatchNotification(
        self, request: pb.WatchNotificationRequest, context: Context
    ) -> AsyncIterator[pb.WatchNotificationResponse]:
        """Its report as it changes."""
        async with aclosing(self._watches.follow(checks.notification_id(request.notification_id))) as reports:
            async for report in reports:
                yield pb.WatchNotificationResponse(report=report)

    async def EstimateAudience(self, request: pb.EstimateAudienceRequest, context: Context) -> pb.EstimateAudienceResponse:
        """How many an audience has."""
        checks.audience("audience", request.audience)
        estimate = await self._audiences.estimate(request.audience, "audience")
        return pb.EstimateAudienceResponse(
            count=estimate.count, known_clients=estimate.known_clients, snapshot_version=estimate.version
        )

    async def ListRecipients(self, request: pb.ListRecipientsRequest, context: Context) -> pb.ListRecipientsResponse:
        """Who has one outcome."""
        name = checks.notification_id(request.notification_id)
        outcome = checks.outcome(request.outcome)
        size = checks.page_size(request.page_size, _RECIPIENTS, _MOST_RECIPIENTS)
        page = await self._recipients.page(name, outcome, size, checks.page_token(request.page_token))
        return pb.ListRecipientsResponse(user_ids=page.user_ids, next_page_token=page.next_token)


def _given(request: pb.RescheduleNotificationRequest, name: str) -> Timestamp | None:
    return getattr(request, name) if request.HasField(name) else None  # type: ignore[arg-type]

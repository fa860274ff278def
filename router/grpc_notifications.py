"""The ports of notifications over gRPC: the store's and tagsvc's, one line a call."""

from collections.abc import AsyncIterator

from mesh.followed_clock import FollowedClock
from mesh.nodes import NodePool
from tidings.store.v1 import notification_pb2 as notifications
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub
from tidings.tag.v1 import audience_pb2 as audience
from tidings.tag.v1.audience_pb2_grpc import AudienceServiceStub

_PROGRESS_SECONDS = 4.0  # under half a lease: a store that hangs leaves time to ask another
_SILENCE_SECONDS = 7.0  # tagsvc speaks every 2 s
_LARGE_SECONDS = 30.0  # what may carry whole expansions


class GrpcNotificationStore:
    """`NotificationStore` at whichever store answers.

    Args:
        clock: is kept at the store's time, by every answer that tells it.
    """

    def __init__(self, pool: NodePool, clock: FollowedClock) -> None:
        self._call = pool.call
        self._stream = pool.stream
        self._clock = clock

    async def get_notifications(self, request: notifications.GetNotificationsRequest) -> notifications.GetNotificationsResponse:
        """See `NotificationStore`."""
        asked = self._clock.steady()
        response = await self._call(lambda node: node.stub(NotificationStoreServiceStub).GetNotifications, request)
        self._clock.heard(asked, response.store_time)
        return response

    async def save_expansion(self, request: notifications.SaveExpansionRequest) -> notifications.SaveExpansionResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).SaveExpansion, request, _LARGE_SECONDS)

    async def save_progress(self, request: notifications.SaveProgressRequest) -> notifications.SaveProgressResponse:
        """See `NotificationStore`."""
        asked = self._clock.steady()
        response = await self._call(lambda node: node.stub(NotificationStoreServiceStub).SaveProgress, request, _PROGRESS_SECONDS)
        self._clock.heard(asked, response.store_time)
        return response

    async def record_delivered(self, request: notifications.RecordDeliveredRequest) -> notifications.RecordDeliveredResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).RecordDelivered, request)

    async def release_notifications(
        self, request: notifications.ReleaseNotificationsRequest
    ) -> notifications.ReleaseNotificationsResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).ReleaseNotifications, request)

    def read_recipients(self, request: notifications.ReadRecipientsRequest) -> AsyncIterator[notifications.ReadRecipientsResponse]:
        """See `NotificationStore`."""
        return self._stream(lambda node: node.stub(NotificationStoreServiceStub).ReadRecipients, request, _LARGE_SECONDS)


class GrpcAudienceService:
    """`AudienceService` at whichever tagsvc answers."""

    def __init__(self, pool: NodePool) -> None:
        self._stream = pool.stream

    def expand_expression(
        self, request: audience.ExpandExpressionRequest, timeout: float
    ) -> AsyncIterator[audience.ExpandExpressionResponse]:
        """See `AudienceService`."""
        return self._stream(lambda node: node.stub(AudienceServiceStub).ExpandExpression, request, timeout)

    def watch_snapshots(self, request: audience.WatchSnapshotsRequest) -> AsyncIterator[audience.WatchSnapshotsResponse]:
        """See `AudienceService`."""
        return self._stream(lambda node: node.stub(AudienceServiceStub).WatchSnapshots, request, silence=_SILENCE_SECONDS)

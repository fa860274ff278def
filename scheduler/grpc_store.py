"""`NotificationStore` and `Users` over gRPC, at whichever store answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TypeVar

from pyroaring import BitMap

from mesh import rpc
from mesh.followed_clock import FollowedClock
from mesh.nodes import NodePool
from tidings.common.v1.notification_pb2 import Outcome
from tidings.store.v1 import notification_pb2 as store
from tidings.store.v1 import user_pb2
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub
from tidings.store.v1.user_pb2_grpc import UserServiceStub

_USERS = 1_000  # a call takes so many
_STREAM_SECONDS = 30.0
T = TypeVar("T")


class GrpcNotificationStore:
    """See `NotificationStore`.

    Args:
        clock: is kept at the store's time, by every claim.
    """

    def __init__(self, pool: NodePool, clock: FollowedClock) -> None:
        self._pool = pool
        self._call = pool.call
        self._clock = clock

    async def create(self, request: store.CreateNotificationRequest) -> store.CreateNotificationResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).CreateNotification, request)

    async def find_request(self, request: store.FindRequestRequest) -> store.FindRequestResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).FindRequest, request)

    async def refuse_request(self, request: store.RefuseRequestRequest) -> store.RefuseRequestResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).RefuseRequest, request)

    async def get(self, request: store.GetNotificationsRequest) -> store.GetNotificationsResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).GetNotifications, request)

    async def list(self, request: store.ListNotificationsRequest) -> store.ListNotificationsResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).ListNotifications, request)

    async def control(self, request: store.ControlNotificationRequest) -> store.ControlNotificationResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).ControlNotification, request)

    async def claim(self, request: store.ClaimNotificationsRequest) -> store.ClaimNotificationsResponse:
        """See `NotificationStore`."""
        asked = self._clock.steady()
        response = await self._call(lambda node: node.stub(NotificationStoreServiceStub).ClaimNotifications, request)
        self._clock.heard(asked, response.store_time)
        return response

    async def release(self, request: store.ReleaseNotificationsRequest) -> store.ReleaseNotificationsResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).ReleaseNotifications, request)

    async def save_progress(self, request: store.SaveProgressRequest) -> store.SaveProgressResponse:
        """See `NotificationStore`."""
        return await self._call(lambda node: node.stub(NotificationStoreServiceStub).SaveProgress, request)

    async def recipients(self, notification_id: str, outcome: Outcome.ValueType) -> AsyncIterator[BitMap]:
        """See `NotificationStore`."""
        request = store.ReadRecipientsRequest(notification_id=notification_id, outcomes=[outcome])
        responses = self._pool.stream(
            lambda node: node.stub(NotificationStoreServiceStub).ReadRecipients, request, rpc.remaining(_STREAM_SECONDS)
        )
        async for response in responses:
            yield BitMap.deserialize(response.user_ordinals[0])


class GrpcUsers:
    """See `Users`."""

    def __init__(self, pool: NodePool) -> None:
        self._call = pool.call

    async def ensure(self, user_ids: Sequence[str]) -> BitMap:
        """See `Users`."""
        calls = [
            self._call(lambda node: node.stub(UserServiceStub).EnsureUsers, user_pb2.EnsureUsersRequest(user_ids=some))
            for some in _parts(user_ids)
        ]
        return BitMap(user.user_ordinal for response in await asyncio.gather(*calls) for user in response.users)

    async def find(self, user_ids: Sequence[str]) -> dict[str, int]:
        """See `Users`."""
        calls = [
            self._call(lambda node: node.stub(UserServiceStub).GetUsers, user_pb2.GetUsersRequest(user_ids=some))
            for some in _parts(user_ids)
        ]
        return {user.user_id: user.user_ordinal for response in await asyncio.gather(*calls) for user in response.users}

    async def ids(self, ordinals: Sequence[int]) -> Sequence[str]:
        """See `Users`."""
        calls = [
            self._call(lambda node: node.stub(UserServiceStub).ListUsers, user_pb2.ListUsersRequest(user_ordinals=some))
            for some in _parts(ordinals)
        ]
        return [user.user_id for response in await asyncio.gather(*calls) for user in response.users]


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _USERS] for start in range(0, len(items), _USERS))

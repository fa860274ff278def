"""The store's ports over gRPC: one call each, at whichever store answers."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence

from mesh import rpc
from mesh.nodes import NodePool
from tidings.common.v1.notification_pb2 import Outcome
from tidings.store.v1 import notification_pb2 as notifications
from tidings.store.v1 import tag_log_pb2 as log
from tidings.store.v1 import user_pb2 as users
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub
from tidings.store.v1.tag_log_pb2_grpc import TagLogServiceStub
from tidings.store.v1.user_pb2_grpc import UserServiceStub

_SILENCE_SECONDS = 7.0  # the store speaks every 2 s
_SAVE_SECONDS = 3600.0  # a checkpoint of gigabytes; the store gives a save up after as long


class GrpcStore:
    """`TagLog`, `UserDirectory` and `Notifications` over a pool of stores."""

    def __init__(self, pool: NodePool) -> None:
        self._pool = pool

    async def append(self, expected_version: int, records: Sequence[bytes]) -> log.AppendRecordsResponse:
        """See `TagLog`."""
        request = log.AppendRecordsRequest(expected_version=expected_version, records=records)
        return await self._pool.call(lambda node: node.stub(TagLogServiceStub).AppendRecords, request)

    def follow(self, after_version: int) -> AsyncGenerator[log.FollowRecordsResponse, None]:
        """See `TagLog`."""
        request = log.FollowRecordsRequest(after_version=after_version)
        return self._pool.stream(lambda node: node.stub(TagLogServiceStub).FollowRecords, request, silence=_SILENCE_SECONDS)

    def load_checkpoint(self) -> AsyncIterator[log.LoadCheckpointResponse]:
        """See `TagLog`."""
        return self._pool.stream(lambda node: node.stub(TagLogServiceStub).LoadCheckpoint, log.LoadCheckpointRequest())

    async def save_checkpoint(self, version: int, parts: Iterable[bytes]) -> bool:
        """See `TagLog`. Tried at one store only: there will be another checkpoint."""
        stub = self._pool.pick().stub(TagLogServiceStub)
        with rpc.named_errors():
            response = await stub.SaveCheckpoint(_save_requests(version, parts), timeout=_SAVE_SECONDS)
        return response.kept

    async def ensure_users(self, user_ids: Sequence[str]) -> Sequence[users.User]:
        """See `UserDirectory`."""
        request = users.EnsureUsersRequest(user_ids=user_ids)
        return (await self._pool.call(lambda node: node.stub(UserServiceStub).EnsureUsers, request)).users

    async def get_users(self, user_ids: Sequence[str]) -> Sequence[users.User]:
        """See `UserDirectory`."""
        request = users.GetUsersRequest(user_ids=user_ids)
        return (await self._pool.call(lambda node: node.stub(UserServiceStub).GetUsers, request)).users

    async def list_users(self, ordinals: Sequence[int]) -> Sequence[users.User]:
        """See `UserDirectory`."""
        request = users.ListUsersRequest(user_ordinals=ordinals)
        return (await self._pool.call(lambda node: node.stub(UserServiceStub).ListUsers, request)).users

    async def recipients(
        self, notification_id: str, outcomes: Sequence[Outcome.ValueType]
    ) -> AsyncGenerator[Sequence[bytes], None]:
        """See `Notifications`."""
        request = notifications.ReadRecipientsRequest(notification_id=notification_id, outcomes=outcomes)
        async for response in self._pool.stream(lambda node: node.stub(NotificationStoreServiceStub).ReadRecipients, request):
            yield response.user_ordinals

    async def references(self, names: Sequence[str]) -> Sequence[str]:
        """See `Notifications`."""
        request = notifications.ListReferencesRequest(names=names)
        found = await self._pool.call(lambda node: node.stub(NotificationStoreServiceStub).ListReferences, request)
        return found.notification_ids


def _save_requests(version: int, parts: Iterable[bytes]) -> Iterator[log.SaveCheckpointRequest]:
    """One request a part; the last says so."""
    held: bytes | None = None
    for part in parts:
        if held is not None:
            yield log.SaveCheckpointRequest(version=version, part=held)
        held = part
    yield log.SaveCheckpointRequest(version=version, part=held or b"", last=True)

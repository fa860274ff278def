"""The store's ports over gRPC: one line a call."""

from router.store_pool import StorePool
from tidings.store.v1 import conversation_pb2 as conversations
from tidings.store.v1 import message_log_pb2 as log
from tidings.store.v1 import user_pb2 as users


class GrpcStore:
    """`MessageLog`, `ConversationStore` and `UserStore` at whichever store answers."""

    def __init__(self, pool: StorePool) -> None:
        self._call = pool.call

    async def list_entries(self, request: log.ListEntriesRequest) -> log.ListEntriesResponse:
        """See `MessageLog`."""
        return await self._call(lambda node: node.log.ListEntries, request)

    async def sync_devices(self, request: log.SyncDevicesRequest) -> log.SyncDevicesResponse:
        """See `MessageLog`."""
        return await self._call(lambda node: node.log.SyncDevices, request)

    async def advance_marks(self, request: log.AdvanceMarksRequest) -> log.AdvanceMarksResponse:
        """See `MessageLog`."""
        return await self._call(lambda node: node.log.AdvanceMarks, request)

    async def list_undispatched(self, request: log.ListUndispatchedRequest) -> log.ListUndispatchedResponse:
        """See `MessageLog`."""
        return await self._call(lambda node: node.log.ListUndispatched, request)

    async def mark_dispatched(self, request: log.MarkDispatchedRequest) -> log.MarkDispatchedResponse:
        """See `MessageLog`."""
        return await self._call(lambda node: node.log.MarkDispatched, request)

    async def ensure_direct(self, request: conversations.EnsureDirectRequest) -> conversations.EnsureDirectResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.conversations.EnsureDirect, request)

    async def create_group(self, request: conversations.CreateGroupRequest) -> conversations.CreateGroupResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.conversations.CreateGroup, request)

    async def get_conversations(self, request: conversations.GetConversationsRequest) -> conversations.GetConversationsResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.conversations.GetConversations, request)

    async def list_conversations(self, request: conversations.ListConversationsRequest) -> conversations.ListConversationsResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.conversations.ListConversations, request)

    async def update_conversation(
        self, request: conversations.UpdateConversationRequest
    ) -> conversations.UpdateConversationResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.conversations.UpdateConversation, request)

    async def put_member(self, request: conversations.PutMemberRequest) -> conversations.PutMemberResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.conversations.PutMember, request)

    async def remove_member(self, request: conversations.RemoveMemberRequest) -> conversations.RemoveMemberResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.conversations.RemoveMember, request)

    async def ensure_users(self, request: users.EnsureUsersRequest) -> users.EnsureUsersResponse:
        """See `UserStore`."""
        return await self._call(lambda node: node.users.EnsureUsers, request)

    async def get_users(self, request: users.GetUsersRequest) -> users.GetUsersResponse:
        """See `UserStore`."""
        return await self._call(lambda node: node.users.GetUsers, request)

    async def record_last_seen(self, request: users.RecordLastSeenRequest) -> users.RecordLastSeenResponse:
        """See `UserStore`."""
        return await self._call(lambda node: node.users.RecordLastSeen, request)

"""The store's ports over gRPC: one line a call.

Reading history has a compartment of its own, so that a flood of it, by whatever door, leaves the stores to those who send.
"""

from mesh.bulkhead import Bulkhead
from mesh.nodes import NodePool
from tidings.store.v1 import conversation_pb2 as conversations
from tidings.store.v1 import dead_letter_pb2 as letters
from tidings.store.v1 import message_log_pb2 as log
from tidings.store.v1 import user_pb2 as users
from tidings.store.v1.conversation_pb2_grpc import ConversationServiceStub
from tidings.store.v1.dead_letter_pb2_grpc import DeadLetterServiceStub
from tidings.store.v1.message_log_pb2_grpc import MessageLogServiceStub
from tidings.store.v1.user_pb2_grpc import UserServiceStub

_READS = 16  # pages of history and lists of conversations read at once, over all stores
_READS_WAITING = 1_000  # past it they are refused OVERLOADED


class GrpcStore:
    """`MessageLog`, `DeadLetterStore`, `ConversationStore` and `UserStore` at whichever store answers."""

    def __init__(self, pool: NodePool) -> None:
        self._call = pool.call
        self._reading = Bulkhead(_READS, _READS_WAITING, "history")

    @property
    def reads(self) -> int:
        """Reads of history under way or waiting."""
        return len(self._reading)

    async def list_entries(self, request: log.ListEntriesRequest) -> log.ListEntriesResponse:
        """See `MessageLog`."""
        async with self._reading.room():
            return await self._call(lambda node: node.stub(MessageLogServiceStub).ListEntries, request)

    async def sync_devices(self, request: log.SyncDevicesRequest) -> log.SyncDevicesResponse:
        """See `MessageLog`."""
        return await self._call(lambda node: node.stub(MessageLogServiceStub).SyncDevices, request)

    async def advance_marks(self, request: log.AdvanceMarksRequest) -> log.AdvanceMarksResponse:
        """See `MessageLog`."""
        return await self._call(lambda node: node.stub(MessageLogServiceStub).AdvanceMarks, request)

    async def list_undispatched(self, request: log.ListUndispatchedRequest) -> log.ListUndispatchedResponse:
        """See `MessageLog`."""
        return await self._call(lambda node: node.stub(MessageLogServiceStub).ListUndispatched, request)

    async def mark_dispatched(self, request: log.MarkDispatchedRequest) -> log.MarkDispatchedResponse:
        """See `MessageLog`."""
        return await self._call(lambda node: node.stub(MessageLogServiceStub).MarkDispatched, request)

    async def put_dead_letters(self, request: letters.PutDeadLettersRequest) -> letters.PutDeadLettersResponse:
        """See `DeadLetterStore`."""
        return await self._call(lambda node: node.stub(DeadLetterServiceStub).PutDeadLetters, request)

    async def list_dead_letters(self, request: letters.ListDeadLettersRequest) -> letters.ListDeadLettersResponse:
        """See `DeadLetterStore`."""
        return await self._call(lambda node: node.stub(DeadLetterServiceStub).ListDeadLetters, request)

    async def discard_dead_letter(self, request: letters.DiscardDeadLetterRequest) -> letters.DiscardDeadLetterResponse:
        """See `DeadLetterStore`."""
        return await self._call(lambda node: node.stub(DeadLetterServiceStub).DiscardDeadLetter, request)

    async def ensure_direct(self, request: conversations.EnsureDirectRequest) -> conversations.EnsureDirectResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.stub(ConversationServiceStub).EnsureDirect, request)

    async def create_group(self, request: conversations.CreateGroupRequest) -> conversations.CreateGroupResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.stub(ConversationServiceStub).CreateGroup, request)

    async def get_conversations(self, request: conversations.GetConversationsRequest) -> conversations.GetConversationsResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.stub(ConversationServiceStub).GetConversations, request)

    async def list_conversations(self, request: conversations.ListConversationsRequest) -> conversations.ListConversationsResponse:
        """See `ConversationStore`."""
        async with self._reading.room():
            return await self._call(lambda node: node.stub(ConversationServiceStub).ListConversations, request)

    async def update_conversation(
        self, request: conversations.UpdateConversationRequest
    ) -> conversations.UpdateConversationResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.stub(ConversationServiceStub).UpdateConversation, request)

    async def put_member(self, request: conversations.PutMemberRequest) -> conversations.PutMemberResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.stub(ConversationServiceStub).PutMember, request)

    async def remove_member(self, request: conversations.RemoveMemberRequest) -> conversations.RemoveMemberResponse:
        """See `ConversationStore`."""
        return await self._call(lambda node: node.stub(ConversationServiceStub).RemoveMember, request)

    async def ensure_users(self, request: users.EnsureUsersRequest) -> users.EnsureUsersResponse:
        """See `UserStore`."""
        return await self._call(lambda node: node.stub(UserServiceStub).EnsureUsers, request)

    async def get_users(self, request: users.GetUsersRequest) -> users.GetUsersResponse:
        """See `UserStore`."""
        return await self._call(lambda node: node.stub(UserServiceStub).GetUsers, request)

    async def record_last_seen(self, request: users.RecordLastSeenRequest) -> users.RecordLastSeenResponse:
        """See `UserStore`."""
        return await self._call(lambda node: node.stub(UserServiceStub).RecordLastSeen, request)

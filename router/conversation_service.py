"""ConversationService over gRPC: proto in, one call, proto out. Errors become statuses in mesh.rpc."""

from typing import Any

from mesh import errors
from mesh.naming import USER_ID, message_id
from router import frames
from router.conversations import Conversations
from tidings.common.v1.conversation_pb2 import CONVERSATION_KIND_DIRECT, CONVERSATION_KIND_GROUP
from tidings.router.v1 import conversation_pb2 as pb
from tidings.router.v1.conversation_pb2_grpc import ConversationServiceServicer

Context = Any  # grpc.aio.ServicerContext; nothing here looks at it


class ConversationServicer(ConversationServiceServicer):
    """Translates for `Conversations`."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def CreateConversation(self, request: pb.CreateConversationRequest, context: Context) -> pb.CreateConversationResponse:
        """Opens a direct conversation or creates a group."""
        _check_caller(request.user_id)
        members = list(request.member_ids)
        if request.kind == CONVERSATION_KIND_DIRECT:
            if len(members) != 1:
                raise errors.invalid_field("member_ids", "a direct conversation is with exactly one other user")
            made = await self._conversations.open_direct(request.user_id, members[0])
        elif request.kind == CONVERSATION_KIND_GROUP:
            retention = request.retention if request.HasField("retention") else None
            made = await self._conversations.create_group(request.user_id, request.request_id, request.name, members, retention)
        else:
            raise errors.invalid_field("kind", "CONVERSATION_KIND_DIRECT or CONVERSATION_KIND_GROUP")
        return pb.CreateConversationResponse(conversation=frames.for_client(made))

    async def GetConversation(self, request: pb.GetConversationRequest, context: Context) -> pb.GetConversationResponse:
        """One conversation with its members."""
        _check_caller(request.user_id)
        found = await self._conversations.get(request.user_id, request.conversation_id)
        return pb.GetConversationResponse(conversation=frames.for_client(found))

    async def ListConversations(self, request: pb.ListConversationsRequest, context: Context) -> pb.ListConversationsResponse:
        """The user's conversations, the most recently active first."""
        _check_caller(request.user_id)
        found = await self._conversations.list(request.user_id, request.page_size, request.page_token)
        return pb.ListConversationsResponse(
            conversations=map(frames.for_client, found.conversations), next_page_token=found.next_page_token
        )

    async def UpdateConversation(self, request: pb.UpdateConversationRequest, context: Context) -> pb.UpdateConversationResponse:
        """Renames a group or changes its retention."""
        _check_caller(request.user_id)
        retention = request.retention if request.HasField("retention") else None
        now = await self._conversations.update(request.user_id, request.conversation_id, request.name, retention)
        return pb.UpdateConversationResponse(conversation=frames.for_client(now))

    async def PutMember(self, request: pb.PutMemberRequest, context: Context) -> pb.PutMemberResponse:
        """Adds a member, or changes a member's role."""
        _check_caller(request.user_id)
        now = await self._conversations.put_member(request.user_id, request.conversation_id, request.member_id, request.role)
        return pb.PutMemberResponse(conversation=frames.for_client(now))

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        """Removes a member; oneself to leave."""
        _check_caller(request.user_id)
        now = await self._conversations.remove_member(request.user_id, request.conversation_id, request.member_id)
        return pb.RemoveMemberResponse(conversation=frames.for_client(now))

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        """A page of history."""
        _check_caller(request.user_id)
        page = await self._conversations.list_messages(request)
        return pb.ListMessagesResponse(
            entries=page.entries,
            last_seq=page.last_seq,
            first_available_seq=page.first_available_seq,
            has_more=page.has_more,
        )

    async def SendMessage(self, request: pb.SendMessageRequest, context: Context) -> pb.SendMessageResponse:
        """Stores and fans out one message."""
        _check_caller(request.user_id)
        result = await self._conversations.send(request)
        return pb.SendMessageResponse(
            message_id=message_id(request.conversation_id, result.seq), seq=result.seq, store_time=result.store_time
        )


def _check_caller(user_id: str) -> None:
    if not USER_ID.fullmatch(user_id):
        raise errors.invalid_field("user_id", "1-128 characters of [A-Za-z0-9._@+-]")

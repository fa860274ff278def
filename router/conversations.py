"""Conversations in a user's name, for who has no session: the HTTP gateway.

Rules: roles are checked by the store, in the transaction that changes something. Every change is told: its log entry to the
members now, and the conversation's new state to everyone it concerns, the removed included.
It must not know gRPC contexts or HTTP.
"""

import asyncio
import re
from collections.abc import Awaitable

from mesh import errors, rpc
from mesh.naming import CLIENT_MSG_ID, CONVERSATION_ID, USER_ID
from router import frames
from router.append import AppendPipeline
from router.directory import Directory, Ordinals
from router.fan_out import FanOut
from router.membership import LARGE
from router.ports import ConversationStore, MessageLog
from tidings.common.v1.conversation_pb2 import Conversation, LogEntry, Retention, Role
from tidings.router.v1 import conversation_pb2 as asked
from tidings.router.v1.link_pb2 import TRAFFIC_CLASS_CHAT, AppendEntry, ClientEnvelope
from tidings.store.v1 import conversation_pb2 as store
from tidings.store.v1.message_log_pb2 import AppendResult, ListEntriesRequest, ListEntriesResponse

MAX_PAGE = 1000
_PAGE = 100  # when the caller names no size
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")
_SEND_SECONDS = 10.0  # a send that waits longer is answered UNAVAILABLE; sent again with its id, it is the same message


class Conversations:
    """What a user can do with conversations."""

    def __init__(
        self,
        store: ConversationStore,
        log: MessageLog,
        directory: Directory,
        ordinals: Ordinals,
        fan_out: FanOut,
        pipeline: AppendPipeline,
    ) -> None:
        self._store = store
        self._log = log
        self._directory = directory
        self._ordinals = ordinals
        self._fan_out = fan_out
        self._pipeline = pipeline

    async def open_direct(self, user_id: str, other: str) -> Conversation:
        """The direct conversation of two users, which comes into being when new."""
        if not USER_ID.fullmatch(other) or other == user_id:
            raise errors.invalid_recipient(other)
        pair = store.DirectPair(first_user_id=user_id, second_user_id=other)
        (conversation,) = (await self._store.ensure_direct(store.EnsureDirectRequest(pairs=[pair]))).conversations
        self._directory.learn(conversation)
        if conversation.last_seq == 0:
            self._tell_members(conversation)
        return conversation

    async def create_group(
        self, user_id: str, request_id: str, name: str, member_ids: list[str], retention: Retention | None
    ) -> Conversation:
        """A new group; the same one for the same request_id and body."""
        _check(_REQUEST_ID.fullmatch(request_id), "request_id", "1-64 printable ASCII characters, new for each group")
        _check(_NAME.fullmatch(name), "name", "1-128 characters")
        for member_id in member_ids:
            _check_user("member_ids", member_id)
        request = store.CreateGroupRequest(
            actor_id=user_id, request_id=request_id, name=name, member_ids=member_ids, retention=retention
        )
        response = await self._store.create_group(request)
        if response.conversation.members:  # none are shown to a creator who left since: that says nothing about who is in it
            self._changed(response.conversation, response.entry)
        return response.conversation

    async def get(self, user_id: str, conversation_id: str) -> Conversation:
        """One conversation of the user's, as the store has it now."""
        _check_conversation(conversation_id)
        found = await self._store.get_conversations(store.GetConversationsRequest(conversation_ids=[conversation_id]))
        if not found.conversations:
            raise errors.invalid_chat_id(conversation_id)
        conversation = found.conversations[0]
        self._directory.learn(conversation)
        if all(member.user_id != user_id for member in conversation.members):
            raise errors.not_a_member(conversation_id)
        return conversation

    async def list(self, user_id: str, page_size: int, page_token: str) -> store.ListConversationsResponse:
        """A page of the user's conversations."""
        request = store.ListConversationsRequest(user_id=user_id, page_size=_page_size(page_size), page_token=page_token)
        return await self._store.list_conversations(request)

    async def update(self, user_id: str, conversation_id: str, name: str, retention: Retention | None) -> Conversation:
        """Rename, or change what is kept."""
        _check_conversation(conversation_id)
        _check(not name or _NAME.fullmatch(name), "name", "1-128 characters, or empty to leave it")
        request = store.UpdateConversationRequest(actor_id=user_id, conversation_id=conversation_id, name=name, retention=retention)
        response = await self._store.update_conversation(request)
        self._changed(response.conversation, response.entry if response.HasField("entry") else None)
        return response.conversation

    async def put_member(self, user_id: str, conversation_id: str, member_id: str, role: Role.ValueType) -> Conversation:
        """Add a member, or change a role."""
        _check_conversation(conversation_id)
        _check_user("member_id", member_id)
        request = store.PutMemberRequest(actor_id=user_id, conversation_id=conversation_id, member_id=member_id, role=role)
        response = await self._store.put_member(request)
        if response.HasField("entry"):
            self._changed(response.conversation, response.entry)
        return response.conversation

    async def remove_member(self, user_id: str, conversation_id: str, member_id: str) -> Conversation:
        """Remove a member; oneself to leave, which gives only the id."""
        _check_conversation(conversation_id)
        _check_user("member_id", member_id)
        request = store.RemoveMemberRequest(actor_id=user_id, conversation_id=conversation_id, member_id=member_id)
        response = await self._store.remove_member(request)
        if response.HasField("entry"):
            self._changed(response.conversation, response.entry)
        if response.removed_user_ordinal:
            gone = frames.conversation_removed(conversation_id)
            self._fan_out.to_users([response.removed_user_ordinal], gone, TRAFFIC_CLASS_CHAT)
        return Conversation(conversation_id=conversation_id) if member_id == user_id else response.conversation

    async def list_messages(self, request: asked.ListMessagesRequest) -> ListEntriesResponse:
        """A page of history, as far as the user may see it."""
        _check_conversation(request.conversation_id)
        question = ListEntriesRequest(
            conversation_id=request.conversation_id,
            user_ordinal=await self._ordinals.of(request.user_id),
            page_size=_page_size(request.page_size),
        )
        match request.WhichOneof("position"):
            case "after_seq":
                question.after_seq = request.after_seq
            case "before_seq":
                question.before_seq = request.before_seq
        return await self._log.list_entries(question)

    async def send(self, request: asked.SendMessageRequest) -> AppendResult:
        """Store and fan out a message, by the same way as those of sessions."""
        _check_conversation(request.conversation_id)
        _check(CLIENT_MSG_ID.fullmatch(request.client_msg_id), "client_msg_id", "1-64 printable ASCII characters")
        _check(request.content.WhichOneof("body"), "content", "exactly one kind of content")
        entry = AppendEntry(conversation_id=request.conversation_id, client_msg_id=request.client_msg_id, content=request.content)
        return await _in_time(self._store_entry(request.user_id, entry))

    async def _store_entry(self, user_id: str, entry: AppendEntry) -> AppendResult:
        ordinal = await self._ordinals.of(user_id)
        return await self._pipeline.store(ClientEnvelope(user_id=user_id, user_ordinal=ordinal, append_entry=entry))

    def _changed(self, conversation: Conversation, entry: LogEntry | None) -> None:
        """Tell a change to the members now."""
        self._directory.learn(conversation)
        held = self._directory.get(conversation.conversation_id)
        if entry is not None and held is not None:
            self._fan_out.entry(held, entry.seq, frames.log_entry(entry, held.acknowledge_within_ms))
        self._tell_members(conversation)

    def _tell_members(self, conversation: Conversation) -> None:
        """To each of a large conversation's members, all of them would be as much again for every change as its log is."""
        members = [member.user_ordinal for member in conversation.members]
        frame = frames.conversation_changed(conversation, members=len(members) <= LARGE)
        self._fan_out.to_users(members, frame, TRAFFIC_CLASS_CHAT)


async def _in_time(storing: Awaitable[AppendResult]) -> AppendResult:
    try:
        return await asyncio.wait_for(storing, rpc.remaining(_SEND_SECONDS))
    except TimeoutError:
        raise errors.unavailable("the message is not stored yet; send it again with the same client_msg_id") from None


def _page_size(asked_for: int) -> int:
    _check(asked_for <= MAX_PAGE, "page_size", f"at most {MAX_PAGE}")
    return asked_for or _PAGE


def _check(fine: object, field: str, allowed: str) -> None:
    if not fine:
        raise errors.invalid_field(field, allowed)


def _check_user(field: str, user_id: str) -> None:
    _check(USER_ID.fullmatch(user_id), field, f"{user_id!r} is not a user id: 1-128 characters of [A-Za-z0-9._@+-]")


def _check_conversation(conversation_id: str) -> None:
    if not CONVERSATION_ID.fullmatch(conversation_id):
        raise errors.invalid_chat_id(conversation_id)

"""A store in memory behind the store's contract, which can be made to fail: dies, holds its answers, loses them, refuses.

Several servers may share one `Memory`, as several stores share a database.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from mesh import errors, rpc
from mesh.naming import direct_conversation_id, message_id, new_group_id, new_instance_id
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from tidings.common.v1 import conversation_pb2 as common
from tidings.common.v1 import error_pb2
from tidings.common.v1.instance_pb2 import Instance
from tidings.store.v1 import conversation_pb2, conversation_pb2_grpc, message_log_pb2, message_log_pb2_grpc, user_pb2, user_pb2_grpc


@dataclass
class Chat:
    """One conversation."""

    conversation: common.Conversation
    entries: list[common.LogEntry] = field(default_factory=list)
    stored: dict[tuple[int, str], int] = field(default_factory=dict)
    dispatched: int = 0

    def member(self, ordinal: int) -> common.Member | None:
        """The member of this ordinal."""
        return next((one for one in self.conversation.members if one.user_ordinal == ordinal), None)

    def write(self, sender_id: str, **body: Any) -> common.LogEntry:
        """Add an entry."""
        seq = len(self.entries) + 1
        now = Timestamp()
        now.GetCurrentTime()
        conversation_id = self.conversation.conversation_id
        entry = common.LogEntry(
            conversation_id=conversation_id,
            seq=seq,
            message_id=message_id(conversation_id, seq),
            sender_id=sender_id,
            store_time=now,
            **body,
        )
        self.entries.append(entry)
        self.conversation.last_seq = seq
        return entry

    def tell(
        self, sender_id: str, change: common.MembershipChange.ValueType, user_ids: list[str], name: str = ""
    ) -> common.LogEntry:
        """Change the membership and say so."""
        self.conversation.membership_version += 1
        event = common.MembershipEvent(change=change, user_ids=user_ids, name=name)
        return self.write(sender_id, membership=event)


@dataclass
class Memory:
    """What a database would hold, and what to do wrong.

    Attributes:
        answering: cleared to hold the answers to appends.
        lose_answers: so many append streams store their next batch, then break without answering.
        poison: an append that holds this client_msg_id fails.
        appends: sizes of the append batches stored.
        ended: instance ids of stores whose append streams ended, in order.
        frozen: instance ids of stores whose appends stand still, as in a stopped process: what they hold is stored when `thaw` is
            called, whoever still waits for it.
        refuse: error for every unary call.
        more: further services, by full name.
        noted: notified when dispatched positions or last-seen times were noted.
    """

    users: dict[str, user_pb2.User] = field(default_factory=dict)
    chats: dict[str, Chat] = field(default_factory=dict)
    groups: dict[tuple[str, str], str] = field(default_factory=dict)
    cursors: dict[tuple[int, str, str], int] = field(default_factory=dict)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    lose_answers: int = 0
    poison: str = ""
    appends: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    frozen: set[str] = field(default_factory=set)
    refuse: errors.TidingsError | None = None
    more: dict[str, rpc.AddServicer] = field(default_factory=dict)
    noted: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.answering.set()
        self._held: list[tuple[message_log_pb2.AppendRequest, asyncio.Future[list[message_log_pb2.AppendResult]]]] = []

    async def append_all(self, instance_id: str, request: message_log_pb2.AppendRequest) -> list[message_log_pb2.AppendResult]:
        """Store a batch, at once or when its store thaws."""
        if instance_id not in self.frozen:
            return [self.append(one) for one in request.entries]
        results: asyncio.Future[list[message_log_pb2.AppendResult]] = asyncio.get_running_loop().create_future()
        self._held.append((request, results))
        await self.tell()
        return await asyncio.shield(results)

    @property
    def held(self) -> int:
        """Batches that frozen stores hold."""
        return len(self._held)

    def thaw(self) -> None:
        """The frozen stores do what they were about to."""
        self.frozen.clear()
        held, self._held = self._held, []
        for request, results in held:
            results.set_result([self.append(one) for one in request.entries])

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something noted here holds."""
        async with self.noted:
            await asyncio.wait_for(self.noted.wait_for(holds), 10)

    async def tell(self) -> None:
        """Something was noted."""
        async with self.noted:
            self.noted.notify_all()

    def user(self, user_id: str) -> user_pb2.User:
        """A user, made when new."""
        return self.users.setdefault(user_id, user_pb2.User(user_id=user_id, user_ordinal=len(self.users) + 1))

    def name_of(self, ordinal: int) -> str:
        """A user's id."""
        return next(one.user_id for one in self.users.values() if one.user_ordinal == ordinal)

    def join(self, chat: Chat, user_id: str, role: common.Role.ValueType = common.ROLE_MEMBER) -> None:
        """Add a member."""
        chat.conversation.members.add(
            user_id=user_id,
            user_ordinal=self.user(user_id).user_ordinal,
            role=role,
            visible_from_seq=len(chat.entries) + 1,
        )

    def direct(self, one: str, other: str) -> Chat:
        """The direct conversation of two users."""
        conversation_id = direct_conversation_id(one, other)
        if conversation_id not in self.chats:
            chat = Chat(
                common.Conversation(
                    conversation_id=conversation_id,
                    kind=common.CONVERSATION_KIND_DIRECT,
                    membership_version=1,
                    retained_from_seq=1,
                )
            )
            self.join(chat, one)
            self.join(chat, other)
            self.chats[conversation_id] = chat
        return self.chats[conversation_id]

    def group(self, owner: str, *members: str, name: str = "group") -> Chat:
        """A new group."""
        chat = Chat(
            common.Conversation(conversation_id=new_group_id(), kind=common.CONVERSATION_KIND_GROUP, name=name, retained_from_seq=1)
        )
        self.join(chat, owner, common.ROLE_OWNER)
        for member in members:
            self.join(chat, member)
        chat.tell(owner, common.MEMBERSHIP_CHANGE_CREATED, [owner, *members], name)
        self.chats[chat.conversation.conversation_id] = chat
        return chat

    def chat(self, conversation_id: str) -> Chat:
        """A conversation."""
        if conversation_id not in self.chats:
            raise errors.invalid_chat_id(conversation_id)
        return self.chats[conversation_id]

    def append(self, new: message_log_pb2.NewEntry) -> message_log_pb2.AppendResult:
        """Store one entry."""
        chat = self.chats.get(new.conversation_id)
        if chat is None:
            return message_log_pb2.AppendResult(refusal=error_pb2.ERROR_CODE_INVALID_CHAT_ID)
        version = chat.conversation.membership_version
        if chat.member(new.sender_ordinal) is None:
            return message_log_pb2.AppendResult(refusal=error_pb2.ERROR_CODE_NOT_A_MEMBER, membership_version=version)
        key = (new.sender_ordinal, new.client_msg_id)
        known = chat.stored.get(key)
        if known is None:
            sender_id = self.name_of(new.sender_ordinal)
            if not new.target_seq:
                entry = chat.write(sender_id, client_msg_id=new.client_msg_id, content=new.content)
            elif new.target_seq > len(chat.entries):
                return message_log_pb2.AppendResult(refusal=error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND, membership_version=version)
            else:
                deletion = common.Deletion(target_seq=new.target_seq)
                entry = chat.write(sender_id, client_msg_id=new.client_msg_id, deletion=deletion)
            chat.stored[key] = entry.seq
        entry = chat.entries[chat.stored[key] - 1]
        return message_log_pb2.AppendResult(
            seq=entry.seq, store_time=entry.store_time, membership_version=version, duplicate=known is not None
        )


class Logs(message_log_pb2_grpc.MessageLogServiceServicer):
    """MessageLogService."""

    def __init__(self, memory: Memory, instance_id: str) -> None:
        self.memory = memory
        self.instance_id = instance_id

    async def Append(self, request_iterator: Any, context: Any) -> AsyncIterator[message_log_pb2.AppendResponse]:
        """Store batches."""
        try:
            async for response in self._append(request_iterator, context):
                yield response
        finally:
            self.memory.ended.append(self.instance_id)
            await self.memory.tell()

    async def _append(self, request_iterator: Any, context: Any) -> AsyncIterator[message_log_pb2.AppendResponse]:
        async for request in request_iterator:
            if self.memory.poison and any(one.client_msg_id == self.memory.poison for one in request.entries):
                await context.abort(grpc.StatusCode.INTERNAL, "poisoned")
            results = await self.memory.append_all(self.instance_id, request)
            self.memory.appends.append(len(results))
            await self.memory.tell()
            if self.memory.lose_answers:
                self.memory.lose_answers -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "answer lost")
            await self.memory.answering.wait()
            yield message_log_pb2.AppendResponse(batch_id=request.batch_id, results=results)

    async def ListEntries(self, request: message_log_pb2.ListEntriesRequest, context: Any) -> message_log_pb2.ListEntriesResponse:
        """A page."""
        self._refuse()
        chat = self.memory.chat(request.conversation_id)
        first = 1
        if request.user_ordinal:
            member = chat.member(request.user_ordinal)
            if member is None:
                raise errors.not_a_member(request.conversation_id)
            first = max(1, member.visible_from_seq)
        size = request.page_size
        visible = [one for one in chat.entries if one.seq >= first]
        if request.WhichOneof("position") == "after_seq":
            found = [one for one in visible if one.seq > request.after_seq]
            page, more = found[:size], len(found) > size
        else:
            found = [one for one in visible if not request.before_seq or one.seq < request.before_seq]
            page, more = found[-size:], len(found) > size
        return message_log_pb2.ListEntriesResponse(
            entries=page, last_seq=len(chat.entries), first_available_seq=first, has_more=more
        )

    async def SyncDevices(self, request: message_log_pb2.SyncDevicesRequest, context: Any) -> message_log_pb2.SyncDevicesResponse:
        """All that each device missed, a conversation a page."""
        self._refuse()
        return message_log_pb2.SyncDevicesResponse(pages=[self._page(one) for one in request.devices])

    def _page(self, device: message_log_pb2.DeviceSync) -> message_log_pb2.DeviceSyncPage:
        mine = [one for one in self.memory.chats.values() if one.member(device.user_ordinal)]
        start = int(device.page_token or "0")
        positions = {one.conversation_id: one.seq for one in device.positions}
        page = message_log_pb2.DeviceSyncPage()
        for chat in mine[start : start + 1]:
            conversation_id = chat.conversation.conversation_id
            cursor = positions.get(
                conversation_id, self.memory.cursors.get((device.user_ordinal, device.device_id, conversation_id), 0)
            )
            entries = chat.entries[cursor:]
            if entries:
                page.runs.add(conversation_id=conversation_id, entries=entries, last_seq=len(chat.entries), first_available_seq=1)
        if start + 1 < len(mine):
            page.next_page_token = str(start + 1)
        return page

    async def AdvanceMarks(
        self, request: message_log_pb2.AdvanceMarksRequest, context: Any
    ) -> message_log_pb2.AdvanceMarksResponse:
        """Move marks."""
        self._refuse()
        if any(one.device_id == "bad device" for one in request.advances):
            raise errors.invalid_field("advances.device_id", "another")
        return message_log_pb2.AdvanceMarksResponse(marks=[self._advance(one) for one in request.advances])

    def _advance(self, advance: message_log_pb2.MarkAdvance) -> message_log_pb2.MemberMarks:
        chat = self.memory.chats.get(advance.conversation_id)
        member = chat.member(advance.user_ordinal) if chat else None
        if chat is None or member is None:
            return message_log_pb2.MemberMarks(refusal=error_pb2.ERROR_CODE_NOT_A_MEMBER)
        marks = message_log_pb2.MemberMarks(previous_delivered_seq=member.delivered_seq, previous_read_seq=member.read_seq)
        last = len(chat.entries)
        member.read_seq = max(member.read_seq, min(last, advance.read_seq))
        member.delivered_seq = max(member.delivered_seq, min(last, advance.delivered_seq), member.read_seq)
        key = (advance.user_ordinal, advance.device_id, advance.conversation_id)
        self.memory.cursors[key] = max(self.memory.cursors.get(key, 0), member.delivered_seq)
        marks.delivered_seq, marks.read_seq = member.delivered_seq, member.read_seq
        return marks

    async def ListUndispatched(
        self, request: message_log_pb2.ListUndispatchedRequest, context: Any
    ) -> message_log_pb2.ListUndispatchedResponse:
        """Conversations left behind."""
        self._refuse()
        oldest = time.time() - request.minimum_age_ms / 1000
        behind = [
            common.Position(conversation_id=one.conversation.conversation_id, seq=one.dispatched)
            for one in self.memory.chats.values()
            if len(one.entries) > one.dispatched and one.entries[-1].store_time.ToNanoseconds() / 1e9 <= oldest
        ]
        return message_log_pb2.ListUndispatchedResponse(positions=behind)

    async def MarkDispatched(
        self, request: message_log_pb2.MarkDispatchedRequest, context: Any
    ) -> message_log_pb2.MarkDispatchedResponse:
        """Note what was fanned out."""
        self._refuse()
        for position in request.positions:
            chat = self.memory.chat(position.conversation_id)
            chat.dispatched = max(chat.dispatched, position.seq)
        await self.memory.tell()
        return message_log_pb2.MarkDispatchedResponse()

    def _refuse(self) -> None:
        if self.memory.refuse is not None:
            raise self.memory.refuse


class Chats(conversation_pb2_grpc.ConversationServiceServicer):
    """ConversationService."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def EnsureDirect(
        self, request: conversation_pb2.EnsureDirectRequest, context: Any
    ) -> conversation_pb2.EnsureDirectResponse:
        """Make pairs."""
        made = [self.memory.direct(one.first_user_id, one.second_user_id).conversation for one in request.pairs]
        return conversation_pb2.EnsureDirectResponse(conversations=made)

    async def CreateGroup(self, request: conversation_pb2.CreateGroupRequest, context: Any) -> conversation_pb2.CreateGroupResponse:
        """Make a group."""
        key = (request.actor_id, request.request_id)
        if key not in self.memory.groups:
            chat = self.memory.group(request.actor_id, *request.member_ids, name=request.name)
            self.memory.groups[key] = chat.conversation.conversation_id
        chat = self.memory.chats[self.memory.groups[key]]
        shown = common.Conversation()
        shown.CopyFrom(chat.conversation)
        if chat.member(self.memory.user(request.actor_id).user_ordinal) is None:
            shown.ClearField("members")  # a creator who left since learns nothing
        return conversation_pb2.CreateGroupResponse(conversation=shown, entry=chat.entries[0])

    async def GetConversations(
        self, request: conversation_pb2.GetConversationsRequest, context: Any
    ) -> conversation_pb2.GetConversationsResponse:
        """Find."""
        if self.memory.refuse is not None:
            raise self.memory.refuse
        found = [self.memory.chats[one].conversation for one in request.conversation_ids if one in self.memory.chats]
        return conversation_pb2.GetConversationsResponse(conversations=found)

    async def ListConversations(
        self, request: conversation_pb2.ListConversationsRequest, context: Any
    ) -> conversation_pb2.ListConversationsResponse:
        """A user's."""
        ordinal = self.memory.user(request.user_id).user_ordinal
        mine = [one.conversation for one in self.memory.chats.values() if one.member(ordinal)]
        return conversation_pb2.ListConversationsResponse(conversations=mine[: request.page_size])

    async def UpdateConversation(
        self, request: conversation_pb2.UpdateConversationRequest, context: Any
    ) -> conversation_pb2.UpdateConversationResponse:
        """Rename."""
        chat = self.memory.chat(request.conversation_id)
        chat.conversation.name = request.name
        entry = chat.tell(request.actor_id, common.MEMBERSHIP_CHANGE_RENAMED, [], request.name)
        return conversation_pb2.UpdateConversationResponse(conversation=chat.conversation, entry=entry)

    async def PutMember(self, request: conversation_pb2.PutMemberRequest, context: Any) -> conversation_pb2.PutMemberResponse:
        """Add."""
        chat = self.memory.chat(request.conversation_id)
        if chat.member(self.memory.user(request.member_id).user_ordinal):
            return conversation_pb2.PutMemberResponse(conversation=chat.conversation)
        self.memory.join(chat, request.member_id)
        entry = chat.tell(request.actor_id, common.MEMBERSHIP_CHANGE_ADDED, [request.member_id])
        return conversation_pb2.PutMemberResponse(conversation=chat.conversation, entry=entry)

    async def RemoveMember(
        self, request: conversation_pb2.RemoveMemberRequest, context: Any
    ) -> conversation_pb2.RemoveMemberResponse:
        """Remove."""
        chat = self.memory.chat(request.conversation_id)
        member = chat.member(self.memory.user(request.member_id).user_ordinal)
        if member is None:
            return conversation_pb2.RemoveMemberResponse(conversation=chat.conversation)
        removed = member.user_ordinal
        chat.conversation.members.remove(member)
        entry = chat.tell(request.actor_id, common.MEMBERSHIP_CHANGE_REMOVED, [request.member_id])
        return conversation_pb2.RemoveMemberResponse(conversation=chat.conversation, entry=entry, removed_user_ordinal=removed)


class Users(user_pb2_grpc.UserServiceServicer):
    """UserService."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def EnsureUsers(self, request: user_pb2.EnsureUsersRequest, context: Any) -> user_pb2.EnsureUsersResponse:
        """Make users."""
        if self.memory.refuse is not None:
            raise self.memory.refuse
        return user_pb2.EnsureUsersResponse(users=[self.memory.user(one) for one in request.user_ids])

    async def GetUsers(self, request: user_pb2.GetUsersRequest, context: Any) -> user_pb2.GetUsersResponse:
        """Find users."""
        return user_pb2.GetUsersResponse(users=[self.memory.users[one] for one in request.user_ids if one in self.memory.users])

    async def ListUsers(self, request: user_pb2.ListUsersRequest, context: Any) -> user_pb2.ListUsersResponse:
        """Find users by ordinal."""
        users = {user.user_ordinal: user for user in self.memory.users.values()}
        return user_pb2.ListUsersResponse(users=[users[one] for one in request.user_ordinals if one in users])

    async def RecordLastSeen(self, request: user_pb2.RecordLastSeenRequest, context: Any) -> user_pb2.RecordLastSeenResponse:
        """Note times."""
        users = {user.user_ordinal: user for user in self.memory.users.values()}
        for seen in request.last_seen:
            if seen.user_ordinal in users:
                users[seen.user_ordinal].last_seen_time.CopyFrom(seen.time)
        await self.memory.tell()
        return user_pb2.RecordLastSeenResponse()


@asynccontextmanager
async def serve(memory: Memory, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Instance]:
    """Serve a twin until the context ends, which it does at once, as a killed process would."""
    instance = Instance(service="store", instance_id=new_instance_id("store"))
    logs = Logs(memory, instance.instance_id)
    servicers: dict[str, rpc.AddServicer] = {
        "tidings.store.v1.MessageLogService": lambda s: message_log_pb2_grpc.add_MessageLogServiceServicer_to_server(logs, s),
        "tidings.store.v1.ConversationService": lambda s: conversation_pb2_grpc.add_ConversationServiceServicer_to_server(
            Chats(memory), s
        ),
        "tidings.store.v1.UserService": lambda s: user_pb2_grpc.add_UserServiceServicer_to_server(Users(memory), s),
        **memory.more,
    }
    async with rpc.serve("127.0.0.1:0", servicers, telemetry, reflect=False, drain_seconds=0, local=registry.local) as port:
        instance.grpc_address = f"127.0.0.1:{port}"
        async with registry.register(instance):
            yield instance

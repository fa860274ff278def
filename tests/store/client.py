"""A store as its callers see it: stubs over one channel, and short words for what tests say often."""

import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from mesh import rpc
from mesh.errors import from_rpc_error
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from store.serve import serve
from store.settings import StoreSettings
from tidings.common.v1 import conversation_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.store.v1 import conversation_pb2 as conversation_pb
from tidings.store.v1 import message_log_pb2 as pb
from tidings.store.v1 import user_pb2
from tidings.store.v1.conversation_pb2_grpc import ConversationServiceStub
from tidings.store.v1.dead_letter_pb2_grpc import DeadLetterServiceStub
from tidings.store.v1.message_log_pb2_grpc import MessageLogServiceStub
from tidings.store.v1.tag_log_pb2_grpc import TagLogServiceStub
from tidings.store.v1.user_pb2_grpc import UserServiceStub


class StoreClient:
    """Calls one store."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.messages = MessageLogServiceStub(channel)
        self.conversations = ConversationServiceStub(channel)
        self.users = UserServiceStub(channel)
        self.tags = TagLogServiceStub(channel)
        self.letters = DeadLetterServiceStub(channel)
        self._numbers = itertools.count(1)

    async def ordinals(self, *user_ids: str) -> list[int]:
        """The users' ordinals; they come into being when new."""
        response = await self.users.EnsureUsers(user_pb2.EnsureUsersRequest(user_ids=user_ids))
        return [user.user_ordinal for user in response.users]

    async def ordinal(self, user_id: str) -> int:
        """One user's ordinal."""
        return (await self.ordinals(user_id))[0]

    async def direct(self, one: str, other: str) -> str:
        """The id of their direct conversation."""
        pair = conversation_pb.DirectPair(first_user_id=one, second_user_id=other)
        response = await self.conversations.EnsureDirect(conversation_pb.EnsureDirectRequest(pairs=[pair]))
        return response.conversations[0].conversation_id

    async def group(
        self, owner: str, *members: str, name: str = "group", request_id: str = "", retention: common.Retention | None = None
    ) -> common.Conversation:
        """A new group."""
        request = conversation_pb.CreateGroupRequest(
            actor_id=owner, request_id=request_id or f"r{next(self._numbers)}", name=name, member_ids=members, retention=retention
        )
        return (await self.conversations.CreateGroup(request)).conversation

    async def put(
        self, actor: str, where: str, member: str, role: common.Role.ValueType = common.ROLE_UNSPECIFIED
    ) -> conversation_pb.PutMemberResponse:
        """Add a member or change a role."""
        request = conversation_pb.PutMemberRequest(actor_id=actor, conversation_id=where, member_id=member, role=role)
        return await self.conversations.PutMember(request)

    async def remove(self, actor: str, where: str, member: str) -> conversation_pb.RemoveMemberResponse:
        """Remove a member, or leave."""
        request = conversation_pb.RemoveMemberRequest(actor_id=actor, conversation_id=where, member_id=member)
        return await self.conversations.RemoveMember(request)

    async def conversation(self, conversation_id: str) -> common.Conversation:
        """It, with its members."""
        request = conversation_pb.GetConversationsRequest(conversation_ids=[conversation_id])
        return (await self.conversations.GetConversations(request)).conversations[0]

    async def append(self, *entries: pb.NewEntry) -> list[pb.AppendResult]:
        """Append one batch on a stream of its own."""
        [response] = await self.append_batches([entries])
        return list(response.results)

    async def append_batches(self, batches: Iterable[Iterable[pb.NewEntry]]) -> list[pb.AppendResponse]:
        """Append batches on one stream, all sent before the first answer is read."""
        call = self.messages.Append()
        for number, entries in enumerate(batches, 1):
            await call.write(pb.AppendRequest(batch_id=number, entries=entries))
        await call.done_writing()
        return [response async for response in call]

    async def say(self, where: str, sender: int, *texts: str) -> list[int]:
        """Append messages of one sender, with new client_msg_ids; gives their seqs."""
        entries = [message(where, sender, f"m{next(self._numbers)}", text) for text in texts]
        results = await self.append(*entries)
        assert all(not result.refusal and not result.duplicate for result in results), results
        return [result.seq for result in results]

    async def entries(self, where: str, user_ordinal: int = 0, page_size: int = 1000) -> list[common.LogEntry]:
        """Everything a user can read, from the first on."""
        request = pb.ListEntriesRequest(conversation_id=where, user_ordinal=user_ordinal, after_seq=0, page_size=page_size)
        return list((await self.messages.ListEntries(request)).entries)

    async def sync(self, *devices: pb.DeviceSync) -> list[pb.DeviceSyncPage]:
        """One page per device."""
        return list((await self.messages.SyncDevices(pb.SyncDevicesRequest(devices=devices))).pages)

    async def advance(self, *advances: pb.MarkAdvance) -> list[pb.MemberMarks]:
        """Move marks."""
        return list((await self.messages.AdvanceMarks(pb.AdvanceMarksRequest(advances=advances))).marks)


@asynccontextmanager
async def running_store(database: str, **settings: Any) -> AsyncIterator[StoreClient]:
    """A store of its own on a free port."""
    telemetry = Telemetry("store-test")
    options: dict[str, Any] = {"port": 0, "drain_seconds": 1, "reflection": False, "sweep_seconds": 3600, **settings}
    async with serve(StoreSettings(database=database, **options), MemoryRegistry(), telemetry) as instance:
        channel = rpc.channel(instance.grpc_address, telemetry)
        async with channel:
            yield StoreClient(channel)
    telemetry.close()


def content(text: str) -> Content:
    """A text."""
    return Content(text=Text(text=text))


def message(where: str, sender: int, client_msg_id: str, text: str = "hello") -> pb.NewEntry:
    """A message to append."""
    return pb.NewEntry(conversation_id=where, sender_ordinal=sender, client_msg_id=client_msg_id, content=content(text))


def edit(where: str, sender: int, client_msg_id: str, target: int, text: str = "edited") -> pb.NewEntry:
    """An edit to append."""
    entry = message(where, sender, client_msg_id, text)
    entry.target_seq = target
    return entry


def deletion(where: str, sender: int, client_msg_id: str, target: int) -> pb.NewEntry:
    """A deletion to append."""
    return pb.NewEntry(conversation_id=where, sender_ordinal=sender, client_msg_id=client_msg_id, target_seq=target)


def texts(entries: Iterable[common.LogEntry]) -> list[str]:
    """The texts of messages, in order; "" for an erased one; other entries are left out."""
    return [entry.content.text.text for entry in entries if entry.WhichOneof("body") == "content"]


def reason(error: grpc.RpcError) -> str:
    """The named error of a status."""
    return from_rpc_error(error).reason

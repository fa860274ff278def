"""The router over the real store on SQLite: one conversation through all its turns."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.naming import direct_conversation_id
from store.serve import serve as serve_store
from store.settings import StoreSettings
from tests.router.conftest import Mesh
from tests.router.fake_edge import FakeEdge, edge, frame_of, is_message, send, text
from tidings.client.v1 import frames_pb2 as client
from tidings.common.v1 import conversation_pb2 as common
from tidings.common.v1 import error_pb2
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import conversation_pb2 as pb
from tidings.router.v1 import link_pb2
from tidings.router.v1.conversation_pb2_grpc import ConversationServiceStub


class Database:
    """A file, and stores over it."""

    def __init__(self, folder: Path, mesh: Mesh) -> None:
        options: dict[str, Any] = {"port": 0, "database": f"sqlite:///{folder / 'tidings.sqlite'}"}
        self._settings = StoreSettings(**options)
        self._mesh = mesh

    async def store(self, stack: AsyncExitStack) -> Instance:
        """A store until that stack is closed."""
        return await stack.enter_async_context(serve_store(self._settings, self._mesh.registry, self._mesh.telemetry))


@pytest.fixture
async def database(tmp_path: Path, mesh: Mesh) -> Database:
    return Database(tmp_path, mesh)


@pytest.fixture
async def router(database: Database, mesh: Mesh) -> AsyncIterator[Instance]:
    async with AsyncExitStack() as stack:
        await database.store(stack)
        yield await mesh.router(stack)


async def _open(one: FakeEdge, *names: str) -> list[int]:
    """The users' ordinals, who are online from here on."""
    replies = [await one.ask(name, 0, open_session=link_pb2.OpenSession(device_id="phone")) for name in names]
    ordinals = [reply.session_opened.user_ordinal for reply in replies]
    await one.batch(opened_user_ordinals=ordinals)
    return ordinals


async def test_two_people_talk(router: Instance) -> None:
    async with edge(router.grpc_address) as one:
        alice, bob = await _open(one, "alice", "bob")
        chat = direct_conversation_id("alice", "bob")
        stored = await one.ask_frame("alice", alice, 1, append_entry=send(recipient_id="bob"))
        assert (stored.message_stored.conversation_id, stored.message_stored.seq) == (chat, 1)
        await one.delivery(is_message)
        again = await one.ask_frame("alice", alice, 1, append_entry=send(chat))
        assert again.message_stored == stored.message_stored
        delta = link_pb2.ReceiptDelta(user_ordinal=bob, user_id="bob", device_id="phone", conversation_id=chat, read_seq=5)
        await one.batch(receipts=[delta])
        told = await one.delivery(lambda frame: frame.HasField("receipt"))
        assert frame_of(told.frame).receipt.watermarks[0] == client.Watermark(user_id="bob", delivered_seq=1, read_seq=1)
        edit = await one.ask_frame("alice", alice, 1, append_entry=send(chat, "m2", "better", target_seq=1))
        assert edit.message_stored.seq == 2
        foreign = await one.ask_frame("bob", bob, 2, append_entry=send(chat, "m3", "worse", target_seq=1))
        assert foreign.error.code == error_pb2.ERROR_CODE_NOT_YOUR_MESSAGE
        sync = link_pb2.SyncDevice(device_id="phone")
        page = (await one.ask("bob", bob, 2, sync_device=sync)).sync_page
        assert [[entry.seq for entry in frame_of(each).message_page.entries] for each in page.frames] == [[2]]
        history = await one.ask_frame("bob", bob, 2, fetch_entries=link_pb2.FetchEntries(conversation_id=chat, before_seq=2))
        assert [entry.client_msg_id for entry in history.message_page.entries] == ["m1"]


async def test_refusals_come_from_the_store(router: Instance) -> None:
    async with edge(router.grpc_address) as one:
        alice, mallory = await _open(one, "alice", "mallory")
        unknown = await one.ask_frame("alice", alice, append_entry=send("g" + "a" * 26))
        assert unknown.error.code == error_pb2.ERROR_CODE_INVALID_CHAT_ID
        await one.ask_frame("alice", alice, append_entry=send(recipient_id="bob"))
        chat = direct_conversation_id("alice", "bob")
        outside = await one.ask_frame("mallory", mallory, append_entry=send(chat))
        assert outside.error.code == error_pb2.ERROR_CODE_NOT_A_MEMBER
        missing = await one.ask_frame("alice", alice, append_entry=send(chat, "e", target_seq=9))
        assert missing.error.code == error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND
        fetch = await one.ask_frame("mallory", mallory, fetch_entries=link_pb2.FetchEntries(conversation_id=chat))
        assert fetch.error.code == error_pb2.ERROR_CODE_NOT_A_MEMBER


async def test_a_group_lives(router: Instance) -> None:
    async with edge(router.grpc_address) as one, grpc.aio.insecure_channel(router.grpc_address) as channel:
        service: Any = ConversationServiceStub(channel)
        alice, bob, carol = await _open(one, "alice", "bob", "carol")
        made = await service.CreateConversation(
            pb.CreateConversationRequest(
                user_id="alice", request_id="r", kind=common.CONVERSATION_KIND_GROUP, member_ids=["bob"], name="tea"
            )
        )
        group = made.conversation.conversation_id
        created = await one.delivery(is_message)
        assert (sorted(created.user_ordinals), created.seq) == ([alice, bob], 1)
        who: dict[str, Any] = {"user_id": "alice", "conversation_id": group}
        await service.PutMember(pb.PutMemberRequest(**who, member_id="carol"))
        await one.ask("alice", alice, append_entry=send(group, "m1"))
        pushed = await one.delivery(lambda frame: frame.new_message.entry.client_msg_id == "m1")
        assert sorted(pushed.user_ordinals) == [alice, bob, carol]
        await service.RemoveMember(pb.RemoveMemberRequest(**who, member_id="bob"))
        removed = await one.delivery(lambda frame: frame.conversation_changed.removed)
        assert list(removed.user_ordinals) == [bob]
        sent = await service.SendMessage(pb.SendMessageRequest(**who, client_msg_id="m2", content=text("still here")))
        pushed = await one.delivery(lambda frame: frame.new_message.entry.client_msg_id == "m2")
        assert (sorted(pushed.user_ordinals), pushed.seq) == ([alice, carol], sent.seq)
        page = await service.ListMessages(pb.ListMessagesRequest(user_id="carol", conversation_id=group))
        assert page.first_available_seq > 1
        assert page.entries[-1].seq == page.last_seq == sent.seq


async def test_presence_is_remembered(mesh: Mesh, router: Instance) -> None:
    async with edge(router.grpc_address, edge_id="a") as one:
        (alice,) = await _open(one, "alice")
        watch = link_pb2.WatchUsers(watch_user_ids=["bob"])
        never = await one.ask_frame("alice", alice, watch_users=watch)
        assert not never.presence_update.presences[0].HasField("last_seen_time")
        async with edge(router.grpc_address, edge_id="b") as other:
            await _open(other, "bob")
            await one.delivery(lambda frame: any(each.state == 1 for each in frame.presence_update.presences))
        await one.delivery(lambda frame: any(each.state == 2 for each in frame.presence_update.presences))


async def test_a_stores_death_loses_and_doubles_nothing(database: Database, mesh: Mesh) -> None:
    router = await mesh.router()
    async with AsyncExitStack() as second, edge(router.grpc_address) as one:
        async with AsyncExitStack() as first:
            await database.store(first)
            alice, bob = await _open(one, "alice", "bob")
            envelopes = [
                one.envelope("alice", alice, append_entry=send(recipient_id="bob", client_msg_id=f"m{n}")) for n in range(300)
            ]
            for start in range(0, 150, 10):
                await one.batch(envelopes=envelopes[start : start + 10])
        for start in range(150, 300, 10):
            await one.batch(envelopes=envelopes[start : start + 10])
        await database.store(second)
        answers = [frame_of((await one.reply(envelope)).frame).message_stored.seq for envelope in envelopes]
        assert answers == list(range(1, 301))
        chat = direct_conversation_id("alice", "bob")
        await one.until(lambda: set(one.messages(bob, chat)) == set(range(1, 301)))

"""ConversationService: conversations in a user's name, and who hears of changes."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh import errors
from mesh.naming import direct_conversation_id
from tests.router.conftest import Mesh
from tests.router.fake_edge import edge, frame_of, is_message, text
from tidings.common.v1 import conversation_pb2 as common
from tidings.common.v1 import error_pb2
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import conversation_pb2 as pb
from tidings.router.v1.conversation_pb2_grpc import ConversationServiceStub


@pytest.fixture
async def service(router: Instance) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(router.grpc_address) as channel:
        yield ConversationServiceStub(channel)


async def _code(call: Any) -> int:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return errors.from_rpc_error(caught.value).code


def _group(**fields: Any) -> pb.CreateConversationRequest:
    given: dict[str, Any] = {
        "user_id": "alice",
        "request_id": "r1",
        "kind": common.CONVERSATION_KIND_GROUP,
        "member_ids": ["bob"],
        "name": "tea",
    }
    return pb.CreateConversationRequest(**(given | fields))


async def test_a_group_is_created_and_its_members_hear_of_it(mesh: Mesh, router: Instance, service: Any) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    async with edge(router.grpc_address, alice, bob) as one:
        made = (await service.CreateConversation(_group())).conversation
        assert [(member.user_id, member.user_ordinal) for member in made.members] == [("alice", 0), ("bob", 0)]
        entry = await one.delivery(is_message)
        assert frame_of(entry.frame).new_message.entry.membership.change == common.MEMBERSHIP_CHANGE_CREATED
        changed = await one.delivery(lambda frame: frame.HasField("conversation_changed"))
        assert sorted(changed.user_ordinals) == [alice, bob]
        assert frame_of(changed.frame).conversation_changed.conversation == made
        again = (await service.CreateConversation(_group())).conversation
        assert again.conversation_id == made.conversation_id


async def test_a_creator_who_left_teaches_the_router_nothing(mesh: Mesh, router: Instance, service: Any) -> None:
    """Who repeats the creation after leaving is shown no members; that there are some, the router must find out by itself."""
    alice, bob, carol = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob", "carol"))
    chat = mesh.memory.group("alice", "bob", "carol")
    group = chat.conversation.conversation_id
    mesh.memory.groups["alice", "r1"] = group
    del chat.conversation.members[0]
    chat.tell("alice", common.MEMBERSHIP_CHANGE_LEFT, ["alice"])
    async with edge(router.grpc_address, alice, bob, carol) as one:
        await service.CreateConversation(_group())  # the first that this router hears of the group
        sent = pb.SendMessageRequest(user_id="bob", conversation_id=group, client_msg_id="m1", content=text("hi"))
        await service.SendMessage(sent)
        message = await one.delivery(lambda frame: frame.new_message.entry.client_msg_id == "m1")
        assert sorted(message.user_ordinals) == [bob, carol]


async def test_members_come_and_go_and_everyone_concerned_is_told(mesh: Mesh, router: Instance, service: Any) -> None:
    alice, bob, carol = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob", "carol"))
    group = mesh.memory.group("alice", "bob").conversation.conversation_id
    who: dict[str, Any] = {"user_id": "alice", "conversation_id": group}
    async with edge(router.grpc_address, alice, bob, carol) as one:
        await service.PutMember(pb.PutMemberRequest(**who, member_id="carol"))
        added = await one.delivery(is_message)
        assert sorted(added.user_ordinals) == [alice, bob, carol]
        await service.RemoveMember(pb.RemoveMemberRequest(**who, member_id="bob"))
        removed = await one.delivery(lambda frame: frame.conversation_changed.removed)
        assert list(removed.user_ordinals) == [bob]
        assert frame_of(removed.frame).conversation_changed.conversation == common.Conversation(conversation_id=group)
        entry = await one.delivery(lambda frame: frame.new_message.entry.membership.change == common.MEMBERSHIP_CHANGE_REMOVED)
        assert sorted(entry.user_ordinals) == [alice, carol]
        sent = pb.SendMessageRequest(user_id="alice", conversation_id=group, client_msg_id="m1", content=text("hi"))
        assert (await service.SendMessage(sent)).seq == 4
        message = await one.delivery(lambda frame: frame.new_message.entry.client_msg_id == "m1")
        assert sorted(message.user_ordinals) == [alice, carol]
        left = await service.RemoveMember(pb.RemoveMemberRequest(user_id="carol", conversation_id=group, member_id="carol"))
        assert left.conversation == common.Conversation(conversation_id=group)
        renamed = await service.UpdateConversation(pb.UpdateConversationRequest(**who, name="coffee"))
        assert renamed.conversation.name == "coffee"


async def test_a_direct_conversation_is_opened_read_and_listed(mesh: Mesh, service: Any) -> None:
    request = pb.CreateConversationRequest(user_id="alice", kind=common.CONVERSATION_KIND_DIRECT, member_ids=["bob"])
    chat = direct_conversation_id("alice", "bob")
    assert (await service.CreateConversation(request)).conversation.conversation_id == chat
    sent = pb.SendMessageRequest(user_id="bob", conversation_id=chat, client_msg_id="m1", content=text("hi"))
    first = await service.SendMessage(sent)
    assert (first.message_id, first.seq) == (f"{chat}:1", 1)
    assert await service.SendMessage(sent) == first
    page = await service.ListMessages(pb.ListMessagesRequest(user_id="alice", conversation_id=chat))
    assert [entry.content for entry in page.entries] == [text("hi")]
    assert (page.last_seq, page.has_more) == (1, False)
    found = await service.GetConversation(pb.GetConversationRequest(user_id="alice", conversation_id=chat))
    assert found.conversation.last_seq == 1
    listed = await service.ListConversations(pb.ListConversationsRequest(user_id="alice"))
    assert [each.conversation_id for each in listed.conversations] == [chat]
    assert all(member.user_ordinal == 0 for each in listed.conversations for member in each.members)


async def test_what_is_wrong_is_named(mesh: Mesh, service: Any) -> None:
    group = mesh.memory.group("alice", "bob").conversation.conversation_id
    direct = common.CONVERSATION_KIND_DIRECT
    outside: dict[str, Any] = {"user_id": "mallory", "conversation_id": group}
    wrong = [
        (service.CreateConversation(_group(name="")), error_pb2.ERROR_CODE_INVALID_FIELD),
        (service.CreateConversation(_group(name="x" * 129)), error_pb2.ERROR_CODE_INVALID_FIELD),
        (service.CreateConversation(_group(request_id="")), error_pb2.ERROR_CODE_INVALID_FIELD),
        (service.CreateConversation(_group(member_ids=["b b"])), error_pb2.ERROR_CODE_INVALID_FIELD),
        (service.CreateConversation(_group(kind=0)), error_pb2.ERROR_CODE_INVALID_FIELD),
        (service.CreateConversation(_group(user_id="")), error_pb2.ERROR_CODE_INVALID_FIELD),
        (service.CreateConversation(_group(kind=direct, member_ids=["alice"])), error_pb2.ERROR_CODE_INVALID_RECIPIENT),
        (service.CreateConversation(_group(kind=direct, member_ids=[])), error_pb2.ERROR_CODE_INVALID_FIELD),
        (service.GetConversation(pb.GetConversationRequest(**outside)), error_pb2.ERROR_CODE_NOT_A_MEMBER),
        (
            service.GetConversation(pb.GetConversationRequest(user_id="a", conversation_id="?")),
            error_pb2.ERROR_CODE_INVALID_CHAT_ID,
        ),
        (
            service.GetConversation(pb.GetConversationRequest(user_id="a", conversation_id="g" + "a" * 26)),
            error_pb2.ERROR_CODE_INVALID_CHAT_ID,
        ),
        (service.ListMessages(pb.ListMessagesRequest(**outside)), error_pb2.ERROR_CODE_NOT_A_MEMBER),
        (service.ListMessages(pb.ListMessagesRequest(**outside, page_size=1001)), error_pb2.ERROR_CODE_INVALID_FIELD),
        (
            service.SendMessage(pb.SendMessageRequest(**outside, client_msg_id="m", content=text("x"))),
            error_pb2.ERROR_CODE_NOT_A_MEMBER,
        ),
        (service.SendMessage(pb.SendMessageRequest(**outside, client_msg_id="m")), error_pb2.ERROR_CODE_INVALID_FIELD),
        (service.SendMessage(pb.SendMessageRequest(**outside, content=text("x"))), error_pb2.ERROR_CODE_INVALID_FIELD),
    ]
    for call, code in wrong:
        assert await _code(call) == code

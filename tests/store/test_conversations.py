"""What ConversationService promises, on both engines, over gRPC."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from tests.store.client import StoreClient, reason
from tidings.common.v1 import conversation_pb2 as common
from tidings.store.v1 import conversation_pb2 as pb


def roles(conversation: common.Conversation) -> dict[str, str]:
    """Members' roles by user id."""
    return {member.user_id: common.Role.Name(member.role).removeprefix("ROLE_") for member in conversation.members}


async def refused(call: object) -> str:
    """The reason of a refusal."""
    with pytest.raises(grpc.RpcError) as caught:
        await call  # type: ignore[misc]
    return reason(caught.value)


async def test_direct_is_one_per_pair_whoever_races(store: StoreClient) -> None:
    pairs = [("alice", "bob"), ("bob", "alice")] * 10
    ids = await asyncio.gather(*(store.direct(*pair) for pair in pairs))
    assert len(set(ids)) == 1
    chat = await store.conversation(ids[0])
    assert chat.kind == common.CONVERSATION_KIND_DIRECT
    assert roles(chat) == {"alice": "MEMBER", "bob": "MEMBER"}
    assert (chat.last_seq, chat.retained_from_seq, chat.membership_version) == (0, 1, 1)
    assert {member.visible_from_seq for member in chat.members} == {1}
    assert chat.retention.kind == common.RETENTION_KIND_FOREVER


async def test_direct_in_a_batch_is_answered_in_order(store: StoreClient) -> None:
    pairs = [pb.DirectPair(first_user_id="hub", second_user_id=f"u{n}") for n in range(50)]
    response = await store.conversations.EnsureDirect(pb.EnsureDirectRequest(pairs=[*pairs, pairs[0]]))
    assert [sorted(roles(chat))[1] for chat in response.conversations] == [f"u{n}" for n in [*range(50), 0]]


@pytest.mark.parametrize(
    ("one", "other", "expected"), [("a", "a", "INVALID_RECIPIENT"), ("a", "b c", "INVALID_FIELD"), ("", "b", "INVALID_FIELD")]
)
async def test_direct_refuses_what_is_no_pair(store: StoreClient, one: str, other: str, expected: str) -> None:
    assert await refused(store.direct(one, other)) == expected


async def test_a_group_begins_with_its_creation(store: StoreClient) -> None:
    request = pb.CreateGroupRequest(actor_id="alice", request_id="r", name="Böt 🚣", member_ids=["bob", "carol", "bob", "alice"])
    response = await store.conversations.CreateGroup(request)
    group = response.conversation
    assert roles(group) == {"alice": "OWNER", "bob": "MEMBER", "carol": "MEMBER"}
    assert (group.name, group.last_seq, group.membership_version) == ("Böt 🚣", 1, 1)
    assert response.entry.seq == 1
    assert response.entry.sender_id == "alice"
    assert list(response.entry.membership.user_ids) == ["alice", "bob", "carol"]
    assert response.entry.membership.change == common.MEMBERSHIP_CHANGE_CREATED
    assert response.entry.membership.name == "Böt 🚣"
    assert await store.entries(group.conversation_id, await store.ordinal("bob")) == [response.entry]


async def test_creating_again_gives_the_same_group(store: StoreClient) -> None:
    request = pb.CreateGroupRequest(actor_id="alice", request_id="r", name="g", member_ids=["bob"])
    responses = await asyncio.gather(*(store.conversations.CreateGroup(request) for _ in range(5)))
    assert len({response.conversation.conversation_id for response in responses}) == 1
    assert len({response.entry.SerializeToString(deterministic=True) for response in responses}) == 1
    request.name = "other"
    assert await refused(store.conversations.CreateGroup(request)) == "REQUEST_ID_CONFLICT"
    request.actor_id = "bob"
    other = await store.conversations.CreateGroup(request)
    assert other.conversation.conversation_id != responses[0].conversation.conversation_id


async def test_a_group_has_at_most_5000_members(store: StoreClient) -> None:
    others = [f"u{n}" for n in range(5_000)]
    request = pb.CreateGroupRequest(actor_id="alice", request_id="r", name="g", member_ids=others)
    assert await refused(store.conversations.CreateGroup(request)) == "GROUP_TOO_LARGE"
    request.member_ids[:] = others[:-1]
    group = (await store.conversations.CreateGroup(request)).conversation
    assert len(group.members) == 5_000
    assert await refused(store.put("alice", group.conversation_id, "one-more")) == "GROUP_TOO_LARGE"


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateGroupRequest(actor_id="a", request_id="r", name=""),
        pb.CreateGroupRequest(actor_id="a", request_id="r", name="x" * 129),
        pb.CreateGroupRequest(actor_id="a", request_id="r", name="nul\0"),
        pb.CreateGroupRequest(actor_id="a", request_id="", name="g"),
        pb.CreateGroupRequest(actor_id="", request_id="r", name="g"),
        pb.CreateGroupRequest(actor_id="a", request_id="r", name="g", member_ids=["no spaces"]),
        pb.CreateGroupRequest(
            actor_id="a", request_id="r", name="g", retention=common.Retention(kind=common.RETENTION_KIND_FOR_TIME)
        ),
    ],
)
async def test_a_malformed_group_is_refused(store: StoreClient, request_: pb.CreateGroupRequest) -> None:
    assert await refused(store.conversations.CreateGroup(request_)) == "INVALID_FIELD"


async def test_who_joins_sees_from_the_entry_that_says_so(store: StoreClient) -> None:
    alice, dave = await store.ordinals("alice", "dave")
    group = (await store.group("alice", "bob")).conversation_id
    await store.say(group, alice, "before")
    response = await store.put("alice", group, "dave")
    await store.say(group, alice, "after")
    assert response.entry.seq == 3
    assert response.entry.membership.change == common.MEMBERSHIP_CHANGE_ADDED
    assert list(response.entry.membership.user_ids) == ["dave"]
    [member] = [member for member in response.conversation.members if member.user_id == "dave"]
    assert (member.visible_from_seq, member.delivered_seq, member.read_seq) == (3, 2, 2)
    assert [entry.seq for entry in await store.entries(group, dave)] == [3, 4]


async def test_who_left_reads_nothing_and_may_come_back(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    group = (await store.group("alice", "bob")).conversation_id
    await store.say(group, alice, "while bob was here")
    response = await store.remove("bob", group, "bob")
    assert response.removed_user_ordinal == bob
    assert response.entry.membership.change == common.MEMBERSHIP_CHANGE_LEFT
    assert roles(response.conversation) == {"alice": "OWNER"}
    assert await refused(store.entries(group, bob)) == "NOT_A_MEMBER"
    await store.say(group, alice, "while bob was away")
    back = await store.put("alice", group, "bob")
    assert [entry.seq for entry in await store.entries(group, bob)] == [back.entry.seq]


async def test_who_may_do_what(store: StoreClient) -> None:
    group = (await store.group("owner", "admin", "member", "other")).conversation_id
    promoted = await store.put("owner", group, "admin", common.ROLE_ADMIN)
    assert promoted.entry.membership.change == common.MEMBERSHIP_CHANGE_ROLE_CHANGED
    assert promoted.entry.membership.role == common.ROLE_ADMIN
    assert await refused(store.put("member", group, "new")) == "PERMISSION_DENIED"
    assert await refused(store.put("admin", group, "new", common.ROLE_ADMIN)) == "PERMISSION_DENIED"
    assert await refused(store.put("admin", group, "member", common.ROLE_ADMIN)) == "PERMISSION_DENIED"
    assert await refused(store.put("stranger", group, "new")) == "NOT_A_MEMBER"
    assert await refused(store.remove("member", group, "other")) == "PERMISSION_DENIED"
    assert await refused(store.remove("admin", group, "owner")) == "PERMISSION_DENIED"
    assert (await store.put("admin", group, "new")).entry.seq
    assert (await store.remove("admin", group, "other")).entry.membership.change == common.MEMBERSHIP_CHANGE_REMOVED
    assert (await store.remove("owner", group, "admin")).entry.seq
    assert roles(await store.conversation(group)) == {"owner": "OWNER", "member": "MEMBER", "new": "MEMBER"}


async def test_a_group_keeps_an_owner(store: StoreClient) -> None:
    group = (await store.group("alice", "bob")).conversation_id
    assert await refused(store.remove("alice", group, "alice")) == "LAST_OWNER"
    assert await refused(store.put("alice", group, "alice", common.ROLE_MEMBER)) == "LAST_OWNER"
    await store.put("alice", group, "bob", common.ROLE_OWNER)
    await store.remove("alice", group, "alice")
    await store.remove("bob", group, "bob")
    assert roles(await store.conversation(group)) == {}


async def test_what_changes_nothing_has_no_entry(store: StoreClient) -> None:
    group = await store.group("alice", "bob")
    where = group.conversation_id
    assert not (await store.put("alice", where, "bob")).HasField("entry")
    assert not (await store.put("alice", where, "bob", common.ROLE_MEMBER)).HasField("entry")
    gone = await store.remove("alice", where, "nobody")
    assert not gone.HasField("entry")
    assert gone.removed_user_ordinal == 0
    stranger = await store.remove("stranger", where, "stranger")
    assert not stranger.HasField("entry")
    assert (len(stranger.conversation.members), stranger.conversation.name) == (0, "")
    assert (await store.conversation(where)).membership_version == group.membership_version


async def test_direct_conversations_have_two_members_for_ever(store: StoreClient) -> None:
    chat = await store.direct("alice", "bob")
    assert await refused(store.put("alice", chat, "carol")) == "WRONG_CONVERSATION_KIND"
    assert await refused(store.remove("alice", chat, "alice")) == "WRONG_CONVERSATION_KIND"
    assert await refused(store.remove("alice", chat, "bob")) == "WRONG_CONVERSATION_KIND"
    rename = pb.UpdateConversationRequest(actor_id="alice", conversation_id=chat, name="us")
    assert await refused(store.conversations.UpdateConversation(rename)) == "WRONG_CONVERSATION_KIND"


async def test_renaming(store: StoreClient) -> None:
    group = await store.group("alice", "bob", name="old")
    rename = pb.UpdateConversationRequest(actor_id="alice", conversation_id=group.conversation_id, name="new")
    response = await store.conversations.UpdateConversation(rename)
    assert response.conversation.name == response.entry.membership.name == "new"
    assert response.entry.membership.change == common.MEMBERSHIP_CHANGE_RENAMED
    assert response.conversation.membership_version == group.membership_version + 1
    again = await store.conversations.UpdateConversation(rename)
    assert not again.HasField("entry")
    rename.actor_id, rename.name = "bob", "mine"
    assert await refused(store.conversations.UpdateConversation(rename)) == "PERMISSION_DENIED"


async def test_changing_what_is_kept(store: StoreClient) -> None:
    chat = await store.direct("alice", "bob")
    request = pb.UpdateConversationRequest(actor_id="bob", conversation_id=chat)
    request.retention.kind = common.RETENTION_KIND_FOR_TIME
    request.retention.keep.FromTimedelta(timedelta(days=1))
    response = await store.conversations.UpdateConversation(request)
    assert response.conversation.retention == request.retention
    assert not response.HasField("entry")
    request.actor_id = "mallory"
    assert await refused(store.conversations.UpdateConversation(request)) == "NOT_A_MEMBER"
    nothing = pb.UpdateConversationRequest(actor_id="mallory", conversation_id=chat)
    assert await refused(store.conversations.UpdateConversation(nothing)) == "NOT_A_MEMBER"
    nothing.conversation_id = "g" + "a" * 26
    assert await refused(store.conversations.UpdateConversation(nothing)) == "INVALID_CHAT_ID"


async def test_conversations_that_do_not_exist_are_left_out(store: StoreClient) -> None:
    chat = await store.direct("alice", "bob")
    request = pb.GetConversationsRequest(conversation_ids=["g" + "a" * 26, chat, "nonsense\0", chat])
    found = (await store.conversations.GetConversations(request)).conversations
    assert [conversation.conversation_id for conversation in found] == [chat]


async def test_listing_is_by_activity_and_stable_while_paged(store: StoreClient) -> None:
    alice = await store.ordinal("alice")
    chats = [await store.direct("alice", f"u{n}") for n in range(7)]
    for chat in chats[1:]:
        await store.say(chat, alice, "hello")
    expected = [*reversed(chats[1:]), chats[0]]
    seen: list[str] = []
    request = pb.ListConversationsRequest(user_id="alice", page_size=2)
    while True:
        page = await store.conversations.ListConversations(request)
        seen += [conversation.conversation_id for conversation in page.conversations]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        await store.say(expected[-2], alice, "moves to the top")
        await store.say(seen[0], alice, "is there already")
        await store.direct("alice", f"new{len(seen)}")
    assert seen == expected
    request.page_token = ""
    request.page_size = 100
    everything = await store.conversations.ListConversations(request)
    assert len(everything.conversations) == 7 + 3
    assert everything.next_page_token == ""
    assert roles(everything.conversations[0])


async def test_listing_for_nobody_and_by_nonsense(store: StoreClient) -> None:
    nobody = pb.ListConversationsRequest(user_id="nobody", page_size=10)
    assert not (await store.conversations.ListConversations(nobody)).conversations
    nobody.page_token = "nonsense"
    assert await refused(store.conversations.ListConversations(nobody)) == "INVALID_FIELD"
    assert await refused(store.conversations.ListConversations(pb.ListConversationsRequest(user_id="a"))) == "INVALID_FIELD"


async def test_changes_at_once_tell_of_each(store: StoreClient) -> None:
    group = (await store.group("alice")).conversation_id
    await asyncio.gather(*(store.put("alice", group, f"u{n}") for n in range(20)))
    conversation = await store.conversation(group)
    assert len(conversation.members) == 21
    assert conversation.last_seq == conversation.membership_version == 21
    assert [entry.seq for entry in await store.entries(group)] == list(range(1, 22))

"""What a word on the command line names."""

import pytest

from cli.failure import CommandError
from cli.where import direct, pick
from mesh import naming
from tidings.common.v1 import conversation_pb2
from tidings.common.v1.conversation_pb2 import Conversation, Member

TEAM, OTHER_TEAM = naming.new_group_id(), naming.new_group_id()


def group(conversation_id: str, name: str) -> Conversation:
    return Conversation(conversation_id=conversation_id, kind=conversation_pb2.CONVERSATION_KIND_GROUP, name=name)


def talked_with(user: str) -> Conversation:
    members = [Member(user_id="alice"), Member(user_id=user)]
    made = naming.direct_conversation_id("alice", user)
    return Conversation(conversation_id=made, kind=conversation_pb2.CONVERSATION_KIND_DIRECT, members=members)


def test_a_name_is_the_group_one_has() -> None:
    assert pick("alice", "team", [group(TEAM, "team"), talked_with("bob")]).conversation_id == TEAM


def test_a_name_is_a_user_when_there_is_no_such_group() -> None:
    found = pick("alice", "bob", [group(TEAM, "team")])
    assert (found.conversation_id, found.other) == (naming.direct_conversation_id("alice", "bob"), "bob")


def test_a_user_one_talks_with_is_not_shadowed_by_a_group() -> None:
    with pytest.raises(CommandError, match="user:bob or group:bob"):
        pick("alice", "bob", [group(TEAM, "bob"), talked_with("bob")])
    assert pick("alice", "group:bob", [group(TEAM, "bob"), talked_with("bob")]).conversation_id == TEAM


def test_two_groups_of_one_name_are_told_apart_by_id() -> None:
    with pytest.raises(CommandError, match=TEAM):
        pick("alice", "team", [group(TEAM, "team"), group(OTHER_TEAM, "team")])


@pytest.mark.parametrize("word", ["group:nobody", "no such team"])
def test_an_unknown_group(word: str) -> None:
    with pytest.raises(CommandError, match="group list"):
        pick("alice", word, [])


@pytest.mark.parametrize(("word", "said"), [("alice", "themselves"), ("a b", "not a user id"), ("", "not a user id")])
def test_no_such_other(word: str, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        direct("alice", word)

"""Log entries as text and as JSON."""

import json
from datetime import UTC, datetime

import pytest

from cli.lines import plain, role, to_json, to_line, to_text, utc
from tidings.common.v1 import conversation_pb2
from tidings.common.v1.content_pb2 import Content, Custom, Text
from tidings.common.v1.conversation_pb2 import Deletion, Edit, LogEntry, MembershipEvent
from tidings_client.model import message_of

CHAT = "g" + "a" * 26
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HELLO = Content(text=Text(text="hello"))


def entry(**body: object) -> LogEntry:
    made = LogEntry(conversation_id=CHAT, seq=7, message_id=f"{CHAT}:7", sender_id="alice", client_msg_id="k", **body)  # type: ignore[arg-type]
    made.store_time.FromDatetime(NOW)
    return made


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"content": HELLO}, "hello"),
        ({"content": Content(custom=Custom(type="acme.location/1", data=b"abc"))}, "(acme.location/1, 3 bytes)"),
        ({"content": Content()}, "(withdrawn)"),
        ({"edit": Edit(target_seq=3, content=HELLO)}, "(of 3 now) hello"),
        ({"deletion": Deletion(target_seq=3)}, "(withdrew 3)"),
        ({}, "(something newer than this program)"),
        (
            {"membership": MembershipEvent(change=conversation_pb2.MEMBERSHIP_CHANGE_CREATED, user_ids=["bob"], name="team")},
            "(created the group team with bob)",
        ),
        (
            {"membership": MembershipEvent(change=conversation_pb2.MEMBERSHIP_CHANGE_ADDED, user_ids=["bob", "eve"])},
            "(added bob, eve)",
        ),
        ({"membership": MembershipEvent(change=conversation_pb2.MEMBERSHIP_CHANGE_LEFT)}, "(left)"),
        (
            {
                "membership": MembershipEvent(
                    change=conversation_pb2.MEMBERSHIP_CHANGE_ROLE_CHANGED, user_ids=["bob"], role=conversation_pb2.ROLE_ADMIN
                )
            },
            "(made bob admin)",
        ),
    ],
)
def test_text(body: dict[str, object], text: str) -> None:
    assert to_text(message_of(entry(**body))) == text


def test_line_has_when_where_who_and_what() -> None:
    line = to_line(message_of(entry(content=HELLO)), NOW, "team")
    assert line.endswith(" [team] alice: hello")


def test_json_of_a_message() -> None:
    assert to_json(message_of(entry(content=HELLO))) == {
        "conversation_id": CHAT,
        "seq": 7,
        "message_id": f"{CHAT}:7",
        "sender_id": "alice",
        "client_msg_id": "k",
        "time": "2026-11-21T12:00:00.000Z",
        "kind": "message",
        "text": "hello",
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"edit": Edit(target_seq=3, content=HELLO)}, {"kind": "edit", "target_seq": 3, "text": "hello"}),
        ({"deletion": Deletion(target_seq=3)}, {"kind": "deletion", "target_seq": 3}),
        ({"content": Content()}, {"kind": "message", "deleted": True}),
        ({"content": Content(custom=Custom(type="t", data=b"abc"))}, {"kind": "message", "type": "t", "data": "YWJj"}),
        ({}, {"kind": "unknown"}),
    ],
)
def test_json_of_other_kinds(body: dict[str, object], expected: dict[str, object]) -> None:
    found = to_json(message_of(entry(**body)))
    assert expected.items() <= found.items()
    json.dumps(found)


def test_json_of_a_membership_event() -> None:
    event = MembershipEvent(change=conversation_pb2.MEMBERSHIP_CHANGE_REMOVED, user_ids=["bob"])
    found = to_json(message_of(entry(membership=event)))
    assert found["membership"] == {"change": "removed", "user_ids": ["bob"], "name": "", "role": ""}


def test_roles_and_times() -> None:
    assert [role(number) for number in (0, 1, 2, 3, 99)] == ["", "owner", "admin", "member", ""]
    assert utc(NOW) == "2026-11-21T12:00:00.000Z"


def test_plain_text_has_no_control_character() -> None:
    assert plain("a\x1b[31m\nb\x9b") == "a\N{REPLACEMENT CHARACTER}[31m b\N{REPLACEMENT CHARACTER}"

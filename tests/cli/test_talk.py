"""What a conversation shows, without a terminal."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cli.talk import Line, Talk
from tidings.common.v1.content_pb2 import Content, Text
from tidings_client import ConnectionState, Kind, Message, PresenceEvent, Status

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CHAT = "d" + "a" * 26


def message(seq: int, text: str = "hi", sender: str = "bob", key: str = "") -> Message:
    return Message(
        conversation_id=CHAT,
        seq=seq,
        message_id=f"{CHAT}:{seq}",
        sender_id=sender,
        client_msg_id=key or f"{sender}-{seq}",
        time=NOW,
        kind=Kind.MESSAGE,
        content=Content(text=Text(text=text)),
    )


def talk() -> Talk:
    return Talk("alice", "bob", CHAT)


def test_ticks_grow_from_sending_to_read() -> None:
    one = talk()
    line = one.on_typed("hello", "k1", NOW)
    ticks = [line.tick]
    for status in (Status.SENT, Status.DELIVERED, Status.READ):
        assert one.on_status("k1", status, 1) is line
        ticks.append(line.tick)
    assert ticks == ["·", "✓", "✓✓", "✓✓"]


def test_a_late_status_changes_nothing() -> None:
    one = talk()
    one.on_typed("hello", "k1", NOW)
    one.on_status("k1", Status.READ, 1)
    assert one.on_status("k1", Status.DELIVERED, 1) is None
    assert one.on_status("unknown", Status.READ, 1) is None


def test_a_refused_message_says_why() -> None:
    one = talk()
    one.on_typed("hello", "k1", NOW)
    line = one.on_status("k1", Status.FAILED, error="NOT_A_MEMBER")
    assert line is not None
    assert (line.tick, line.error) == ("✗", "NOT_A_MEMBER")
    assert line.settled


def test_own_message_is_shown_once() -> None:
    one = talk()
    one.on_typed("hello", "k1", NOW)
    assert one.on_message(message(1, "hello", "alice", "k1"), NOW) is None
    assert [line.text for line in one.live] == ["hello"]
    assert one.last_own_seq == 1


def test_own_message_from_another_device_is_shown_as_sent() -> None:
    line = talk().on_message(message(1, "hello", "alice", "other"), NOW)
    assert line is not None
    assert line.status is Status.SENT


def test_a_repeat_and_another_conversation_are_not_shown() -> None:
    one = talk()
    assert one.on_message(message(2), NOW) is not None
    assert one.on_message(message(2), NOW) is None
    assert one.on_message(message(1), NOW) is None
    other = message(3)
    assert Talk("alice", "carol", "d" + "b" * 26).on_message(other, NOW) is None


def test_a_message_ends_typing() -> None:
    one = talk()
    assert one.on_typing("bob", True)
    assert not one.on_typing("bob", True)
    one.state = ConnectionState.CAUGHT_UP
    assert "bob is typing…" in one.describe(NOW)
    one.on_message(message(1), NOW)
    assert "typing" not in one.describe(NOW)


def test_description_of_presence_and_connection() -> None:
    one = talk()
    one.on_typed("hello", "k1", NOW)
    assert "not connected" in one.describe(NOW)
    assert "1 not sent yet" in one.describe(NOW)
    one.state = ConnectionState.CAUGHT_UP
    assert one.on_presence(PresenceEvent("bob", True, None))
    assert not one.on_presence(PresenceEvent("bob", True, None))
    assert "online" in one.describe(NOW)
    one.on_presence(PresenceEvent("bob", False, NOW - timedelta(minutes=1)))
    assert "last seen" in one.describe(NOW)
    one.on_presence(PresenceEvent("carol", True, None))
    assert "1 of 2 others online" in one.describe(NOW)


def test_someone_elses_text_cannot_command_the_terminal() -> None:
    line = talk().on_message(message(1, "a\x1b[2Jb\nc\u202ed"), NOW)
    assert line is not None
    assert line.text.isprintable()


@given(st.lists(st.sampled_from([None, Status.SENDING, Status.SENT, Status.READ, Status.FAILED]), max_size=30), st.integers(0, 10))
def test_settle_keeps_order_loses_nothing_and_keeps_to_the_room(statuses: list[Status | None], room: int) -> None:
    one = talk()
    one.live = [Line("x", str(number), "", str(number), status) for number, status in enumerate(statuses)]
    gone = one.settle(room)
    assert [line.text for line in (*gone, *one.live)] == [str(number) for number in range(len(statuses))]
    assert len(one.live) <= room
    assert not one.live or not one.live[0].settled

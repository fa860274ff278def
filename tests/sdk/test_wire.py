"""Messages over real sockets against a server that misbehaves on command."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sdk.conftest import TIMEOUT, take, until, until_state
from tests.sdk.fake_server import FakeServer, Session, refusal
from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame, TypingIndicator
from tidings.common.v1 import error_pb2
from tidings.common.v1.conversation_pb2 import LogEntry
from tidings_client import (
    Client,
    ConnectionEvent,
    ConnectionState,
    HistoryGapEvent,
    Kind,
    Message,
    ReceiptEvent,
    SendFailed,
    Status,
    StatusEvent,
    TypingEvent,
)


def texts(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


def send_count(server: FakeServer) -> int:
    return server.counts["send_message"]


async def test_two_people_chat(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice, Client(server.url, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        sent = alice.send("bob", "hello")
        assert sent.status is Status.SENDING
        stored = await sent.stored()
        assert (stored.seq, stored.text) == (1, "hello")
        [received] = await take(bob, 1)
        assert (received.text, received.sender_id, received.message_id) == ("hello", "alice", stored.message_id)
        [own] = await take(alice, 1)
        assert own.message_id == stored.message_id


async def test_statuses_go_from_sending_to_read(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice, Client(server.url, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        events = alice.events()
        sent = alice.send("bob", "hello")
        [received] = await take(bob, 1)
        bob.mark_read("alice", received.seq)
        seen: list[Status] = []
        while Status.READ not in seen:
            event = await until(events, lambda event: isinstance(event, StatusEvent))
            assert isinstance(event, StatusEvent)
            seen.append(event.status)
        assert seen == sorted(seen)
        assert seen[0] is Status.SENT
        assert sent.status is Status.READ
        [kept] = await alice.history("bob")
        assert kept.status is Status.READ


async def test_receipts_missed_while_away_are_asked_for(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice:
        await alice.caught_up()
        sent = alice.send("bob", "hello")
        stored = await sent.stored()
        events = alice.events()
        server.cut()
        server.marks[stored.conversation_id]["bob"] = [1, 1]
        await until(events, lambda event: isinstance(event, StatusEvent) and event.status is Status.READ)


async def test_in_a_group_delivered_means_by_everybody(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice, Client(server.url, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        group = await alice.create_group("friends", ["bob", "carol"])
        events = alice.events()
        sent = alice.send(group.conversation_id, "hello")
        stored = await sent.stored()
        await until(events, lambda event: isinstance(event, ReceiptEvent) and event.delivered_seq == stored.seq)
        assert sent.status is Status.SENT
        async with Client(server.url, "carol"):
            await until(events, lambda event: isinstance(event, StatusEvent) and event.status is Status.DELIVERED)
        assert [one.text for one in await take(bob, 2)] == ["", "hello"]


async def test_resume_brings_what_was_missed_once(server: FakeServer) -> None:
    async with Client(server.url, "bob") as bob:
        await bob.caught_up()
        room = server.log.direct("alice", "bob")
        for number in range(3):
            server.say("alice", room, f"live {number}")
        assert len(await take(bob, 3)) == 3
        await server.until(lambda: server.log.cursors["bob", bob.device_id].get(room.conversation.conversation_id) == 3)
        server.connect_status = server.websocket_status = 503
        server.cut()
        await until_state(bob, ConnectionState.CONNECTING)
        for number in range(120):
            server.say("alice", room, f"missed {number}")
        server.connect_status = server.websocket_status = 0
        missed = await take(bob, 120)
        assert [message.seq for message in missed] == list(range(4, 124))
        assert server.hellos[-1].resume[0].seq == 3


async def test_a_lost_answer_makes_no_duplicate(server: FakeServer) -> None:
    server.drop_stored = 1
    async with Client(server.url, "alice") as alice:
        await alice.caught_up()
        sent = alice.send("bob", "once")
        await server.until(lambda: send_count(server) == 1)
        server.cut()
        assert (await sent.stored()).seq == 1
        assert texts(await take(alice, 1)) == ["once"]
    assert [entry.content.text.text for entry in server.log.direct("alice", "bob").entries.values()] == ["once"]


async def test_the_log_tells_that_a_message_is_stored_when_no_answer_does(server: FakeServer) -> None:
    server.drop_stored = 1
    async with Client(server.url, "alice") as alice:
        await alice.caught_up()
        sent = alice.send("bob", "once")
        await server.until(lambda: send_count(server) == 1)
        server.silence = lambda frame: frame.HasField("send_message")
        server.cut()
        async with asyncio.timeout(TIMEOUT):
            assert (await sent.stored()).seq == 1
        assert alice.outgoing() == []


async def test_order_is_kept_after_rate_limited(server: FakeServer) -> None:
    refused = 0

    def refuse_some(frame: ClientFrame) -> error_pb2.Error | None:
        nonlocal refused
        if frame.send_message.content.text.text == "2" and refused < 2:
            refused += 1
            return refusal(error_pb2.ERROR_CODE_RATE_LIMITED, 0.05)
        return None

    server.refuse = refuse_some
    async with Client(server.url, "alice") as alice:
        await alice.caught_up()
        sent = [alice.send("bob", str(number)) for number in range(5)]
        other = alice.send("carol", "not held up")
        stored = await asyncio.gather(*(one.stored() for one in sent), other.stored())
    assert refused == 2
    assert [message.seq for message in stored] == [1, 2, 3, 4, 5, 1]
    entries = server.log.direct("alice", "bob").entries.values()
    assert [entry.content.text.text for entry in entries] == ["0", "1", "2", "3", "4"]


async def test_a_final_refusal_fails_the_message_and_no_other(server: FakeServer) -> None:
    too_large = refusal(error_pb2.ERROR_CODE_CONTENT_TOO_LARGE)
    server.refuse = lambda frame: too_large if frame.send_message.content.text.text == "big" else None
    async with Client(server.url, "alice") as alice:
        await alice.caught_up()
        bad, good = alice.send("bob", "big"), alice.send("bob", "fine")
        with pytest.raises(SendFailed, match="CONTENT_TOO_LARGE") as failure:
            await bad.stored()
        assert failure.value.client_msg_id == bad.client_msg_id
        assert bad.status is Status.FAILED
        assert (await good.stored()).seq == 1
        assert alice.outgoing() == [bad]
        server.refuse = lambda frame: None
        again = alice.send("bob", "smaller", client_msg_id=bad.client_msg_id)
        assert (await again.stored()).seq == 2
        assert alice.outgoing() == []


async def test_a_frame_larger_than_the_server_takes_fails_here(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice:
        await alice.caught_up()
        with pytest.raises(SendFailed, match="at most"):
            await alice.send("bob", "x" * 70_000).stored()
        assert (await alice.send("bob", "small").stored()).seq == 1


async def test_a_live_entry_that_got_lost_is_fetched(server: FakeServer) -> None:
    def hide(entry: LogEntry, session: Session) -> bool:
        return entry.seq in (2, 3)

    server.hide = hide
    async with Client(server.url, "bob") as bob:
        await bob.caught_up()
        room = server.log.direct("alice", "bob")
        for number in range(1, 5):
            server.say("alice", room, str(number))
        assert texts(await take(bob, 4)) == ["1", "2", "3", "4"]
    [fetch] = [frame.fetch_messages for frame in server.received if frame.HasField("fetch_messages")]
    assert (fetch.after_seq, fetch.limit) == (1, 2)


async def test_own_message_stored_behind_a_lost_one_waits_its_turn(server: FakeServer) -> None:
    server.hide = lambda entry, session: session.user_id == "bob" and entry.sender_id == "alice"
    async with Client(server.url, "bob") as bob:
        await bob.caught_up()
        server.say("alice", server.log.direct("alice", "bob"), "from alice")
        assert (await bob.send("alice", "from bob").stored()).seq == 2
        assert texts(await take(bob, 2)) == ["from alice", "from bob"]


async def test_what_was_swept_is_told_as_a_gap(server: FakeServer) -> None:
    room = server.log.direct("alice", "bob")
    server.say("alice", room, "1")
    async with Client(server.url, "bob") as bob:
        await take(bob, 1)
        await server.until(lambda: bool(server.log.cursors["bob", bob.device_id]))
        events = bob.events()
        server.connect_status = server.websocket_status = 503
        server.cut()
        await until_state(bob, ConnectionState.CONNECTING)
        for number in range(2, 10):
            server.say("alice", room, str(number))
        server.log.retain_from(room, 8)
        server.connect_status = server.websocket_status = 0
        gap = await until(events, lambda event: isinstance(event, HistoryGapEvent))
        assert gap == HistoryGapEvent(room.conversation.conversation_id, 2, 7, 8)
        assert texts(await take(bob, 2)) == ["8", "9"]


async def test_another_device_of_mine_sees_what_i_send(server: FakeServer) -> None:
    async with Client(server.url, "alice") as phone, Client(server.url, "alice") as laptop:
        await phone.caught_up()
        await laptop.caught_up()
        await phone.send("bob", "from the phone").stored()
        [seen] = await take(laptop, 1)
        assert (seen.text, seen.sender_id) == ("from the phone", "alice")


async def test_edits_and_deletions_change_history_and_are_entries_of_messages(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice, Client(server.url, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        first = await alice.send("bob", "helo").stored()
        second = await alice.send("bob", "oops").stored()
        assert (await alice.edit("bob", first.seq, "hello")).kind is Kind.EDIT
        assert (await alice.delete("bob", second.seq)).target_seq == second.seq
        entries = await take(bob, 4)
        assert [(entry.kind, entry.target_seq) for entry in entries[2:]] == [(Kind.EDIT, 1), (Kind.DELETION, 2)]
        for client in (alice, bob):
            now = await client.history(first.conversation_id)
            assert [(message.text, message.edited, message.deleted) for message in now] == [
                ("hello", True, False),
                ("", False, True),
            ]
            raw = await client.history(first.conversation_id, raw=True)
            assert [message.kind for message in raw] == [Kind.MESSAGE, Kind.MESSAGE, Kind.EDIT, Kind.DELETION]


async def test_typing_is_told_once_per_burst(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice, Client(server.url, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        events = bob.events()
        for _ in range(5):
            alice.typing("bob")
        alice.typing("bob", False)
        first = await until(events, lambda event: isinstance(event, TypingEvent))
        last = await until(events, lambda event: isinstance(event, TypingEvent))
        name = alice.conversation_id("bob")
        assert (first, last) == (TypingEvent(name, "alice", True), TypingEvent(name, "alice", False))
        assert server.counts["start_typing"] == 1


async def test_each_event_is_told_once(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice:
        await alice.caught_up()
        events, told = alice.events(), []
        for number in range(5):
            typing = TypingIndicator(conversation_id=str(number), user_id="bob", typing=True)
            server.tell(ServerFrame(typing_indicator=typing))
            told.append(await until(events, lambda event: isinstance(event, TypingEvent)))
        server.cut()
        await until(events, lambda event: told.append(event) or isinstance(event, ConnectionEvent))  # type: ignore[func-returns-value]
    assert [event.conversation_id for event in told if isinstance(event, TypingEvent)] == ["0", "1", "2", "3", "4"]


async def test_presence_is_watched_over_reconnects(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice:
        await alice.caught_up()
        [bob] = await alice.watch_presence(["bob"])
        assert not bob.online
        server.cut()
        await server.until(lambda: server.counts["watch_presence"] == 2)


async def test_conversations_are_listed_over_pages_and_members_added(server: FakeServer) -> None:
    async with Client(server.url, "alice") as alice, Client(server.url, "dave") as dave:
        await alice.caught_up()
        await dave.caught_up()
        groups = [await alice.create_group(f"group {number}", ["bob"]) for number in range(5)]
        assert [one.name for one in await alice.conversations()] == [group.name for group in groups]
        changed = await alice.add_member(groups[0].conversation_id, "dave")
        assert {member.user_id for member in changed.members} == {"alice", "bob", "dave"}
        [joined] = await take(dave, 1)
        assert (joined.kind, joined.seq) == (Kind.MEMBERSHIP, 2)


async def test_callbacks_get_messages_in_order_and_survive_their_own_errors(server: FakeServer) -> None:
    seen: list[str] = []
    done = asyncio.Event()

    async def on_message(message: Message) -> None:
        await asyncio.sleep(0)
        seen.append(message.text)
        if message.text == "2":
            done.set()
        raise RuntimeError("the application's own")

    async with Client(server.url, "bob") as bob:
        bob.on(Message, on_message)
        await bob.caught_up()
        for number in range(3):
            server.say("alice", server.log.direct("alice", "bob"), str(number))
        async with asyncio.timeout(TIMEOUT):
            await done.wait()
    assert seen == ["0", "1", "2"]


async def test_a_consumer_that_is_far_behind_holds_the_server_back(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings_client.feed.MAX_BEHIND", 10)
    room = server.log.direct("alice", "bob")
    name = room.conversation.conversation_id
    async with Client(server.url, "bob") as bob:
        messages = bob.messages()
        await bob.caught_up()
        for number in range(30):
            server.say("alice", room, str(number))
        for number in range(30):
            message = await asyncio.wait_for(anext(messages), TIMEOUT)
            assert message.text == str(number)
            if number == 0:
                assert server.log.cursors["bob", bob.device_id].get(name, 0) < 30
        await asyncio.gather(asyncio.wait_for(anext(messages), TIMEOUT), _say_later(server))
        await server.until(lambda: server.log.cursors["bob", bob.device_id].get(name) == 31)


async def _say_later(server: FakeServer) -> None:
    await asyncio.sleep(0)
    server.say("alice", server.log.direct("alice", "bob"), "last")


async def test_acknowledgements_are_coalesced(server: FakeServer) -> None:
    room = server.log.direct("alice", "bob")
    name = room.conversation.conversation_id
    async with Client(server.url, "bob") as bob:
        await bob.caught_up()
        for number in range(200):
            server.say("alice", room, str(number))
        await server.until(lambda: server.log.cursors["bob", bob.device_id].get(name) == 200)
    assert server.counts["acknowledge"] < 20


CHILD = """
import asyncio, os, sys
from tidings_client import Client

async def main():
    url, state = sys.argv[1:]
    client = Client(url, "alice", state=state)
    for number in range(3):
        client.send("bob", f"offline {number}", client_msg_id=f"offline-{number}")
    os._exit(9)  # killed between keeping and sending

asyncio.run(main())
"""


async def test_the_outbox_survives_the_death_of_its_process(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "alice.sqlite"
    command = [sys.executable, "-c", CHILD, server.url, str(state)]
    child = await asyncio.to_thread(subprocess.run, command, env=dict(os.environ), check=False)
    assert child.returncode == 9
    assert send_count(server) == 0
    async with Client(server.url, "alice", state=state) as alice:
        waiting = alice.outgoing()
        assert [one.client_msg_id for one in waiting] == ["offline-0", "offline-1", "offline-2"]
        stored = await asyncio.gather(*(one.stored() for one in waiting))
        assert [(message.seq, message.text) for message in stored] == [(n + 1, f"offline {n}") for n in range(3)]


async def test_messages_go_on_after_a_restart_where_they_were_left(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "bob.sqlite"
    room = server.log.direct("alice", "bob")
    for number in range(4):
        server.say("alice", room, str(number))
    async with Client(server.url, "bob", state=state) as bob:
        await bob.caught_up()
        assert texts(await take(bob, 2)) == ["0", "1"]
        device = bob.device_id
    server.say("alice", room, "4")
    async with Client(server.url, "bob", state=state) as bob:
        assert bob.device_id == device
        assert texts(await take(bob, 3)) == ["2", "3", "4"]


async def test_a_read_mark_made_offline_goes_out_later(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "bob.sqlite"
    room = server.log.direct("alice", "bob")
    server.say("alice", room, "hello")
    async with Client(server.url, "bob", state=state) as bob:
        await take(bob, 1)
    offline = Client(server.url, "bob", state=state)
    offline.mark_read("alice", 1)
    await offline.close()
    async with Client(server.url, "bob", state=state):
        await server.until(lambda: server.marks[room.conversation.conversation_id]["bob"][1] == 1)

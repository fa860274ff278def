"""What a device missed comes in pages under a window, live entries after it, and what isn't acknowledged comes again."""

from mesh.naming import direct_conversation_id
from tests.edge.conftest import Edge, Start
from tidings.client.v1 import frames_pb2 as f
from tidings.common.v1.conversation_pb2 import Position
from tidings.router.v1.link_pb2 import AppendEntry

CHAT = direct_conversation_id("alice", "bob")


def say(edge: Edge, chat: str, msg_id: str, sender: str = "alice") -> None:
    """Store and push an entry, as if another edge had sent it."""
    append = AppendEntry(conversation_id=chat, client_msg_id=msg_id)
    append.content.text.text = msg_id
    entry, _ = edge.world.append(sender, append)
    edge.router.fan_out(entry)


async def test_a_device_is_sent_what_it_missed(start: Start) -> None:
    edge = await start()
    edge.world.members[CHAT] = {"alice", "bob"}
    for number in range(3):
        say(edge, CHAT, f"m{number}")
    bob = await edge.connect("bob")
    await bob.say(hello=f.Hello(device_id="phone", resume=[Position(conversation_id=CHAT, seq=1)]))
    page = (await bob.until("message_page")).message_page
    assert [entry.seq for entry in page.entries] == [2, 3]
    await bob.until("caught_up")


async def test_pages_wait_for_acknowledgements_and_live_entries_for_pages(start: Start) -> None:
    edge = await start(sync_window_pages=1)
    chats = sorted(direct_conversation_id("bob", f"u{number}") for number in range(3))
    for chat in chats:
        edge.world.members[chat] = {"bob", "alice"}
        say(edge, chat, "old")
    bob = await edge.connect("bob")
    await bob.say(hello=f.Hello(device_id="phone"))
    await bob.until("message_page")
    say(edge, chats[0], "live")
    for chat in chats[:2]:
        await bob.say(acknowledge=f.Acknowledge(positions=[Position(conversation_id=chat, seq=1)]))
        assert (await bob.hear()).WhichOneof("body") == "message_page"
    assert len(edge.router.envelopes("sync_device")) >= 3
    await bob.say(acknowledge=f.Acknowledge(positions=[Position(conversation_id=chats[2], seq=1)]))
    assert (await bob.hear()).new_message.entry.client_msg_id == "live"
    assert (await bob.hear()).WhichOneof("body") == "caught_up"


async def test_what_is_not_acknowledged_is_sent_again_from_the_log(start: Start) -> None:
    edge = await start(acknowledge_seconds=0.3)
    edge.world.members[CHAT] = {"alice", "bob"}
    bob = await edge.online("bob")
    say(edge, CHAT, "m0")
    assert (await bob.until("new_message")).new_message.entry.seq == 1
    assert (await bob.until("message_page")).message_page.entries[0].seq == 1


async def test_history_comes_one_page_at_a_time(start: Start) -> None:
    edge = await start()
    edge.world.members[CHAT] = {"alice", "bob"}
    say(edge, CHAT, "m0")
    bob = await edge.online("bob", resume=[Position(conversation_id=CHAT, seq=1)])
    for request_id in (11, 12, 13):
        await bob.say(request_id=request_id, fetch_messages=f.FetchMessages(conversation_id=CHAT))
    for request_id in (11, 12, 13):
        page = await bob.until("message_page")
        assert (page.request_id, len(page.message_page.entries)) == (request_id, 1)


async def test_typing_reaches_the_router(start: Start) -> None:
    edge = await start()
    bob = await edge.online("bob")
    await bob.say(start_typing=f.StartTyping(conversation_id=CHAT))
    await bob.say(stop_typing=f.StopTyping(conversation_id=CHAT))
    await edge.router.saw(lambda router: [one.typing.typing for one in router.envelopes("typing")] == [True, False])


async def test_unwatching_all_clears(start: Start) -> None:
    edge = await start()
    bob = await edge.online("bob")
    await bob.say(watch_presence=f.WatchPresence(user_ids=["alice"]))
    await bob.until("presence_update")
    await bob.say(unwatch_presence=f.UnwatchPresence())
    await edge.router.saw(lambda router: any(one.watch_users.clear for one in router.envelopes("watch_users")))
    await bob.socket.close()

"""Links that die, drain and come back: nothing accepted is lost, nothing overtakes, nobody misses anything."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from mesh.naming import direct_conversation_id, owner
from tests.edge.conftest import WAIT, Client, Edge, Start
from tests.edge.fake_router import FakeRouter
from tidings.client.v1 import frames_pb2 as f
from tidings.common.v1 import error_pb2 as e
from tidings.common.v1.conversation_pb2 import Position
from tidings.router.v1 import link_pb2

CHAT = direct_conversation_id("alice", "bob")


def owners(edge: Edge, key: str) -> tuple[FakeRouter, FakeRouter]:
    """The owner of a key, and the other router."""
    by_id = {router.router_id: router for router in edge.routers}
    first = by_id[owner(key, by_id) or ""]
    (second,) = (router for router in edge.routers if router is not first)
    return first, second


async def stored(client: Client, count: int) -> list[str]:
    return [(await client.until("message_stored")).message_stored.client_msg_id for _ in range(count)]


async def test_the_link_opens_with_hello_then_snapshot_and_numbers_everything(start: Start) -> None:
    edge = await start()
    await edge.online("alice")
    sequences = [request.sequence for request in edge.router.requests]
    assert sequences == list(range(1, len(sequences) + 1))
    assert [request.WhichOneof("body") for request in edge.router.requests[:2]] == ["hello", "online_snapshot"]


async def test_a_user_is_announced_to_every_router_before_the_sync(start: Start) -> None:
    edge = await start(routers=2)
    for router in edge.routers:
        router.deaf = True
    edge.routers[0].deaf = edge.routers[1].deaf = False
    await edge.online("alice")
    ordinal = edge.world.ordinal("alice")
    for router in edge.routers:
        assert [ordinal] in [list(request.batch.opened_user_ordinals) for request in router.requests]


async def test_who_comes_back_is_synced_behind_the_announcement_in_one_round(start: Start) -> None:
    edge = await start()
    first = await edge.online("alice")
    await first.socket.close()
    await edge.router.saw(lambda router: any(request.batch.closed_user_ordinals for request in router.requests))
    await edge.online("alice")
    assert len(edge.router.envelopes("open_session")) == 1, "the ordinal is remembered"
    batches = [request.batch for request in edge.router.requests]
    came = max(n for n, batch in enumerate(batches) if batch.opened_user_ordinals)
    asked = max(n for n, batch in enumerate(batches) if any(one.HasField("sync_device") for one in batch.envelopes))
    assert asked == came, "nothing is waited for, for a router acts on the comings of a request before its envelopes"


@pytest.mark.parametrize("draining", [False, True])
async def test_no_sync_while_a_router_has_not_heard_the_announcement(start: Start, draining: bool) -> None:
    edge = await start(routers=2)
    owner, other = owners(edge, "alice")
    if draining:
        await other.drain()  # it still tells what it had to tell
    other.deaf = True
    alice = await edge.connect("alice")
    await alice.say(hello=f.Hello(device_id="phone"))
    for router in (other, owner):
        await router.saw(lambda router: any(request.batch.opened_user_ordinals for request in router.requests))
    assert not any(router.envelopes("sync_device") for router in edge.routers)
    other.cut()  # a router that is gone needs not hear it
    await alice.until("caught_up")


async def test_the_last_session_of_a_user_takes_them_offline(start: Start) -> None:
    edge = await start()
    phone, laptop = await edge.online("alice", "phone"), await edge.online("alice", "laptop")
    await phone.socket.close()
    await laptop.say(heartbeat=f.Heartbeat())
    await laptop.until("heartbeat")
    assert not any(request.batch.closed_user_ordinals for request in edge.router.requests)
    await laptop.socket.close()
    await edge.router.saw(lambda router: any(request.batch.closed_user_ordinals for request in router.requests))


async def test_pending_sends_go_again_in_order_to_the_owner_now(start: Start) -> None:
    edge = await start(routers=2)
    first, second = owners(edge, CHAT)
    alice = await edge.online("alice")
    first.silent.add("append_entry")
    for number in range(5):
        await alice.send("bob", "hi", f"m{number}")
    await first.saw(lambda router: len(router.envelopes("append_entry")) == 5)
    ids = [envelope.envelope_id for envelope in first.envelopes("append_entry")]
    first.deaf = True
    first.cut()
    assert await stored(alice, 5) == [f"m{number}" for number in range(5)]
    again = [envelope.envelope_id for router in edge.routers for envelope in router.envelopes("append_entry")]
    assert again == ids + ids or sorted(again) == sorted(ids + ids)
    assert [entry.client_msg_id for entry in edge.world.logs[CHAT]] == [f"m{number}" for number in range(5)]
    assert second is not first


async def test_sends_wait_for_a_router(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    edge.router.silent.add("append_entry")
    await alice.send("bob", "hi", "m0")
    await edge.router.saw(lambda router: bool(router.envelopes("append_entry")))
    edge.router.silent.clear()
    edge.router.cut()
    await alice.send("bob", "hi", "m1")
    assert await stored(alice, 2) == ["m0", "m1"]


async def test_what_was_pushed_past_a_dead_link_comes_from_the_log(start: Start) -> None:
    edge = await start()
    bob = await edge.online("bob")
    await bob.say(acknowledge=f.Acknowledge(positions=[Position(conversation_id=CHAT, seq=0)]))
    links = list(edge.router.links)
    edge.router.cut()
    edge.world.members[CHAT] = {"alice", "bob"}
    append = f.ClientFrame()
    append.send_message.content.text.text = "while away"
    edge.world.append("alice", link_pb2.AppendEntry(conversation_id=CHAT, client_msg_id="m", content=append.send_message.content))
    page = (await bob.until("message_page")).message_page
    assert [entry.client_msg_id for entry in page.entries] == ["m"]
    assert edge.router.links != links


async def test_acknowledgements_survive_the_link_that_carried_them(start: Start) -> None:
    edge = await start()
    bob = await edge.online("bob")
    edge.router.deaf = True
    await bob.say(acknowledge=f.Acknowledge(positions=[Position(conversation_id=CHAT, seq=7)]))
    await edge.router.saw(lambda router: any(request.batch.receipts for request in router.requests))
    edge.router.deaf = False
    edge.router.cut()
    await edge.router.saw(lambda router: sum(len(request.batch.receipts) for request in router.requests) > 1)
    async with asyncio.timeout(WAIT):
        while edge.world.cursors.get(("bob", "phone", CHAT)) != 7:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the fake acts after it has noted


async def test_a_draining_router_gets_nothing_new_but_answers_what_it_has(start: Start) -> None:
    edge = await start(routers=2)
    first, second = owners(edge, CHAT)
    alice = await edge.online("alice")
    first.silent.add("append_entry")
    await alice.send("bob", "one", "m0")
    await first.saw(lambda router: bool(router.envelopes("append_entry")))
    await first.drain()
    await alice.send("bob", "two", "m1")
    await alice.say(request_id=8, heartbeat=f.Heartbeat())
    await alice.until("heartbeat")
    assert not second.envelopes("append_entry"), "the second send must not overtake the first"
    first.silent.clear()
    first.answer(first.envelopes("append_entry")[0])
    assert await stored(alice, 2) == ["m0", "m1"]
    await second.saw(lambda router: len(router.envelopes("append_entry")) == 1)


async def test_a_router_that_joins_takes_its_conversations_without_overtaking(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    edge.router.silent.add("append_entry")
    chats = [f"user{number}" for number in range(20)]
    for number, user in enumerate(chats):
        await alice.send(user, "one", f"a{number}")
    await edge.router.saw(lambda router: len(router.envelopes("append_entry")) == len(chats))
    async with AsyncExitStack() as stack:
        newcomer = await stack.enter_async_context(FakeRouter.serve(edge.world, edge.registry, edge.telemetry))
        await newcomer.saw(lambda router: bool(router.envelopes("sync_device") or router.links))
        for number, user in enumerate(chats):
            await alice.send(user, "two", f"b{number}")
        edge.router.silent.clear()
        for envelope in list(edge.router.envelopes("append_entry"))[: len(chats)]:
            edge.router.answer(envelope)
        await stored(alice, 2 * len(chats))
    for user in chats:
        log = edge.world.logs[direct_conversation_id("alice", user)]
        assert [entry.client_msg_id[0] for entry in log] == ["a", "b"]


async def test_watches_are_said_again_to_a_new_link(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    await alice.say(request_id=2, watch_presence=f.WatchPresence(user_ids=["bob", "carol"]))
    assert (await alice.until("presence_update")).request_id == 2
    edge.router.cut()
    await edge.router.saw(lambda router: len(router.envelopes("watch_users")) == 2)
    again = edge.router.envelopes("watch_users")[1].watch_users
    assert (list(again.watch_user_ids), again.clear) == (["bob", "carol"], True)


async def test_overload_is_refused_before_it_is_accepted_and_order_is_kept(start: Start) -> None:
    edge = await start(max_pending=4)
    alice = await edge.online("alice")
    edge.router.silent.add("append_entry")
    for number in range(6):
        await alice.send("bob", "hi", f"m{number}")
    for number in (4, 5):
        error = (await alice.until("error")).error
        assert error.client_msg_id == f"m{number}"
        assert error.HasField("retry_after")
    edge.router.silent.clear()
    for envelope in edge.router.envelopes("append_entry"):
        edge.router.answer(envelope)
    assert await stored(alice, 4) == ["m0", "m1", "m2", "m3"]
    await alice.send("bob", "hi", "m5")
    assert (await alice.until("error")).error.code == e.ERROR_CODE_RATE_LIMITED
    await alice.send("bob", "hi", "m4")
    await alice.send("bob", "hi", "m5")
    assert await stored(alice, 2) == ["m4", "m5"]


async def test_users_the_router_could_not_push_to_are_synced(start: Start) -> None:
    edge = await start()
    bob = await edge.online("bob")
    alice = await edge.online("alice")
    silent_links = edge.router.links
    edge.router.links = []  # stores, but pushes to nobody
    edge.router.silent.add("append_entry")
    await alice.send("bob", "hi", "m0")
    await edge.router.saw(lambda router: bool(router.envelopes("append_entry")))
    edge.world.append("alice", edge.router.envelopes("append_entry")[0].append_entry)
    edge.router.links = silent_links
    batch = link_pb2.RouterBatch(resync_user_ordinals=[edge.world.ordinal("bob")])
    silent_links[0].send(link_pb2.LinkResponse(batch=batch))
    assert (await bob.until("message_page")).message_page.entries[0].client_msg_id == "m0"

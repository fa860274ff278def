"""What must hold when stores, routers, links and edges fail."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from mesh import errors
from mesh.local_server import LocalServers
from mesh.naming import direct_conversation_id
from tests.router.conftest import Mesh
from tests.router.fake_edge import PATIENCE, edge, frame_of, is_message, send, text
from tidings.common.v1 import error_pb2
from tidings.common.v1.conversation_pb2 import MEMBERSHIP_CHANGE_ADDED, MEMBERSHIP_CHANGE_REMOVED
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import link_pb2


async def test_sends_wait_for_a_store_and_keep_their_order(mesh: Mesh) -> None:
    router = await mesh.router()
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob")
    conversation_id = chat.conversation.conversation_id
    async with edge(router.grpc_address, bob) as one:
        envelopes = [one.envelope("alice", alice, append_entry=send(conversation_id, f"m{n}")) for n in range(50)]
        await one.batch(envelopes=envelopes[:25])
        await one.settled()
        assert not one.replies
        async with AsyncExitStack() as first:
            await mesh.store_on(first)
            await one.reply(envelopes[24])
        await one.batch(envelopes=envelopes[25:])
        await mesh.store()
        await one.reply(envelopes[49])
        await one.until(lambda: len(one.messages(bob, conversation_id)) == 50)
    assert [entry.client_msg_id for entry in chat.entries] == [f"m{n}" for n in range(50)]


async def test_a_lost_answer_is_asked_for_again_and_nothing_is_stored_twice(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    mesh.memory.lose_answers = 3
    async with edge(router.grpc_address, bob) as one:
        for n in range(6):
            answer = await one.ask_frame("alice", alice, append_entry=send(recipient_id="bob", client_msg_id=f"m{n}"))
            assert answer.message_stored.seq == n + 1
        chat = direct_conversation_id("alice", "bob")
        await one.until(lambda: set(one.messages(bob, chat)) == {1, 2, 3, 4, 5, 6})
    assert len(mesh.memory.chats[chat].entries) == 6


async def test_a_store_that_dies_with_batches_in_flight_loses_and_doubles_nothing(mesh: Mesh) -> None:
    router = await mesh.router()
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob")
    conversation_id = chat.conversation.conversation_id
    async with edge(router.grpc_address, bob) as one:
        async with AsyncExitStack() as first:
            await mesh.store_on(first)
            await one.ask("alice", alice, append_entry=send(conversation_id, "m0"))
            mesh.memory.answering.clear()
            envelopes = [one.envelope("alice", alice, append_entry=send(conversation_id, f"m{n}")) for n in range(1, 30)]
            for envelope in envelopes:
                await one.batch(envelopes=[envelope])
            await one.settled()
        mesh.memory.answering.set()
        await mesh.store()
        for envelope in envelopes:
            assert frame_of((await one.reply(envelope)).frame).HasField("message_stored")
        await one.until(lambda: set(one.messages(bob, conversation_id)) == set(range(1, 31)))
    assert [entry.client_msg_id for entry in chat.entries] == [f"m{n}" for n in range(30)]


async def test_a_store_that_leaves_is_left_before_it_stops(mesh: Mesh, router: Instance) -> None:
    alice = mesh.memory.user("alice").user_ordinal
    async with edge(router.grpc_address) as one:
        await one.ask("alice", alice, append_entry=send(recipient_id="bob"))
        (leaving,) = (await anext(mesh.registry.watch("store"))).values()
        leaving.draining = True
        await mesh.store()
        async with mesh.registry.register(leaving):
            await mesh.memory.until(lambda: leaving.instance_id in mesh.memory.ended)
            answer = await one.ask_frame("alice", alice, append_entry=send(recipient_id="bob", client_msg_id="m2"))
            assert answer.message_stored.seq == 2


async def test_a_small_batch_waits_for_the_one_under_way_and_takes_along_what_comes(mesh: Mesh, router: Instance) -> None:
    alice = mesh.memory.user("alice").user_ordinal
    chat = mesh.memory.direct("alice", "bob").conversation.conversation_id
    mesh.memory.answering.clear()
    async with edge(router.grpc_address) as one:
        envelopes = [one.envelope("alice", alice, append_entry=send(chat, f"m{number}")) for number in range(4)]
        await one.batch(envelopes=envelopes[:1])
        await mesh.memory.until(lambda: bool(mesh.memory.appends))
        for envelope in envelopes[1:]:
            await one.batch(envelopes=[envelope])
            await one.settled()
        mesh.memory.answering.set()
        for envelope in envelopes:
            assert frame_of((await one.reply(envelope)).frame).HasField("message_stored")
    assert mesh.memory.appends == [1, 3]


async def test_a_store_in_the_same_process_is_gone_over_to(mesh: Mesh, router: Instance) -> None:
    alice = mesh.memory.user("alice").user_ordinal
    async with edge(router.grpc_address) as one:
        await one.ask("alice", alice, append_entry=send(recipient_id="bob"))
        (far,) = await anext(mesh.registry.watch("store"))
        mesh.registry.local = LocalServers()
        near = await mesh.store()
        await mesh.memory.until(lambda: far in mesh.memory.ended)
        answer = await one.ask_frame("alice", alice, append_entry=send(recipient_id="bob", client_msg_id="m2"))
        assert answer.message_stored.seq == 2
    assert near.instance_id not in mesh.memory.ended


async def test_a_store_that_leaves_and_cannot_be_reached_harms_nobody(mesh: Mesh) -> None:
    """The last of all stores is asked also while it leaves; and as its machine goes, it may take connections and say nothing."""
    alice = mesh.memory.user("alice").user_ordinal
    reached: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    async with await asyncio.start_server(lambda _, writer: reached.put_nowait(writer), "127.0.0.1", 0) as mute:
        host, port = mute.sockets[0].getsockname()
        leaving = Instance(service="store", instance_id="store-1", grpc_address=f"{host}:{port}", draining=True)
        async with mesh.registry.register(leaving):
            router = await mesh.router()
            for _ in range(3):
                writer = await asyncio.wait_for(reached.get(), PATIENCE)
                await asyncio.sleep(0.3)  # in which the router sees that it leaves
                writer.close()
            await mesh.store()
            async with edge(router.grpc_address) as one:
                answer = await one.ask_frame("alice", alice, append_entry=send(recipient_id="bob"))
                assert answer.message_stored.seq == 1


async def test_a_store_that_was_never_reached_is_left_for_another(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections and says nothing, as a frozen one does: what is written to it is written elsewhere."""
    monkeypatch.setattr("router.append_stream._PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("router.append_stream._ANSWER_SECONDS", 0.6)
    alice = mesh.memory.user("alice").user_ordinal
    chat = mesh.memory.direct("alice", "bob").conversation.conversation_id
    reached = asyncio.Event()
    async with await asyncio.start_server(lambda *_: reached.set(), "127.0.0.1", 0) as mute, AsyncExitStack() as first:
        host, port = mute.sockets[0].getsockname()
        await mesh.store_on(first)
        router = await mesh.router()
        async with edge(router.grpc_address) as one:
            await one.ask("alice", alice, append_entry=send(chat))
            async with mesh.registry.register(Instance(service="store", instance_id="store-1", grpc_address=f"{host}:{port}")):
                await first.aclose()
                envelope = one.envelope("alice", alice, append_entry=send(chat, "m2"))
                await one.batch(envelopes=[envelope])
                await asyncio.wait_for(reached.wait(), PATIENCE)
                await mesh.store()
                assert frame_of((await one.reply(envelope)).frame).message_stored.seq == 2


async def test_a_store_that_answers_nothing_is_given_up(mesh: Mesh, router: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.append_stream._ANSWER_SECONDS", 0.1)
    alice = mesh.memory.user("alice").user_ordinal
    mesh.memory.answering.clear()
    async with edge(router.grpc_address) as one:
        envelope = one.envelope("alice", alice, append_entry=send(recipient_id="bob"))
        await one.batch(envelopes=[envelope])
        await mesh.memory.until(lambda: len(mesh.memory.ended) >= 2)
        mesh.memory.answering.set()
        assert frame_of((await one.reply(envelope)).frame).message_stored.seq == 1
    assert len(mesh.memory.appends) >= 3


async def test_what_is_said_to_a_chat_that_does_not_exist_holds_up_nobody(mesh: Mesh, router: Instance) -> None:
    alice = mesh.memory.user("alice").user_ordinal
    async with edge(router.grpc_address) as one:
        lost = one.envelope("alice", alice, append_entry=send("g" + "a" * 26))
        good = one.envelope("alice", alice, append_entry=send(recipient_id="bob", client_msg_id="m2"))
        await one.batch(envelopes=[lost])
        await one.batch(envelopes=[good])
        async with asyncio.timeout(8.0):
            assert frame_of((await one.reply(lost)).frame).error.code == error_pb2.ERROR_CODE_INVALID_CHAT_ID
            assert frame_of((await one.reply(good)).frame).message_stored.seq == 1


async def test_routers_share_the_search_for_what_was_left_behind(mesh: Mesh) -> None:
    await mesh.store()
    bob = mesh.memory.user("bob").user_ordinal
    chats = [mesh.memory.direct(f"user{n}", "bob") for n in range(40)]
    routers = [await mesh.router(redispatch_age_seconds=0.3, redispatch_seconds=0.3) for _ in range(2)]
    async with edge(routers[0].grpc_address, bob) as first, edge(routers[1].grpc_address, bob) as second:
        for chat in chats:
            chat.write("user", content=text("left behind"))
        await mesh.memory.until(lambda: all(chat.dispatched == 1 for chat in chats))
        here, there = ({one.conversation_id for one in each.deliveries} for each in (first, second))
        assert here | there == {chat.conversation.conversation_id for chat in chats}
        assert here and there and not here & there


async def test_who_joined_later_is_not_told_what_was_said_before(mesh: Mesh) -> None:
    await mesh.store()
    alice, bob, carol = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob", "carol"))
    group = mesh.memory.group("alice", "bob")
    group.write("alice", client_msg_id="m1", content=text("before carol"))
    mesh.memory.join(group, "carol")
    group.tell("alice", MEMBERSHIP_CHANGE_ADDED, ["carol"])
    router = await mesh.router(redispatch_age_seconds=0.2)
    conversation_id = group.conversation.conversation_id
    async with edge(router.grpc_address, alice, bob, carol) as one:
        await one.until(lambda: one.messages(bob, conversation_id) == [1, 2, 3])
        assert one.messages(carol, conversation_id) == [3]


async def test_a_poisoned_entry_is_given_up_and_harms_no_other(mesh: Mesh, router: Instance) -> None:
    alice = mesh.memory.user("alice").user_ordinal
    mesh.memory.direct("alice", "bob")
    mesh.memory.poison = "bad"
    async with edge(router.grpc_address) as one:
        envelopes = [
            one.envelope("alice", alice, append_entry=send(recipient_id="bob", client_msg_id=name))
            for name in ("m1", "m2", "bad", "m3", "m4")
        ]
        await one.batch(envelopes=envelopes)
        answers = [frame_of((await one.reply(envelope)).frame) for envelope in envelopes]
    assert answers[2].error.code == error_pb2.ERROR_CODE_INTERNAL
    assert answers[2].error.client_msg_id == "bad"
    assert [answers[n].message_stored.seq for n in (0, 1, 3, 4)] == [1, 2, 3, 4]


async def test_who_was_removed_hears_nothing_and_who_was_added_hears_it(mesh: Mesh, router: Instance) -> None:
    """G7 with a membership changed behind this router's back."""
    names = ("alice", "bob", "carol", "dave")
    alice, bob, carol, dave = (mesh.memory.user(name).user_ordinal for name in names)
    group = mesh.memory.group("alice", "bob", "carol")
    conversation_id = group.conversation.conversation_id
    async with edge(router.grpc_address, alice, bob, carol, dave) as one:
        await one.ask("alice", alice, append_entry=send(conversation_id, "m1"))
        pushed = await one.delivery(lambda frame: frame.new_message.entry.client_msg_id == "m1")
        assert sorted(pushed.user_ordinals) == [alice, bob, carol]
        removed = group.member(bob)
        assert removed is not None
        group.conversation.members.remove(removed)
        group.tell("alice", MEMBERSHIP_CHANGE_REMOVED, ["bob"])
        mesh.memory.join(group, "dave")
        group.tell("alice", MEMBERSHIP_CHANGE_ADDED, ["dave"])
        await one.ask("alice", alice, append_entry=send(conversation_id, "m2"))
        pushed = await one.delivery(lambda frame: frame.new_message.entry.client_msg_id == "m2")
        assert sorted(pushed.user_ordinals) == [alice, carol, dave]


async def test_a_full_link_drops_pushes_but_says_whom_to_sync_and_keeps_answers(mesh: Mesh) -> None:
    await mesh.store()
    router = await mesh.router(link_deliveries=20)
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob").conversation.conversation_id
    async with edge(router.grpc_address, bob, edge_id="slow") as slow, edge(router.grpc_address, edge_id="quick") as quick:
        slow.reading.clear()
        large = "x" * 16_000
        envelopes = [quick.envelope("alice", alice, append_entry=send(chat, f"m{n}", large)) for n in range(400)]
        for start in range(0, 400, 50):
            await quick.batch(envelopes=envelopes[start : start + 50])
        await quick.until(lambda: len(quick.replies) == 400)
        slow.reading.set()
        await slow.until(lambda: bob in slow.resyncs)
        answer = await slow.ask_frame("alice", alice, append_entry=send(chat, "last"))
        assert answer.message_stored.seq == 401
        await slow.until(lambda: 401 in slow.messages(bob, chat))
        assert len(slow.messages(bob, chat)) < 401


async def test_what_a_crashed_router_left_behind_is_fanned_out(mesh: Mesh) -> None:
    await mesh.store()
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob")
    for n in range(300):
        chat.write("alice", client_msg_id=f"m{n}", content=text("left behind"))
    chat.dispatched = 10
    router = await mesh.router(redispatch_age_seconds=0.2)
    conversation_id = chat.conversation.conversation_id
    async with edge(router.grpc_address, alice, bob) as one:
        await one.until(lambda: one.messages(bob, conversation_id) == list(range(11, 301)))
        await mesh.memory.until(lambda: chat.dispatched == 300)


async def test_dispatched_seq_follows_what_edges_acted_on(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob")
    async with edge(router.grpc_address, bob) as one:
        await one.ask("alice", alice, append_entry=send(chat.conversation.conversation_id))
        await mesh.memory.until(lambda: chat.dispatched == 1)


async def test_two_routers_serve_one_conversation(mesh: Mesh) -> None:
    """Ownership is for batching: each router knows everybody online by its own links."""
    await mesh.store()
    routers = [await mesh.router(), await mesh.router()]
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob").conversation.conversation_id
    async with edge(routers[0].grpc_address, alice, bob) as first, edge(routers[1].grpc_address, alice, bob) as second:
        for n in range(10):
            here = (first, second)[n % 2]
            answer = await here.ask_frame("alice", alice, append_entry=send(chat, f"m{n}"))
            assert answer.message_stored.seq == n + 1
        await first.until(lambda: first.messages(bob, chat) == [1, 3, 5, 7, 9])
        await second.until(lambda: second.messages(bob, chat) == [2, 4, 6, 8, 10])


async def test_a_stopping_router_says_so_and_answers_what_it_has(mesh: Mesh) -> None:
    await mesh.store()
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    async with AsyncExitStack() as stack:
        router = await mesh.router(stack)
        async with edge(router.grpc_address, bob) as one:
            await one.ask("alice", alice, append_entry=send(recipient_id="bob"))
            mesh.memory.answering.clear()
            late = one.envelope("alice", alice, append_entry=send(recipient_id="bob", client_msg_id="late"))
            await one.batch(envelopes=[late])
            await one.settled()
            stopping = asyncio.create_task(stack.aclose())
            await one.until(lambda: one.draining)
            mesh.memory.answering.set()
            assert frame_of((await one.reply(late)).frame).message_stored.seq == 2
            await one.until(lambda: one.ended)
            await asyncio.wait_for(stopping, PATIENCE)


async def test_an_edge_that_says_no_more_still_gets_its_answers(mesh: Mesh, router: Instance) -> None:
    alice = mesh.memory.user("alice").user_ordinal
    async with edge(router.grpc_address) as one:
        mesh.memory.answering.clear()
        last = one.envelope("alice", alice, append_entry=send(recipient_id="bob"))
        await one.batch(envelopes=[last])
        await one.settled()
        await one.finish()
        mesh.memory.answering.set()
        assert frame_of((await one.reply(last)).frame).message_stored.seq == 1
        await one.until(lambda: one.ended)


async def test_questions_wait_only_so_long_for_a_store(mesh: Mesh) -> None:
    router = await mesh.router(request_seconds=0.2)
    async with edge(router.grpc_address) as one:
        answers = [
            await one.ask_frame("alice", 0, open_session=link_pb2.OpenSession(device_id="d")),
            await one.ask_frame("alice", 1, sync_device=link_pb2.SyncDevice(device_id="d")),
            await one.ask_frame("alice", 1, fetch_entries=link_pb2.FetchEntries(conversation_id="d" * 27)),
            await one.ask_frame("alice", 1, watch_users=link_pb2.WatchUsers(watch_user_ids=["bob"])),
        ]
    assert {answer.error.code for answer in answers} == {error_pb2.ERROR_CODE_UNAVAILABLE}


async def test_receipts_wait_for_a_store_and_are_told_only_then(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob").conversation.conversation_id
    async with edge(router.grpc_address, alice, bob) as one:
        await one.ask("alice", alice, append_entry=send(chat))
        mesh.memory.refuse = errors.unavailable("away")
        delta = link_pb2.ReceiptDelta(user_ordinal=bob, user_id="bob", device_id="d", conversation_id=chat, delivered_seq=1)
        await one.batch(receipts=[delta])
        await one.settled()
        await one.ask("alice", alice, append_entry=send(chat, "m2"))
        assert not [each for each in one.deliveries if frame_of(each.frame).HasField("receipt")]
        mesh.memory.refuse = None
        await one.delivery(lambda frame: frame.HasField("receipt"))


async def test_an_edge_that_is_gone_is_forgotten(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob").conversation.conversation_id
    async with edge(router.grpc_address, alice, edge_id="a") as one:
        await one.ask("alice", alice, 3, watch_users=link_pb2.WatchUsers(watch_user_ids=["bob"]))
        async with edge(router.grpc_address, bob, edge_id="b") as other:
            await one.ask("alice", alice, append_entry=send(chat))
            await other.delivery(is_message)
        await one.delivery(lambda frame: any(each.state == 2 for each in frame.presence_update.presences))
        await mesh.memory.until(lambda: mesh.memory.users["bob"].HasField("last_seen_time"))

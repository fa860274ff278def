"""The link, over the wire: messages, errors, receipts, typing, presence, sync."""

import asyncio
from typing import Any

import grpc
import pytest
from pyroaring import BitMap

from mesh import errors
from mesh.naming import direct_conversation_id
from tests.router.conftest import Mesh
from tests.router.fake_edge import edge, frame_of, is_message, send, text
from tidings.client.v1 import frames_pb2 as client
from tidings.common.v1 import error_pb2
from tidings.common.v1.conversation_pb2 import Position
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import link_pb2
from tidings.router.v1.link_pb2_grpc import LinkServiceStub


async def test_open_session_gives_the_ordinal(mesh: Mesh, router: Instance) -> None:
    async with edge(router.grpc_address) as one:
        reply = await one.ask("alice", 0, open_session=link_pb2.OpenSession(device_id="phone"))
        assert reply.session_opened.user_ordinal == mesh.memory.users["alice"].user_ordinal
        assert one.router_id == router.instance_id
        assert one.sequences == list(range(1, len(one.sequences) + 1))


async def test_a_message_is_stored_answered_and_pushed_to_everybody_else(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    async with edge(router.grpc_address, alice, edge_id="a") as here, edge(router.grpc_address, alice, bob, edge_id="b") as there:
        answer = await here.ask_frame("alice", alice, 7, append_entry=send(recipient_id="bob"))
        chat = direct_conversation_id("alice", "bob")
        assert answer.message_stored.message_id == f"{chat}:1"
        assert answer.message_stored.conversation_id == chat
        assert answer.request_id == 1
        pushed = await there.delivery(is_message)
        assert sorted(pushed.user_ordinals) == [alice, bob]
        assert (pushed.except_session, pushed.traffic_class, pushed.seq) == (0, link_pb2.TRAFFIC_CLASS_CHAT, 1)
        own = await here.delivery(is_message)
        assert (list(own.user_ordinals), own.except_session) == ([alice], 7)
        entry = frame_of(pushed.frame).new_message.entry
        assert (entry.sender_id, entry.client_msg_id, entry.content.text.text, entry.seq) == ("alice", "m1", "hi", 1)
        assert entry.store_time == answer.message_stored.store_time
        assert pushed.frame == own.frame


async def test_what_happens_is_counted(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    async with edge(router.grpc_address, bob) as one:
        await one.ask("alice", alice, append_entry=send(recipient_id="bob"))
        await one.ask("alice", alice, append_entry=send(recipient_id="alice"))
        await one.delivery(is_message)
        await one.settled()
        counted = mesh.telemetry.exposition().decode()
    for line in (
        'router_messages_total{direction="in"} 1.0',
        'router_messages_total{direction="out"} 1.0',
        'router_errors_total{reason="INVALID_RECIPIENT"} 1.0',
        "router_push_latency_seconds_count 1.0",
        "router_links 1.0",
    ):
        assert line in counted.splitlines()


async def test_a_users_messages_keep_their_order(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob")
    conversation_id = chat.conversation.conversation_id
    async with edge(router.grpc_address, bob) as one:
        envelopes = [one.envelope("alice", alice, append_entry=send(conversation_id, f"m{n}")) for n in range(1200)]
        for start in range(0, 1200, 100):
            await one.batch(envelopes=envelopes[start : start + 100])
        await one.until(lambda: len(one.messages(bob, conversation_id)) == 1200)
    assert [entry.client_msg_id for entry in chat.entries] == [f"m{n}" for n in range(1200)]
    assert one.messages(bob, conversation_id) == list(range(1, 1201))


async def test_a_repeated_send_is_the_same_message_and_pushes_what_the_log_holds(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    async with edge(router.grpc_address, bob) as one:
        first = await one.ask_frame("alice", alice, append_entry=send(recipient_id="bob", said="first"))
        again = await one.ask_frame("alice", alice, append_entry=send(recipient_id="bob", said="other"))
        assert again.message_stored.seq == first.message_stored.seq == 1
        await one.until(lambda: len(one.deliveries) == 2)
        assert {frame_of(each.frame).new_message.entry.content.text.text for each in one.deliveries} == {"first"}


async def test_refusals_name_their_reason(mesh: Mesh, router: Instance) -> None:
    alice, mallory = (mesh.memory.user(name).user_ordinal for name in ("alice", "mallory"))
    group = mesh.memory.group("alice", "bob").conversation.conversation_id
    unknown = "g" + "a" * 26
    refusals = [
        (mallory, send(group), error_pb2.ERROR_CODE_NOT_A_MEMBER),
        (mallory, send(group), error_pb2.ERROR_CODE_NOT_A_MEMBER),
        (alice, send(unknown), error_pb2.ERROR_CODE_INVALID_CHAT_ID),
        (alice, send(recipient_id="alice"), error_pb2.ERROR_CODE_INVALID_RECIPIENT),
        (alice, send(recipient_id="b b"), error_pb2.ERROR_CODE_INVALID_RECIPIENT),
        (alice, link_pb2.AppendEntry(conversation_id=group, client_msg_id="m1"), error_pb2.ERROR_CODE_INVALID_FIELD),
        (alice, send(group, "d", target_seq=99), error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND),
        (0, send(group), error_pb2.ERROR_CODE_INVALID_FIELD),
    ]
    async with edge(router.grpc_address, alice) as one:
        for ordinal, entry, code in refusals:
            answer = await one.ask_frame("mallory" if ordinal == mallory else "alice", ordinal, append_entry=entry)
            assert answer.error.code == code, answer
            assert answer.error.client_msg_id == entry.client_msg_id or not ordinal
        empty = await one.ask_frame("alice", alice)
        assert empty.error.code == error_pb2.ERROR_CODE_UNKNOWN_REQUEST
        stored = await one.ask_frame("alice", alice, append_entry=send(group))
        assert stored.message_stored.seq == 2


async def test_edits_and_deletions_are_pushed_as_such(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob").conversation.conversation_id
    async with edge(router.grpc_address, bob) as one:
        await one.ask("alice", alice, append_entry=send(chat, "m1"))
        await one.ask("alice", alice, append_entry=send(chat, "m2", "better", target_seq=1))
        deletion = link_pb2.AppendEntry(conversation_id=chat, client_msg_id="m3", target_seq=1)
        await one.ask("alice", alice, append_entry=deletion)
        await one.until(lambda: len(one.deliveries) == 3)
        _, edited, deleted = (frame_of(each.frame).new_message.entry for each in one.deliveries)
        assert (edited.edit.target_seq, edited.edit.content) == (1, text("better"))
        assert deleted.deletion.target_seq == 1


async def test_a_receipt_reaches_the_sender_and_a_read_mark_ones_own_devices(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob").conversation.conversation_id
    async with edge(router.grpc_address, alice, bob) as one:
        await one.ask("alice", alice, append_entry=send(chat, "m1"))
        mark: dict[str, Any] = {"user_ordinal": bob, "user_id": "bob", "device_id": "phone", "conversation_id": chat}
        await one.batch(receipts=[link_pb2.ReceiptDelta(**mark, delivered_seq=1)])
        told = await one.delivery(lambda frame: frame.HasField("receipt"))
        assert (list(told.user_ordinals), told.traffic_class) == ([alice], link_pb2.TRAFFIC_CLASS_RECEIPT)
        assert frame_of(told.frame).receipt == client.Receipt(
            conversation_id=chat, watermarks=[client.Watermark(user_id="bob", delivered_seq=1)]
        )
        await one.batch(receipts=[link_pb2.ReceiptDelta(**mark, read_seq=99)])
        told = await one.delivery(lambda frame: any(mark.read_seq for mark in frame.receipt.watermarks))
        assert sorted(told.user_ordinals) == [alice, bob]
        assert frame_of(told.frame).receipt.watermarks[0].read_seq == 1


async def test_a_message_overtakes_many_receipts_and_none_is_left_out(
    mesh: Mesh, router: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.receipts.PAUSE_SECONDS", 0.1)
    alice, others, chats = _sixty_chats(mesh)
    async with edge(router.grpc_address, alice, *others) as one:
        await asyncio.gather(*(one.ask("alice", alice, append_entry=send(chat)) for chat in chats))
        await one.batch(receipts=_delivered(others, chats, 1))
        await one.delivery(lambda frame: frame.HasField("receipt"))
        await one.ask("alice", alice, append_entry=send(chats[0], "m2", "meanwhile"))
        await one.until(lambda: len(one.deliveries) == 121)
    kinds = [frame_of(each.frame).WhichOneof("body") for each in one.deliveries[60:]]
    told = [frame_of(each.frame).receipt.conversation_id for each in one.deliveries if frame_of(each.frame).HasField("receipt")]
    assert kinds.count("receipt") == 60
    assert 0 < kinds.index("new_message") < 60
    assert sorted(told) == sorted(chats)


async def test_receipts_that_wait_let_those_before_them_go_without_pauses(
    mesh: Mesh, router: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.receipts.PAUSE_SECONDS", 1.0)
    alice, others, chats = _sixty_chats(mesh)
    async with edge(router.grpc_address, alice, *others) as one:
        for number in (1, 2):
            await asyncio.gather(*(one.ask("alice", alice, append_entry=send(chat, f"m{number}")) for chat in chats))
        started = asyncio.get_running_loop().time()
        for seq in (1, 2):
            await one.batch(receipts=_delivered(others, chats, seq))
            await one.delivery(lambda frame: frame.HasField("receipt"))
        await one.until(lambda: len(one.deliveries) >= 120 + 60)
        assert asyncio.get_running_loop().time() - started < 5.5, "with seven pauses it would be 7"
        monkeypatch.setattr("router.receipts.PAUSE_SECONDS", 0.0)


def _sixty_chats(mesh: Mesh) -> tuple[int, list[int], list[str]]:
    """Alice's ordinal, those of u0 to u59, and her chats with them."""
    alice, *others = (mesh.memory.user(name).user_ordinal for name in ("alice", *(f"u{n}" for n in range(60))))
    return alice, others, [mesh.memory.direct("alice", f"u{n}").conversation.conversation_id for n in range(60)]


def _delivered(others: list[int], chats: list[str], seq: int) -> list[link_pb2.ReceiptDelta]:
    return [
        link_pb2.ReceiptDelta(user_ordinal=other, user_id=f"u{n}", device_id="d", conversation_id=chats[n], delivered_seq=seq)
        for n, other in enumerate(others)
    ]


async def test_receipts_of_entries_from_before_reach_all_others(mesh: Mesh, router: Instance) -> None:
    alice, bob, carol = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob", "carol"))
    chat = mesh.memory.group("alice", "bob", "carol").conversation.conversation_id
    async with edge(router.grpc_address, alice, bob, carol) as one:
        delta = link_pb2.ReceiptDelta(user_ordinal=bob, user_id="bob", device_id="d", conversation_id=chat, delivered_seq=1)
        stranger = link_pb2.ReceiptDelta(user_ordinal=99, user_id="x", device_id="d", conversation_id=chat, delivered_seq=1)
        bad = link_pb2.ReceiptDelta(user_ordinal=bob, user_id="bob", device_id="bad device", conversation_id=chat, delivered_seq=1)
        await one.batch(receipts=[stranger, bad, delta, delta])
        told = await one.delivery(lambda frame: frame.HasField("receipt"))
        assert sorted(told.user_ordinals) == [alice, carol]


async def test_typing_is_told_once_and_ends_with_the_message(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob").conversation.conversation_id
    typing = link_pb2.Typing(conversation_id=chat, typing=True)
    async with edge(router.grpc_address, alice, bob) as one:
        await one.batch(envelopes=[one.envelope("alice", alice, typing=typing) for _ in range(3)])
        told = await one.delivery(lambda frame: frame.typing_indicator.typing)
        assert (list(told.user_ordinals), told.traffic_class) == ([bob], link_pb2.TRAFFIC_CLASS_PRESENCE)
        await one.ask("alice", alice, append_entry=send(chat))
        await one.delivery(lambda frame: frame.HasField("typing_indicator") and not frame.typing_indicator.typing)
        assert len([each for each in one.deliveries if frame_of(each.frame).HasField("typing_indicator")]) == 2
        outside = await one.ask_frame("mallory", 99, typing=typing)
        assert outside.error.code == error_pb2.ERROR_CODE_NOT_A_MEMBER


async def test_presence_is_answered_at_once_and_told_at_changes(mesh: Mesh, router: Instance) -> None:
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    async with edge(router.grpc_address, alice, edge_id="a") as one:
        watch = link_pb2.WatchUsers(watch_user_ids=["bob", "nobody"])
        now = await one.ask_frame("alice", alice, 5, watch_users=watch)
        assert [each.state for each in now.presence_update.presences] == [client.PRESENCE_STATE_OFFLINE] * 2
        async with edge(router.grpc_address, edge_id="b") as other:
            await other.batch(opened_user_ordinals=[bob])
            told = await one.delivery(lambda frame: frame.HasField("presence_update"))
            assert (list(told.user_ordinals), list(told.only_sessions)) == ([alice], [5])
            assert frame_of(told.frame).presence_update.presences[0].state == client.PRESENCE_STATE_ONLINE
        told = await one.delivery(lambda frame: frame.HasField("presence_update"), after=1)
        gone = frame_of(told.frame).presence_update.presences[0]
        assert (gone.user_id, gone.state) == ("bob", client.PRESENCE_STATE_OFFLINE)
        assert gone.HasField("last_seen_time")
        later = await one.ask_frame("alice", alice, 5, watch_users=watch)
        assert later.presence_update.presences[0].state == client.PRESENCE_STATE_OFFLINE


async def test_too_many_watched_are_refused_and_closing_the_session_forgets(mesh: Mesh) -> None:
    await mesh.store()
    router = await mesh.router(max_watched_users=2)
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    async with edge(router.grpc_address, alice) as one:
        ask = link_pb2.WatchUsers(watch_user_ids=["bob", "carol", "dave"])
        refused = await one.ask_frame("alice", alice, watch_users=ask)
        assert refused.error.code == error_pb2.ERROR_CODE_TOO_MANY_WATCHED
        bad = await one.ask_frame("alice", alice, watch_users=link_pb2.WatchUsers(watch_user_ids=["b b"]))
        assert bad.error.code == error_pb2.ERROR_CODE_INVALID_FIELD
        await one.ask("alice", alice, 6, watch_users=link_pb2.WatchUsers(watch_user_ids=["bob"]))
        await one.batch(closed_sessions=[6])
        await one.ask("alice", alice, 7, watch_users=link_pb2.WatchUsers(watch_user_ids=["bob"]))
        await one.batch(opened_user_ordinals=[bob])
        told = await one.delivery(lambda frame: frame.HasField("presence_update"))
        assert list(told.only_sessions) == [7]


async def test_sync_brings_pages_and_fetch_brings_history(mesh: Mesh, router: Instance) -> None:
    alice = mesh.memory.user("alice").user_ordinal
    chats = [mesh.memory.direct("alice", "bob"), mesh.memory.direct("alice", "carol")]
    for chat in chats:
        for n in range(3):
            chat.write("bob", content=text(f"m{n}"))
    first, second = (chat.conversation.conversation_id for chat in chats)
    async with edge(router.grpc_address, alice) as one:
        sync = link_pb2.SyncDevice(device_id="phone", positions=[Position(conversation_id=second, seq=2)])
        page = (await one.ask("alice", alice, sync_device=sync)).sync_page
        assert [(each.conversation_id, each.seq) for each in page.positions] == [(first, 3)]
        assert [entry.seq for entry in frame_of(page.frames[0]).message_page.entries] == [1, 2, 3]
        sync.page_token = page.next_page_token
        page = (await one.ask("alice", alice, sync_device=sync)).sync_page
        assert [entry.seq for entry in frame_of(page.frames[0]).message_page.entries] == [3]
        assert page.next_page_token == ""
        fetch = link_pb2.FetchEntries(conversation_id=first, before_seq=3, limit=1)
        history = (await one.ask_frame("alice", alice, fetch_entries=fetch)).message_page
        assert ([entry.seq for entry in history.entries], history.has_more) == ([2], True)
        outside = await one.ask_frame("mallory", 99, fetch_entries=fetch)
        assert outside.error.code == error_pb2.ERROR_CODE_NOT_A_MEMBER


async def test_a_second_link_of_an_edge_ends_the_first(mesh: Mesh, router: Instance) -> None:
    alice = mesh.memory.user("alice").user_ordinal
    async with edge(router.grpc_address, alice) as older, edge(router.grpc_address, alice) as newer:
        await older.until(lambda: older.ended)
        await newer.ask("bob", mesh.memory.user("bob").user_ordinal, append_entry=send(recipient_id="alice"))
        await newer.delivery(is_message)


async def test_a_link_that_begins_wrongly_is_refused(mesh: Mesh, router: Instance) -> None:
    beginnings = [
        [link_pb2.LinkRequest(sequence=1, batch=link_pb2.EdgeBatch())],
        [link_pb2.LinkRequest(sequence=1, hello=link_pb2.LinkHello(edge_id="e", protocol_version=9))],
        [
            link_pb2.LinkRequest(sequence=1, hello=link_pb2.LinkHello(edge_id="e", protocol_version=1)),
            link_pb2.LinkRequest(sequence=2, online_snapshot=link_pb2.OnlineSnapshot(user_ordinals=b"garbage")),
        ],
    ]
    async with grpc.aio.insecure_channel(router.grpc_address) as channel:
        for beginning in beginnings:
            call: Any = LinkServiceStub(channel).Link(iter(beginning))
            with pytest.raises(grpc.RpcError) as refused:
                while await asyncio.wait_for(call.read(), 5) is not grpc.aio.EOF:
                    pass  # the welcome
            assert errors.from_rpc_error(refused.value).code == error_pb2.ERROR_CODE_INVALID_FIELD


def test_an_empty_bitmap_survives_the_wire() -> None:
    assert BitMap.deserialize(BitMap().serialize()) == BitMap()


async def test_a_link_meant_for_another_router_is_refused_and_ends_no_other(mesh: Mesh, router: Instance) -> None:
    hello = link_pb2.LinkHello(edge_id="edge", protocol_version=1, router_id="router-that-is-gone")
    async with edge(router.grpc_address, edge_id="edge") as one, grpc.aio.insecure_channel(router.grpc_address) as channel:
        call: Any = LinkServiceStub(channel).Link()
        await call.write(link_pb2.LinkRequest(sequence=1, hello=hello))
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        await one.ask("alice", 0, open_session=link_pb2.OpenSession(device_id="phone"))
        assert not one.ended

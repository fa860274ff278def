"""What AdvanceMarks and the dispatch marks promise, on both engines, over gRPC."""

import asyncio

import grpc
import pytest

from tests.store.client import StoreClient, deletion, reason
from tidings.common.v1 import conversation_pb2 as common
from tidings.common.v1 import error_pb2
from tidings.store.v1 import message_log_pb2 as pb


def advance(where: str, user: int, delivered: int = 0, read: int = 0, device: str = "phone") -> pb.MarkAdvance:
    """One advance."""
    return pb.MarkAdvance(conversation_id=where, user_ordinal=user, device_id=device, delivered_seq=delivered, read_seq=read)


def marks(*values: int) -> pb.MemberMarks:
    """previous delivered, delivered, previous read, read."""
    previous_delivered, delivered, previous_read, read = values
    return pb.MemberMarks(
        previous_delivered_seq=previous_delivered, delivered_seq=delivered, previous_read_seq=previous_read, read_seq=read
    )


async def test_marks_move_forward_only(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await store.say(chat, alice, *"12345")
    assert await store.advance(advance(chat, bob, delivered=3)) == [marks(0, 3, 0, 0)]
    assert await store.advance(advance(chat, bob, delivered=2, read=1)) == [marks(3, 3, 0, 1)]
    assert await store.advance(advance(chat, bob, read=4)) == [marks(3, 4, 1, 4)]
    assert await store.advance(advance(chat, bob, delivered=99)) == [marks(4, 5, 4, 4)]
    assert await store.advance(advance(chat, bob, delivered=2**64 - 1, read=2**64 - 1)) == [marks(5, 5, 4, 5)]
    conversation = await store.conversation(chat)
    assert {member.user_id: (member.delivered_seq, member.read_seq) for member in conversation.members} == {
        "alice": (0, 0),
        "bob": (5, 5),
    }


async def test_a_batch_is_walked_in_order(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await store.say(chat, alice, *"123")
    answer = await store.advance(
        advance(chat, bob, delivered=1),
        advance(chat, bob, delivered=3, device="laptop"),
        advance("g" + "a" * 26, bob, delivered=1),
        advance(chat, alice, read=2),
        advance(chat, 77, delivered=1),
        advance(chat, bob, delivered=2),
        advance("nonsense\0", bob, delivered=2),
    )
    assert answer[0] == marks(0, 1, 0, 0)
    assert answer[1] == marks(1, 3, 0, 0)
    assert answer[2].refusal == error_pb2.ERROR_CODE_INVALID_CHAT_ID
    assert answer[3] == marks(0, 2, 0, 2)
    assert answer[4].refusal == error_pb2.ERROR_CODE_NOT_A_MEMBER
    assert answer[5] == marks(3, 3, 0, 0)
    assert answer[6].refusal == error_pb2.ERROR_CODE_INVALID_CHAT_ID


async def test_each_device_has_its_cursor(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await store.say(chat, alice, *"123")
    await store.advance(advance(chat, bob, delivered=3), advance(chat, bob, delivered=1, device="laptop"))
    await store.advance(advance(chat, bob, delivered=2), advance(chat, bob, delivered=9, device=""))
    devices = [
        pb.DeviceSync(user_ordinal=bob, device_id=name, page_size=10, history_limit=10) for name in ("phone", "laptop", "new")
    ]
    phone, laptop, new = await store.sync(*devices)
    assert not phone.runs
    assert [entry.seq for entry in laptop.runs[0].entries] == [2, 3]
    assert [entry.seq for entry in new.runs[0].entries] == [1, 2, 3]


async def test_marks_at_once_end_at_the_highest(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chats = [await store.direct("alice", "bob"), (await store.group("alice", "bob")).conversation_id]
    for chat in chats:
        await store.say(chat, alice, *map(str, range(50)))
    order = [chats, chats[::-1]]
    await asyncio.gather(
        *(store.advance(*(advance(chat, bob, delivered=n, device=f"d{n % 3}") for chat in order[n % 2])) for n in range(1, 51))
    )
    for chat in chats:
        members = (await store.conversation(chat)).members
        assert [member.delivered_seq for member in members if member.user_id == "bob"] == [50]


async def test_marks_of_malformed_devices_are_refused(store: StoreClient) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await store.advance(advance("d" + "a" * 26, 1, 1, device="späce"))
    assert reason(caught.value) == "INVALID_FIELD"
    assert await store.advance() == []


async def undispatched(store: StoreClient, page_size: int = 100, minimum_age_ms: int = 0) -> dict[str, int]:
    """All undispatched conversations, page by page."""
    found: dict[str, int] = {}
    request = pb.ListUndispatchedRequest(page_size=page_size, minimum_age_ms=minimum_age_ms)
    while True:
        page = await store.messages.ListUndispatched(request)
        assert len(page.positions) <= page_size
        found |= {position.conversation_id: position.seq for position in page.positions}
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_what_was_not_fanned_out_is_found(store: StoreClient) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chats = [await store.direct("alice", f"u{n}") for n in range(5)]
    for chat in chats[:4]:
        await store.say(chat, alice, "1", "2")
    assert await undispatched(store, page_size=3) == dict.fromkeys(chats[:4], 0)
    assert await undispatched(store, minimum_age_ms=3_600_000) == {}
    positions = [common.Position(conversation_id=chat, seq=seq) for chat, seq in zip(chats, (1, 2, 99, 0, 5), strict=True)]
    await store.messages.MarkDispatched(pb.MarkDispatchedRequest(positions=positions))
    assert await undispatched(store) == {chats[0]: 1, chats[3]: 0}
    back = [common.Position(conversation_id=chats[1], seq=1), common.Position(conversation_id="nonsense", seq=1)]
    await store.messages.MarkDispatched(pb.MarkDispatchedRequest(positions=back))
    assert chats[1] not in await undispatched(store)
    await store.append(deletion(chats[1], alice, "d", 1))
    assert (await undispatched(store))[chats[1]] == 2


async def test_a_malformed_page_token_is_refused(store: StoreClient) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await store.messages.ListUndispatched(pb.ListUndispatchedRequest(page_size=1, page_token="nonsense"))
    assert reason(caught.value) == "INVALID_FIELD"

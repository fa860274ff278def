"""What ListEntries promises, on both engines, over gRPC."""

import grpc
import pytest

from tests.store.client import StoreClient, message, reason
from tidings.store.v1 import message_log_pb2 as pb


async def page(store: StoreClient, **fields: object) -> pb.ListEntriesResponse:
    """One page."""
    return await store.messages.ListEntries(pb.ListEntriesRequest(**fields))  # type: ignore[arg-type]


def seqs(response: pb.ListEntriesResponse) -> list[int]:
    """Seqs of a page."""
    return [entry.seq for entry in response.entries]


@pytest.fixture
async def chat(store: StoreClient) -> str:
    """A direct chat of alice (1) and bob (2) with ten messages."""
    alice, _ = await store.ordinals("alice", "bob")
    name = await store.direct("alice", "bob")
    await store.say(name, alice, *map(str, range(1, 11)))
    return name


async def test_pages_both_ways(store: StoreClient, chat: str) -> None:
    newest = await page(store, conversation_id=chat, user_ordinal=2, page_size=4)
    assert (seqs(newest), newest.has_more, newest.last_seq, newest.first_available_seq) == ([7, 8, 9, 10], True, 10, 1)
    before = await page(store, conversation_id=chat, user_ordinal=2, before_seq=7, page_size=6)
    assert (seqs(before), before.has_more) == ([1, 2, 3, 4, 5, 6], False)
    after = await page(store, conversation_id=chat, user_ordinal=2, after_seq=3, page_size=4)
    assert (seqs(after), after.has_more) == ([4, 5, 6, 7], True)
    end = await page(store, conversation_id=chat, user_ordinal=2, after_seq=7, page_size=3)
    assert (seqs(end), end.has_more) == ([8, 9, 10], False)


async def test_both_ways_give_the_same_log(store: StoreClient, chat: str) -> None:
    up: list[int] = []
    while True:
        response = await page(store, conversation_id=chat, after_seq=up[-1] if up else 0, page_size=3)
        up += seqs(response)
        if not response.has_more:
            break
    down: list[int] = []
    while True:
        before = {"before_seq": down[0]} if down else {}
        response = await page(store, conversation_id=chat, page_size=3, **before)
        down = seqs(response) + down
        if not response.has_more:
            break
    assert up == down == list(range(1, 11))


@pytest.mark.parametrize("position", [{"after_seq": 10}, {"after_seq": 2**64 - 1}, {"before_seq": 1}, {"before_seq": 0}])
async def test_past_the_ends_is_nothing(store: StoreClient, chat: str, position: dict[str, int]) -> None:
    response = await page(store, conversation_id=chat, user_ordinal=1, page_size=5, **position)
    assert (seqs(response), response.has_more) == ([], False)


async def test_the_bounds_of_membership(store: StoreClient) -> None:
    alice, carol, mallory = await store.ordinals("alice", "carol", "mallory")
    group = (await store.group("alice")).conversation_id
    await store.say(group, alice, "2", "3")
    await store.put("alice", group, "carol")
    before = await page(store, conversation_id=group, user_ordinal=carol, before_seq=4, page_size=5)
    assert (seqs(before), before.has_more, before.first_available_seq) == ([], False, 4)
    after = await page(store, conversation_id=group, user_ordinal=carol, after_seq=0, page_size=5)
    assert seqs(after) == [4]
    assert seqs(await page(store, conversation_id=group, page_size=5)) == [1, 2, 3, 4]
    for who, where, expected in [
        (mallory, group, "NOT_A_MEMBER"),
        (2**32 - 1, group, "NOT_A_MEMBER"),
        (alice, "g" + "a" * 26, "INVALID_CHAT_ID"),
        (alice, "x\0", "INVALID_CHAT_ID"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            await page(store, conversation_id=where, user_ordinal=who, page_size=5)
        assert reason(caught.value) == expected


@pytest.mark.parametrize("page_size", [0, 1_001])
async def test_page_sizes_have_bounds(store: StoreClient, chat: str, page_size: int) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await page(store, conversation_id=chat, page_size=page_size)
    assert reason(caught.value) == "INVALID_FIELD"


async def test_a_page_of_large_messages_fits_a_response(store: StoreClient) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    for start in (0, 6):
        await store.append(*(message(chat, alice, f"m{start + n}", "x" * 1_000_000) for n in range(6)))
    after = await page(store, conversation_id=chat, after_seq=0, page_size=1_000)
    assert (seqs(after), after.has_more) == ([1, 2, 3, 4], True)
    newest = await page(store, conversation_id=chat, page_size=1_000)
    assert (seqs(newest), newest.has_more) == ([9, 10, 11, 12], True)
    [sync] = await store.sync(pb.DeviceSync(user_ordinal=alice, device_id="d", history_limit=100, page_size=100))
    assert [entry.seq for entry in sync.runs[0].entries] == list(range(1, 9))
    [rest] = await store.sync(
        pb.DeviceSync(user_ordinal=alice, device_id="d", history_limit=100, page_size=100, page_token=sync.next_page_token)
    )
    assert [entry.seq for entry in rest.runs[0].entries] == list(range(9, 13))
    assert not rest.runs[0].truncated
    assert rest.next_page_token == ""

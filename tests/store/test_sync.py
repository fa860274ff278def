"""What SyncDevices promises, on both engines, over gRPC."""

from collections.abc import Mapping

import grpc
import pytest

from tests.store.client import StoreClient, reason
from tidings.common.v1 import conversation_pb2 as common
from tidings.store.v1 import message_log_pb2 as pb


def device(
    user: int, name: str = "phone", *, page_size: int = 100, history_limit: int = 100, at: Mapping[str, int] | None = None
) -> pb.DeviceSync:
    """A question; `at` are positions by conversation."""
    return pb.DeviceSync(
        user_ordinal=user,
        device_id=name,
        page_size=page_size,
        history_limit=history_limit,
        positions=[common.Position(conversation_id=where, seq=seq) for where, seq in (at or {}).items()],
    )


def shape(page: pb.DeviceSyncPage) -> list[tuple[str, list[int], bool]]:
    """(conversation, seqs, truncated) of a page."""
    return [(run.conversation_id, [entry.seq for entry in run.entries], run.truncated) for run in page.runs]


async def whole_sync(store: StoreClient, question: pb.DeviceSync) -> list[tuple[str, list[int], bool]]:
    """All pages, runs of the same conversation joined where they meet."""
    runs: list[tuple[str, list[int], bool]] = []
    while True:
        [page] = await store.sync(question)
        for where, seqs, truncated in shape(page):
            if runs and runs[-1][0] == where and runs[-1][1] and seqs and runs[-1][1][-1] + 1 == seqs[0]:
                assert not truncated
                runs[-1][1].extend(seqs)
            else:
                runs.append((where, seqs, truncated))
        if not page.next_page_token:
            return runs
        question.page_token = page.next_page_token


async def ack(store: StoreClient, where: str, user: int, seq: int, name: str = "phone") -> None:
    """Move a device's cursor."""
    await store.advance(pb.MarkAdvance(conversation_id=where, user_ordinal=user, device_id=name, delivered_seq=seq))


async def test_a_new_device_gets_the_newest_of_every_conversation(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    old, new = await store.direct("alice", "bob"), (await store.group("alice", "bob")).conversation_id
    await store.direct("bob", "carol")
    await store.say(old, alice, *"12345")
    await store.say(new, alice, *"23456")
    [page] = await store.sync(device(bob, history_limit=3))
    assert shape(page) == [(new, [4, 5, 6], True), (old, [3, 4, 5], True)]
    assert page.next_page_token == ""
    run = page.runs[0]
    assert (run.last_seq, run.first_available_seq) == (6, 1)
    assert run.entries[0].content.text.text == "4"
    assert run.entries[0].sender_id == "alice"


async def test_a_known_device_gets_what_it_missed(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat, other = await store.direct("alice", "bob"), await store.direct("bob", "carol")
    await store.say(other, bob, "1")
    await store.say(chat, alice, *"123456")
    await ack(store, chat, bob, 2)
    await ack(store, other, bob, 1)
    [page] = await store.sync(device(bob, history_limit=1))
    assert shape(page) == [(chat, [3, 4, 5, 6], False)]
    await ack(store, chat, bob, 6)
    [page] = await store.sync(device(bob))
    assert shape(page) == []
    assert page.next_page_token == ""


async def test_positions_win_over_cursors(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat, other = await store.direct("alice", "bob"), await store.direct("bob", "carol")
    await store.say(chat, alice, *"1234")
    await store.say(other, bob, *"1234")
    await ack(store, chat, bob, 4)
    await ack(store, other, bob, 1)
    [page] = await store.sync(device(bob, history_limit=0, at={chat: 2, other: 3}))
    assert shape(page) == [(other, [4], False), (chat, [3, 4], False)]
    [page] = await store.sync(device(bob, history_limit=0, at={chat: 0, other: 9}))
    assert shape(page) == [(chat, [1, 2, 3, 4], False)]


async def test_pages_are_filled_and_end_where_they_are_full(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chats = [await store.direct("bob", f"u{n}") for n in range(4)]
    for chat in chats:
        await store.say(chat, bob, *"12345")
    question = device(bob, page_size=7)
    [first] = await store.sync(question)
    assert shape(first) == [(chats[3], [1, 2, 3, 4, 5], False), (chats[2], [1, 2], False)]
    question.page_token = first.next_page_token
    [second] = await store.sync(question)
    assert shape(second) == [(chats[2], [3, 4, 5], False), (chats[1], [1, 2, 3, 4], False)]
    question.page_token = ""
    assert await whole_sync(store, question) == [(chat, [1, 2, 3, 4, 5], False) for chat in reversed(chats)]
    del alice


async def test_messages_that_arrive_meanwhile_hide_nothing(store: StoreClient) -> None:
    bob = await store.ordinal("bob")
    chats = [await store.direct("bob", f"u{n}") for n in range(5)]
    for chat in chats:
        await store.say(chat, bob, *"123")
    question = device(bob, page_size=2)
    seen: dict[str, list[int]] = {chat: [] for chat in chats}
    order: list[str] = []
    while True:
        [page] = await store.sync(question)
        for where, seqs, truncated in shape(page):
            assert not truncated
            seen[where] += seqs
            order += [where] if where not in order else []
        if not page.next_page_token:
            break
        question.page_token = page.next_page_token
        if len(order) < 3:
            await store.say(chats[0], bob, "more")
            await store.say(order[0], bob, "more")
    assert order == chats[::-1]
    assert all(seqs[:3] == [1, 2, 3] for seqs in seen.values())
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in seen.values())


async def test_acknowledging_between_pages_skips_nothing(store: StoreClient) -> None:
    bob = await store.ordinal("bob")
    chats = [await store.direct("bob", f"u{n}") for n in range(3)]
    for chat in chats:
        await store.say(chat, bob, *"1234")
    question = device(bob, page_size=3)
    got: list[tuple[str, int]] = []
    while True:
        [page] = await store.sync(question)
        for run in page.runs:
            got += [(run.conversation_id, entry.seq) for entry in run.entries]
            await ack(store, run.conversation_id, bob, run.entries[-1].seq)
        if not page.next_page_token:
            break
        question.page_token = page.next_page_token
    assert got == [(chat, seq) for chat in reversed(chats) for seq in range(1, 5)]


async def test_many_devices_at_once(store: StoreClient) -> None:
    alice, bob, carol = await store.ordinals("alice", "bob", "carol")
    chat = await store.direct("alice", "bob")
    await store.say(chat, alice, *"123")
    await ack(store, chat, alice, 2)
    questions = [device(bob), device(alice), device(carol), device(bob, page_size=1), device(999), device(bob, at={chat: 3})]
    pages = await store.sync(*questions)
    assert [shape(page) for page in pages] == [
        [(chat, [1, 2, 3], False)],
        [(chat, [3], False)],
        [],
        [(chat, [1], False)],
        [],
        [],
    ]
    assert [bool(page.next_page_token) for page in pages] == [False, False, False, True, False, False]


async def test_a_member_gets_nothing_from_before_or_after_their_time(store: StoreClient) -> None:
    alice, dave = await store.ordinals("alice", "dave")
    group = (await store.group("alice", "bob")).conversation_id
    await store.say(group, alice, "secret")
    joined = (await store.put("alice", group, "dave")).entry.seq
    await store.say(group, alice, "welcome")
    [page] = await store.sync(device(dave, at={group: 0}))
    assert shape(page) == [(group, [joined, joined + 1], False)]
    assert page.runs[0].first_available_seq == joined
    question = device(dave, page_size=1)
    [first] = await store.sync(question)
    await store.remove("alice", group, "dave")
    question.page_token = first.next_page_token
    [second] = await store.sync(question)
    assert shape(second) == []
    assert second.next_page_token == ""
    assert shape((await store.sync(device(dave)))[0]) == []


async def test_who_comes_back_begins_anew(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    group = (await store.group("alice", "bob")).conversation_id
    await ack(store, group, bob, 1)
    await store.remove("bob", group, "bob")
    await store.put("alice", group, "bob")  # entry 3
    await store.say(group, alice, *"456")
    [page] = await store.sync(device(bob, history_limit=2))
    assert shape(page) == [(group, [5, 6], True)]


async def test_no_history_wanted_says_that_there_is_some(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await store.say(chat, alice, *"123")
    [page] = await store.sync(device(bob, history_limit=0))
    assert shape(page) == [(chat, [], True)]
    assert page.next_page_token == ""


@pytest.mark.parametrize(
    "question",
    [
        pb.DeviceSync(user_ordinal=1, device_id="d", page_size=0),
        pb.DeviceSync(user_ordinal=1, device_id="", page_size=1),
        pb.DeviceSync(user_ordinal=1, device_id="d", page_size=1, page_token="nonsense"),
        pb.DeviceSync(user_ordinal=1, device_id="d", page_size=1, page_token="0.dshort"),
        pb.DeviceSync(user_ordinal=1, device_id="d", page_size=1, page_token="99999999999999999999." + "d" + "a" * 26),
    ],
)
async def test_malformed_questions_are_refused(store: StoreClient, question: pb.DeviceSync) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await store.sync(question)
    assert reason(caught.value) == "INVALID_FIELD"

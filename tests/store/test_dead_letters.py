"""Dead letters: kept, united, paged, bounded, replayed, discarded; on both engines."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh.errors import TidingsError, from_rpc_error
from mesh.naming import DEAD_LETTER_ID
from store.dead_letter import DeadLetter, Kind
from tests.store.behind import allow, refuse
from tests.store.client import StoreClient, running_store
from tidings.store.v1 import dead_letter_pb2 as pb
from tidings.store.v1.message_log_pb2 import MarkAdvance

DISPATCH, MARKS = pb.DEAD_LETTER_KIND_DISPATCH, pb.DEAD_LETTER_KIND_MARKS


def chat_id(number: int) -> str:
    """A conversation's id."""
    return "g" + format(number, "026b").translate(str.maketrans("01", "ab"))


def dispatch(number: int, first: int = 1, last: int = 1, **fields: Any) -> pb.DeadLetter:
    """A letter about entries."""
    said: dict[str, Any] = {"reason": "INTERNAL", "detail": "why", "attempts": 3} | fields
    return pb.DeadLetter(kind=DISPATCH, subject=chat_id(number), from_seq=first, to_seq=last, **said)


def marks(chat: str, ordinal: int, **reached: int) -> pb.DeadLetter:
    """A letter about a phone's marks."""
    advance = MarkAdvance(conversation_id=chat, user_ordinal=ordinal, device_id="phone", **reached)
    payload = advance.SerializeToString()
    return pb.DeadLetter(kind=MARKS, subject=f"{chat}/{ordinal}/phone", payload=payload, reason="INTERNAL", attempts=3)


async def put(store: StoreClient, *letters: pb.DeadLetter, of_replay: bool = False) -> list[str]:
    """Keep these; gives their ids."""
    request = pb.PutDeadLettersRequest(dead_letters=letters, of_replay=of_replay)
    return list((await store.letters.PutDeadLetters(request)).dead_letter_ids)


async def listed(store: StoreClient, **which: Any) -> list[pb.DeadLetter]:
    """All of them, page by page."""
    request, found = pb.ListDeadLettersRequest(**which), list[pb.DeadLetter]()
    while True:
        page = await store.letters.ListDeadLetters(request)
        found += page.dead_letters
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


async def get(store: StoreClient, dead_letter_id: str) -> pb.DeadLetter:
    """One of them."""
    return (await store.letters.GetDeadLetter(pb.GetDeadLetterRequest(dead_letter_id=dead_letter_id))).dead_letter


async def replay(store: StoreClient, dead_letter_id: str) -> None:
    """Have one's work done again."""
    await store.letters.ReplayDeadLetter(pb.ReplayDeadLetterRequest(dead_letter_id=dead_letter_id))


async def discard(store: StoreClient, dead_letter_id: str, **only: Any) -> None:
    """Forget one."""
    await store.letters.DiscardDeadLetter(pb.DiscardDeadLetterRequest(dead_letter_id=dead_letter_id, **only))


def error(caught: pytest.ExceptionInfo[grpc.RpcError]) -> TidingsError:
    """What a call was refused with."""
    return from_rpc_error(caught.value)


@pytest.fixture
async def small(database_url: str) -> AsyncIterator[StoreClient]:
    """A store that keeps three letters."""
    async with running_store(database_url, dead_letters=3) as client:
        yield client


async def test_kept_shown_and_forgotten(store: StoreClient) -> None:
    [one] = await put(store, dispatch(1, 3, 5, detail="can't be\0 told"))
    assert DEAD_LETTER_ID.fullmatch(one)
    letter = await get(store, one)
    assert (letter.kind, letter.subject, letter.from_seq, letter.to_seq) == (DISPATCH, chat_id(1), 3, 5)
    assert (letter.reason, letter.detail, letter.attempts, letter.replaying) == ("INTERNAL", "can't be? told", 3, False)
    assert letter.create_time == letter.update_time and letter.create_time.seconds
    await discard(store, one)
    await discard(store, one)
    assert await listed(store) == []
    for call in (get, replay):
        with pytest.raises(grpc.RpcError) as caught:
            await call(store, one)
        assert (error(caught).reason, error(caught).field) == ("INVALID_FIELD", "dead_letter_id")


async def test_what_fails_again_counts_on(store: StoreClient) -> None:
    [one, other] = await put(store, dispatch(1, 5, 9), dispatch(2))
    assert await put(store, dispatch(1, 3, 4, detail="another"), dispatch(1, 11, 0, attempts=2)) == [one, one]
    letter, before = await get(store, one), await get(store, other)
    assert (letter.from_seq, letter.to_seq, letter.attempts, letter.detail) == (3, 0, 8, "why")
    assert letter.update_time.ToMicroseconds() > letter.create_time.ToMicroseconds()
    assert (before.attempts, before.update_time) == (3, before.create_time)


async def test_marks_of_one_device_become_the_furthest(store: StoreClient) -> None:
    [one] = await put(store, marks("gone", 7, delivered_seq=9, read_seq=2))
    assert await put(store, marks("gone", 7, delivered_seq=4, read_seq=4)) == [one]
    advance = MarkAdvance.FromString((await get(store, one)).payload)
    assert (advance.delivered_seq, advance.read_seq, advance.device_id) == (9, 4, "phone")


async def test_pages(store: StoreClient) -> None:
    ids = [(await put(store, dispatch(number)))[0] for number in range(5)]
    ids += await put(store, marks("gone", 7, read_seq=1))
    found = await listed(store, page_size=2)
    assert [letter.dead_letter_id for letter in found] == ids[::-1]
    assert not any(letter.payload for letter in found)
    assert [letter.dead_letter_id for letter in await listed(store, kind=MARKS)] == ids[-1:]
    assert [letter.dead_letter_id for letter in await listed(store, kind=DISPATCH, page_size=5)] == ids[-2::-1]
    assert await listed(store, kind=pb.DEAD_LETTER_KIND_NOTIFICATION) == []


async def test_past_the_bound_the_oldest_go(small: StoreClient) -> None:
    ids = [(await put(small, dispatch(number)))[0] for number in range(5)]
    await put(small, dispatch(4), dispatch(3))
    assert [letter.dead_letter_id for letter in await listed(small)] == ids[:1:-1]
    await put(small, *(dispatch(number) for number in range(100, 110)))
    assert len(await listed(small)) == 3


@pytest.mark.parametrize(
    ("letter", "field"),
    [
        (pb.DeadLetter(kind=pb.DEAD_LETTER_KIND_NOTIFICATION, subject="n" + "a" * 26), "dead_letters.kind"),
        (pb.DeadLetter(subject="x"), "dead_letters.kind"),
        (dispatch(1, 0, 1), "dead_letters.from_seq"),
        (dispatch(1, 5, 4), "dead_letters.from_seq"),
        (pb.DeadLetter(kind=DISPATCH, subject="no conversation", from_seq=1), "conversation_id"),
        (dispatch(1, payload=b"x"), "dead_letters.payload"),
        (pb.DeadLetter(kind=MARKS, subject="x", payload=b"\xff"), "dead_letters.payload"),
        (pb.DeadLetter(kind=MARKS, subject="x", payload=b"\x0a\x80\x80\x04" + bytes(65_536)), "dead_letters.payload"),
        (pb.DeadLetter(kind=MARKS, subject="x" * 600), "dead_letters.subject"),
        (pb.DeadLetter(kind=MARKS, subject="\0"), "dead_letters.subject"),
    ],
)
async def test_what_is_no_letter_is_named(store: StoreClient, letter: pb.DeadLetter, field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await put(store, letter)
    assert error(caught).field == field
    assert await listed(store) == []


async def test_what_is_long_is_cut(store: StoreClient) -> None:
    [one] = await put(store, dispatch(1, detail="€" * 9_000, reason="R" * 500, attempts=4_000_000_000))
    letter = await get(store, one)
    assert (len(letter.detail), len(letter.reason), letter.attempts) == (4_000, 100, 1_000_000)


async def test_entries_to_be_told_again_wait_for_a_router(store: StoreClient) -> None:
    [one, _] = await put(store, dispatch(1), dispatch(2))
    await replay(store, one)
    [waiting] = await listed(store, kind=DISPATCH, replaying=True)
    assert (waiting.dead_letter_id, waiting.replaying) == (one, True)
    await put(store, dispatch(1, 3, 3))
    assert len(await listed(store, replaying=True)) == 1, "who put it began before"
    await put(store, dispatch(1, 4, 4), of_replay=True)
    assert await listed(store, replaying=True) == []
    await discard(store, one, update_time=waiting.update_time)
    assert (await get(store, one)).to_seq == 4, "what failed since is kept"
    await discard(store, one, update_time=(await get(store, one)).update_time)
    assert len(await listed(store)) == 1


async def test_marks_are_moved_after_all(store: StoreClient, database_url: str) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await store.say(chat, alice, "1", "2", "3")
    refuse(database_url, "bob", "UPDATE", "members", f"NEW.user_ordinal = {bob}")
    advance = MarkAdvance(conversation_id=chat, user_ordinal=bob, device_id="phone", delivered_seq=2, read_seq=1)
    with pytest.raises(grpc.RpcError) as caught:
        await store.advance(advance)
    assert error(caught).reason == "INTERNAL"
    [one] = await put(store, marks(chat, bob, delivered_seq=2, read_seq=1))
    with pytest.raises(grpc.RpcError) as caught:
        await replay(store, one)
    assert error(caught).reason == "INTERNAL"
    letter = await get(store, one)
    assert letter.attempts == 4 and "poisoned" in letter.detail
    allow(database_url, "bob", "members")
    await replay(store, one)
    assert await listed(store) == []
    [now] = await store.advance(MarkAdvance(conversation_id=chat, user_ordinal=bob))
    assert (now.delivered_seq, now.read_seq) == (2, 1)


async def test_marks_of_who_left_stay_with_the_reason(store: StoreClient) -> None:
    group = (await store.group("alice", "bob")).conversation_id
    mallory = await store.ordinal("mallory")
    for chat, reason in ((group, "NOT_A_MEMBER"), ("nowhere", "INVALID_CHAT_ID")):
        [one] = await put(store, marks(chat, mallory, read_seq=1))
        with pytest.raises(grpc.RpcError) as caught:
            await replay(store, one)
        assert error(caught).reason == reason
        letter = await get(store, one)
        assert (letter.reason, letter.attempts) == (reason, 4)


def test_a_put_is_always_later_than_the_one_before() -> None:
    first = DeadLetter(Kind.DISPATCH, "x", "R", "d", 1, from_seq=2, to_seq=2).put("dl", 100)
    second = first.united(first, b"", 50, of_replay=True)
    assert (second.created_at, second.updated_at) == (100, 101)
    assert second.failed_again("R", "d", 60).updated_at == 102

"""One entry that can't be stored, among many that can; and that no client can make one."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.behind import allow, refuse
from tests.store.client import StoreClient, edit, message, running_store
from tests.store.test_appender import MemoryLog, batch, running
from tidings.common.v1 import error_pb2
from tidings.common.v1.content_pb2 import Content, Text
from tidings.store.v1 import message_log_pb2 as pb

INTERNAL = error_pb2.ERROR_CODE_INTERNAL
hostile = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    st.sampled_from(
        ["\0", "a\0b", "\\u0000", "\ud7ff\ue000\uffff\U0010ffff", "'; DROP TABLE messages; --", "%s %b :name {wanted}", '{"a": [']
    ),
)
numbers = st.one_of(st.integers(0, 3), st.sampled_from([2**31, 2**32 - 1]))
seqs = st.one_of(st.integers(0, 3), st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64 - 1]))
contents = st.one_of(
    st.builds(lambda text: Content(text=Text(text=text)), hostile),
    st.binary(max_size=100).map(lambda junk: Content(text=Text(text="x" * len(junk)))),
    st.just(Content()),
    st.just(None),
)


async def test_an_entry_that_the_database_refuses_is_refused_alone(store: StoreClient, database_url: str) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chats = [await store.direct("alice", "bob"), (await store.group("alice", "bob")).conversation_id]
    refuse(database_url, "poison", "INSERT", "messages", "NEW.client_msg_id = 'poison'")
    entries = [message(chats[n % 2], (alice, bob)[n % 3 % 2], f"m{n}") for n in range(200)]
    entries[77] = message(chats[1], alice, "poison")
    call = store.append_batches([entries[:150], entries[150:]])
    results = [result for response in await asyncio.wait_for(call, 30) for result in response.results]
    assert [number for number, result in enumerate(results) if result.refusal] == [77]
    assert results[77].refusal == INTERNAL
    for chat in chats:
        told = [result.seq for entry, result in zip(entries, results, strict=True) if entry.conversation_id == chat and result.seq]
        assert told == sorted(told) and told[-1] == len(await store.entries(chat))
    [again, other] = await store.append(message(chats[1], alice, "poison"), edit(chats[0], alice, "e", results[0].seq))
    assert (again.refusal, bool(other.seq)) == (INTERNAL, True), "and nothing is stuck"
    allow(database_url, "poison", "messages")
    [mended] = await store.append(message(chats[1], alice, "poison"))
    assert mended.seq and not mended.duplicate


async def test_finding_it_costs_few_transactions() -> None:
    log, attempts = MemoryLog(), 0
    append = log.append
    log.poison = "777"

    async def counted(drafts: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return await append(drafts)

    log.append = counted  # type: ignore[method-assign]
    async with running(log) as appender:
        outcomes = await asyncio.wait_for(await appender.submit(batch(*map(str, range(1000)))), 5)
    assert [number for number, outcome in enumerate(outcomes) if outcome.refusal] == [777]
    assert attempts <= 21
    assert [name for names in log.batches for name in names] == [str(n) for n in range(1000) if n != 777]


def test_nothing_that_a_client_can_say_is_such_an_entry(database_url: str) -> None:
    with asyncio.Runner() as runner:
        manager = running_store(database_url)
        store = runner.run(manager.__aenter__())
        alice, bob = runner.run(store.ordinals("alice", "bob"))
        chat = runner.run(store.direct("alice", "bob"))
        ids = st.sampled_from([chat, "g" + "a" * 26]) | hostile
        drafts = st.builds(
            pb.NewEntry, conversation_id=ids, sender_ordinal=numbers, client_msg_id=hostile, target_seq=seqs, content=contents
        )
        advances = st.builds(
            pb.MarkAdvance, conversation_id=ids, user_ordinal=numbers, delivered_seq=seqs, read_seq=seqs, device_id=st.just("phone")
        )
        turn = iter(range(1_000_000))

        @settings(max_examples=40, deadline=None)
        @given(st.lists(drafts, max_size=8), contents.filter(bool), st.lists(advances, min_size=1, max_size=8))
        def said(entries: list[pb.NewEntry], content: Content, marks: list[pb.MarkAdvance]) -> None:
            number = next(turn)
            good = pb.NewEntry(conversation_id=chat, sender_ordinal=alice, client_msg_id=f"good{number}", content=content)
            results = runner.run(store.append(*entries, good))
            assert results[-1].seq and not any(result.refusal == INTERNAL for result in results)
            marks.append(pb.MarkAdvance(conversation_id=chat, user_ordinal=bob, device_id="d", read_seq=results[-1].seq))
            assert runner.run(store.advance(*marks))[-1].read_seq >= results[-1].seq
            assert runner.run(store.entries(chat, bob))[-1].content == content

        try:
            said()
        finally:
            runner.run(manager.__aexit__(None, None, None))


@pytest.mark.parametrize("size", [1_000_000, 7_000_000])
async def test_a_large_one_is_stored_like_any_other(store: StoreClient, size: int) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    results = await store.append(message(chat, alice, "a"), message(chat, alice, "b", "x" * size), message(chat, alice, "c"))
    assert [result.seq for result in results] == [1, 2, 3]

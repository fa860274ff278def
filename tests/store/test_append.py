"""What Append promises, on both engines, over gRPC."""

import asyncio
import re

import grpc
import pytest

from tests.store.client import StoreClient, content, deletion, edit, message, reason, texts
from tidings.common.v1 import error_pb2
from tidings.store.v1 import message_log_pb2 as pb


async def test_seqs_are_dense_and_entries_read_back(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    assert await store.say(chat, alice, "one", "two") == [1, 2]
    assert await store.say(chat, bob, "three") == [3]
    entries = await store.entries(chat, bob)
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert texts(entries) == ["one", "two", "three"]
    assert [entry.sender_id for entry in entries] == ["alice", "alice", "bob"]
    assert entries[2].message_id == f"{chat}:3"
    assert entries[0].store_time.seconds > 1_700_000_000


async def test_a_repeat_gets_the_original_place(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    [first] = await store.append(message(chat, alice, "x", "original"))
    again = await store.append(message(chat, alice, "x", "other text"), message(chat, bob, "x"), message(chat, alice, "y"))
    assert [result.seq for result in again] == [1, 2, 3]
    assert [result.duplicate for result in again] == [True, False, False]
    assert again[0].store_time == first.store_time
    assert texts(await store.entries(chat)) == ["original", "hello", "hello"]


async def test_repeats_within_a_batch_and_a_transaction(store: StoreClient) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    batch = [message(chat, alice, "x"), message(chat, alice, "x"), message(chat, alice, "y"), message(chat, alice, "x")]
    responses = await store.append_batches([batch, batch])
    assert [response.batch_id for response in responses] == [1, 2]
    assert [[result.seq for result in response.results] for response in responses] == [[1, 1, 2, 1]] * 2
    assert [result.duplicate for result in responses[0].results] == [False, True, False, True]
    assert all(result.duplicate for result in responses[1].results)


async def test_a_repeat_is_known_after_its_sender_left(store: StoreClient) -> None:
    bob = await store.ordinal("bob")
    group = await store.group("alice", "bob")
    [first] = await store.append(message(group.conversation_id, bob, "x"))
    await store.remove("bob", group.conversation_id, "bob")
    again, fresh = await store.append(message(group.conversation_id, bob, "x"), message(group.conversation_id, bob, "y"))
    assert again.duplicate
    assert again.seq == first.seq
    assert fresh.refusal == error_pb2.ERROR_CODE_NOT_A_MEMBER
    assert fresh.seq == 0


async def test_refusals_spoil_nothing_else(store: StoreClient) -> None:
    alice, mallory = await store.ordinals("alice", "mallory")
    chat = await store.direct("alice", "bob")
    results = await store.append(
        message("d" + "a" * 26, alice, "1"),
        message("not an id", alice, "2"),
        message(chat, mallory, "3"),
        message(chat, 4_000_000_000, "4"),
        message(chat, alice, ""),
        message(chat, alice, "nul\0"),
        pb.NewEntry(conversation_id=chat, sender_ordinal=alice, client_msg_id="5"),
        message(chat, alice, "6"),
    )
    assert [result.refusal for result in results] == [
        error_pb2.ERROR_CODE_INVALID_CHAT_ID,
        error_pb2.ERROR_CODE_INVALID_CHAT_ID,
        error_pb2.ERROR_CODE_NOT_A_MEMBER,
        error_pb2.ERROR_CODE_NOT_A_MEMBER,
        error_pb2.ERROR_CODE_INVALID_FIELD,
        error_pb2.ERROR_CODE_INVALID_FIELD,
        error_pb2.ERROR_CODE_INVALID_FIELD,
        error_pb2.ERROR_CODE_UNSPECIFIED,
    ]
    assert results[-1].seq == 1


async def test_membership_version_comes_with_every_result(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    group = await store.group("alice", "bob")
    [before] = await store.append(message(group.conversation_id, alice, "1"))
    await store.remove("alice", group.conversation_id, "bob")
    after, refused, repeat = await store.append(
        message(group.conversation_id, alice, "2"),
        message(group.conversation_id, bob, "2"),
        message(group.conversation_id, alice, "1"),
    )
    assert before.membership_version == group.membership_version
    assert {result.membership_version for result in (after, refused, repeat)} == {group.membership_version + 1}


async def test_edits_and_deletions_are_entries(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await store.say(chat, alice, "first", "second")
    edited, deleted = await store.append(edit(chat, alice, "e", 1, "better"), deletion(chat, alice, "d", 2))
    assert (edited.seq, deleted.seq) == (3, 4)
    entries = await store.entries(chat, bob)
    assert [entry.WhichOneof("body") for entry in entries] == ["content", "content", "edit", "deletion"]
    assert texts(entries) == ["first", ""]
    assert entries[2].edit.target_seq == 1
    assert entries[2].edit.content == content("better")
    assert entries[3].deletion.target_seq == 2


async def test_a_deletion_erases_the_message_and_its_edits(store: StoreClient) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await store.say(chat, alice, "secret", "kept")
    await store.append(edit(chat, alice, "e1", 1, "secret too"), edit(chat, alice, "e2", 2, "kept too"))
    await store.append(deletion(chat, alice, "d", 1))
    entries = await store.entries(chat)
    assert b"secret" not in b"".join(entry.SerializeToString() for entry in entries)
    assert entries[0].HasField("content")
    assert entries[2].edit.target_seq == 1
    assert entries[3].edit.content == content("kept too")


async def test_what_may_not_be_edited_or_deleted(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    group = (await store.group("alice", "bob")).conversation_id
    await store.say(group, alice, "mine")  # entry 1 is the group's creation
    await store.append(edit(group, alice, "e", 2))
    cases = [
        (edit(group, bob, "1", 2), error_pb2.ERROR_CODE_NOT_YOUR_MESSAGE),
        (deletion(group, bob, "2", 2), error_pb2.ERROR_CODE_NOT_YOUR_MESSAGE),
        (deletion(group, alice, "3", 1), error_pb2.ERROR_CODE_NOT_YOUR_MESSAGE),
        (deletion(group, alice, "4", 3), error_pb2.ERROR_CODE_NOT_YOUR_MESSAGE),
        (edit(group, alice, "5", 99), error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND),
        (edit(group, alice, "6", 2**64 - 1), error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND),
    ]
    results = await store.append(*(entry for entry, _ in cases))
    assert [result.refusal for result in results] == [refusal for _, refusal in cases]
    assert len(await store.entries(group)) == 3


async def test_deleting_twice_is_harmless_and_editing_the_deleted_is_refused(store: StoreClient) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await store.say(chat, alice, "gone")
    results = await store.append(deletion(chat, alice, "1", 1), deletion(chat, alice, "2", 1), edit(chat, alice, "3", 1))
    assert [result.seq for result in results] == [2, 3, 0]
    assert results[2].refusal == error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND
    [later] = await store.append(edit(chat, alice, "4", 1))
    assert later.refusal == error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND


async def test_target_and_deletion_in_one_batch(store: StoreClient) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    results = await store.append(
        message(chat, alice, "1", "oops"), edit(chat, alice, "2", 1, "ooops"), deletion(chat, alice, "3", 1)
    )
    assert [result.seq for result in results] == [1, 2, 3]
    assert b"oops" not in b"".join(entry.SerializeToString() for entry in await store.entries(chat))


async def test_streams_at_once_stay_gap_free(store: StoreClient) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")

    async def send(sender: int) -> list[int]:
        batches = [[message(chat, sender, f"{batch}-{n}") for n in range(7)] for batch in range(20)]
        responses = await store.append_batches(batches)
        return [result.seq for response in responses for result in response.results]

    ones, others = await asyncio.gather(send(alice), send(bob))
    assert ones == sorted(ones)
    assert others == sorted(others)
    assert sorted(ones + others) == list(range(1, 281))


async def test_a_batch_too_long_ends_the_stream_after_answering_those_before(store: StoreClient) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    call = store.messages.Append()
    await call.write(pb.AppendRequest(batch_id=1, entries=[message(chat, alice, "x")]))
    await call.write(pb.AppendRequest(batch_id=2, entries=[message(chat, alice, str(n)) for n in range(1_001)]))
    first = await call.read()
    assert isinstance(first, pb.AppendResponse)
    assert first.results[0].seq == 1
    with pytest.raises(grpc.RpcError) as caught:
        await call.read()
    assert reason(caught.value) == "INVALID_FIELD"
    assert await store.say(chat, alice, "the store goes on") == [2]


async def test_an_empty_batch_is_answered(store: StoreClient) -> None:
    [response] = await store.append_batches([[]])
    assert response.batch_id == 1
    assert not response.results


async def test_ids_look_as_promised(store: StoreClient) -> None:
    assert re.fullmatch("d[a-z2-7]{26}", await store.direct("alice", "bob"))
    assert re.fullmatch("g[a-z2-7]{26}", (await store.group("alice")).conversation_id)

"""What retention promises, on both engines; time is passed in."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mesh.times import clock
from store.ports import Database
from store.serve import open_database
from store.settings import StoreSettings
from store.sweeper import Sweeper
from tests.store.client import StoreClient, message, running_store, texts
from tidings.common.v1 import conversation_pb2 as common
from tidings.common.v1 import error_pb2
from tidings.store.v1 import conversation_pb2
from tidings.store.v1 import message_log_pb2 as pb

HOUR = 3_600_000_000  # microseconds
WEEK = 7 * 24 * HOUR
FOR_AN_HOUR = common.Retention(kind=common.RETENTION_KIND_FOR_TIME)
FOR_AN_HOUR.keep.FromTimedelta(timedelta(hours=1))
UNTIL_DELIVERED = common.Retention(kind=common.RETENTION_KIND_UNTIL_DELIVERED)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The same database that `store` runs on."""
    options: dict[str, Any] = {"database": database_url}
    async with open_database(StoreSettings(**options)) as (opened, _):
        yield opened


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[StoreClient]:
    async with running_store(database_url) as client:
        yield client


@pytest.fixture
def sweeper(database: Database, store: StoreClient) -> Sweeper:
    """A sweeper beside the running store, which has migrated the database."""
    return Sweeper(database, clock, resend=WEEK)


async def rows(database: Database, where: str) -> list[int]:
    """Seqs of the rows that are there."""
    statement = text("SELECT seq FROM messages WHERE conversation_id = :where ORDER BY seq")
    return await database.read(lambda connection: list(connection.execute(statement, {"where": where}).scalars()))


async def keep(store: StoreClient, where: str, retention: common.Retention) -> None:
    """Change what a direct chat of alice keeps."""
    request = conversation_pb2.UpdateConversationRequest(actor_id="alice", conversation_id=where, retention=retention)
    await store.conversations.UpdateConversation(request)


async def ack(store: StoreClient, where: str, user: int, seq: int) -> None:
    """Deliver up to a seq."""
    await store.advance(pb.MarkAdvance(conversation_id=where, user_ordinal=user, device_id="d", delivered_seq=seq))


async def test_entries_past_their_time_go(store: StoreClient, sweeper: Sweeper) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    kept, swept = await store.direct("alice", "carol"), await store.direct("alice", "bob")
    await store.say(kept, alice, "kept")
    await keep(store, swept, FOR_AN_HOUR)
    await store.say(swept, alice, *"123")
    assert await sweeper.sweep(clock()) == 0
    assert await sweeper.sweep(clock() + HOUR + 1_000_000) == 3
    assert await store.entries(swept, bob) == []
    assert texts(await store.entries(kept)) == ["kept"]
    conversation = await store.conversation(swept)
    assert (conversation.last_seq, conversation.retained_from_seq) == (3, 4)
    assert await store.say(swept, alice, "seqs go on") == [4]
    assert [entry.seq for entry in await store.entries(swept, bob)] == [4]


async def test_delivered_entries_go(store: StoreClient, sweeper: Sweeper) -> None:
    alice, bob, carol = await store.ordinals("alice", "bob", "carol")
    group = (await store.group("alice", "bob", "carol", retention=UNTIL_DELIVERED)).conversation_id
    await store.say(group, alice, *"23456")
    await ack(store, group, alice, 6)
    await ack(store, group, bob, 4)
    assert await sweeper.sweep(clock()) == 0
    await ack(store, group, carol, 3)
    assert await sweeper.sweep(clock()) == 3
    assert [entry.seq for entry in await store.entries(group, bob)] == [4, 5, 6]
    await store.remove("alice", group, "carol")  # entry 7; what carol had not got holds nobody up any more
    assert await sweeper.sweep(clock()) == 1
    assert (await store.conversation(group)).retained_from_seq == 5


async def test_who_joins_late_holds_up_only_what_they_can_see(store: StoreClient, sweeper: Sweeper) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    group = (await store.group("alice", retention=UNTIL_DELIVERED)).conversation_id
    await store.say(group, alice, *"23")
    await store.put("alice", group, "bob")
    await ack(store, group, alice, 4)
    assert await sweeper.sweep(clock()) == 3
    assert (await store.conversation(group)).retained_from_seq == 4


async def test_a_sync_says_what_it_cannot_bring(store: StoreClient, sweeper: Sweeper) -> None:
    alice, bob = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await keep(store, chat, FOR_AN_HOUR)
    await store.say(chat, alice, *"123")
    await ack(store, chat, bob, 1)
    await sweeper.sweep(clock() + 2 * HOUR)
    question = pb.DeviceSync(user_ordinal=bob, device_id="d", page_size=10)
    [page] = await store.sync(question)
    assert [(run.truncated, len(run.entries), run.last_seq, run.first_available_seq) for run in page.runs] == [(True, 0, 3, 4)]
    await store.say(chat, alice, "4")
    [page] = await store.sync(question)
    assert [(run.truncated, [entry.seq for entry in run.entries]) for run in page.runs] == [(True, [4])]


async def test_a_repeat_is_known_for_a_week_after_removal(store: StoreClient, sweeper: Sweeper, database: Database) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chat = await store.direct("alice", "bob")
    await keep(store, chat, FOR_AN_HOUR)
    await store.append(message(chat, alice, "x", "secret"))
    await sweeper.sweep(clock() + 2 * HOUR)
    [again] = await store.append(message(chat, alice, "x", "secret"))
    assert (again.seq, again.duplicate) == (1, True)
    edit = pb.NewEntry(conversation_id=chat, sender_ordinal=alice, client_msg_id="d", target_seq=1)
    [refused] = await store.append(edit)
    assert refused.refusal == error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND
    body = text("SELECT body FROM messages WHERE conversation_id = :chat")
    assert await database.read(lambda connection: connection.execute(body, {"chat": chat}).scalar_one()) is None
    await sweeper.sweep(clock() + WEEK + 2 * HOUR)
    assert await rows(database, chat) == []
    [forgotten] = await store.append(message(chat, alice, "x"))
    assert (forgotten.seq, forgotten.duplicate) == (2, False)


async def test_large_logs_go_in_steps(store: StoreClient, sweeper: Sweeper, database: Database) -> None:
    alice, _ = await store.ordinals("alice", "bob")
    chats = [await store.direct("alice", "bob"), (await store.group("alice", retention=UNTIL_DELIVERED)).conversation_id]
    await keep(store, chats[0], FOR_AN_HOUR)
    for chat in chats:
        await store.append_batches([[message(chat, alice, f"{batch}.{n}") for n in range(900)] for batch in range(3)])
        await ack(store, chat, alice, 2_701)
    assert await sweeper.sweep(clock() + 2 * HOUR) == 2_700 + 2_701
    await sweeper.sweep(clock() + WEEK + 2 * HOUR)
    assert [await rows(database, chat) for chat in chats] == [[], []]
    assert [(await store.conversation(chat)).last_seq for chat in chats] == [2_700, 2_701]


async def test_the_creation_of_a_group_is_told_again_after_it_was_swept(store: StoreClient, sweeper: Sweeper) -> None:
    first = await store.group("alice", request_id="same", retention=FOR_AN_HOUR)
    await sweeper.sweep(clock() + 2 * HOUR)
    request = conversation_pb2.CreateGroupRequest(actor_id="alice", request_id="same", name="group", retention=FOR_AN_HOUR)
    again = await store.conversations.CreateGroup(request)
    assert again.conversation.conversation_id == first.conversation_id
    assert again.entry.seq == 1
    assert again.entry.membership.name == "group"

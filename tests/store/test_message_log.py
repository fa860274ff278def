"""The message log's port, on both engines: what the servicer and the appender would hide from the tests over gRPC."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from mesh import naming
from mesh.times import clock
from store.conversations import ensure_direct
from store.migrate import migrate
from store.model import Draft, Outcome
from store.ports import Database, MessageLog
from store.serve import open_database
from store.settings import StoreSettings

CHAT, OTHER = naming.direct_conversation_id("alice", "bob"), naming.direct_conversation_id("alice", "carol")
ALICE, BOB = 1, 2


@pytest.fixture
async def opened(database_url: str) -> AsyncIterator[tuple[Database, MessageLog]]:
    """A database with two direct chats."""
    options: dict[str, Any] = {"database": database_url}
    async with open_database(StoreSettings(**options)) as (database, log):
        await database.write(migrate)
        await database.write(lambda connection: ensure_direct(connection, [("alice", "bob"), ("alice", "carol")], clock()))
        yield database, log


def draft(name: str, where: str = CHAT, sender: int = ALICE, target: int = 0, body: bytes | None = b"text") -> Draft:
    """A draft."""
    return Draft(where, sender, name, target, body)


def short(outcomes: list[Outcome]) -> list[int | str]:
    """Seqs; "=seq" for repeats, names for refusals."""
    return [
        outcome.refusal.name if outcome.refusal else f"={outcome.seq}" if outcome.duplicate else outcome.seq for outcome in outcomes
    ]


async def test_repeats_in_one_batch(opened: tuple[Database, MessageLog]) -> None:
    _, log = opened
    batch = [draft("a"), draft("a"), draft("a", OTHER), draft("a", sender=BOB), draft("b"), draft("a")]
    assert short(await log.append(batch)) == [1, "=1", 1, 2, 3, "=1"]
    assert short(await log.append(batch)) == ["=1", "=1", "=1", "=2", "=3", "=1"]


async def test_each_alone_in_its_conversation(opened: tuple[Database, MessageLog]) -> None:
    _, log = opened
    assert short(await log.append([draft("a"), draft("a", OTHER)])) == [1, 1]
    assert short(await log.append([draft("b"), draft("a", OTHER)])) == [2, "=1"]
    assert short(await log.append([draft("c", OTHER, BOB), draft("c", "d" + "a" * 26), draft("a")])) == [
        "NOT_A_MEMBER",
        "INVALID_CHAT_ID",
        "=1",
    ]
    assert short(await log.append([draft("d"), draft("d", OTHER)])) == [3, 2]


async def test_edits_beside_messages_keep_each_log_in_order(opened: tuple[Database, MessageLog]) -> None:
    _, log = opened
    batch = [draft("1"), draft("1", OTHER), draft("2", target=1), draft("2", OTHER), draft("3"), draft("4", target=1, body=None)]
    assert short(await log.append(batch)) == [1, 1, 2, 2, 3, 4]
    refused = [draft("5", target=1), draft("6", sender=BOB, target=1), draft("7", where="d" + "a" * 26, target=1)]
    assert short(await log.append(refused)) == ["MESSAGE_NOT_FOUND", "NOT_YOUR_MESSAGE", "INVALID_CHAT_ID"]


async def test_times_never_fall_though_clocks_do(database_url: str) -> None:
    options: dict[str, Any] = {"database": database_url}
    times = iter((1_000, 5, 2_000, 7))  # of stores whose clocks differ
    async with open_database(StoreSettings(**options), lambda: next(times)) as (database, log):
        await database.write(migrate)
        await database.write(lambda connection: ensure_direct(connection, [("alice", "bob")], 900))
        batches = [[draft("1")], [draft("2")], [draft("3", target=1)], [draft("4", target=1)]]
        outcomes = [(await log.append(batch))[0] for batch in batches]
    assert [(outcome.seq, outcome.stored_at) for outcome in outcomes] == [(1, 1_000), (2, 1_000), (3, 2_000), (4, 2_000)]


@pytest.mark.postgresql
async def test_a_cancelled_append_leaves_a_log_that_works(postgres_url: str) -> None:
    options: dict[str, Any] = {"database": postgres_url}
    async with open_database(StoreSettings(**options)) as (database, log):
        await database.write(lambda connection: ensure_direct(connection, [("alice", "bob")], clock()))
        assert short(await log.append([draft("0")])) == [1]
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("SELECT 1 FROM conversations FOR UPDATE")
            stuck = asyncio.create_task(log.append([draft("1")]))
            await _waits_for_a_lock(postgres_url)
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck
        assert short(await log.append([draft("2")])) in ([2], [3])


_STORED = """
INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
VALUES (%(chat)s, 2, {}, {}, 1, 0, 0, 'text')
"""
_MOVED = "UPDATE conversations SET last_seq = 2 WHERE conversation_id = %(chat)s"
MEANWHILE = {
    "nothing that counts": (["UPDATE conversations SET dispatched_seq = 1 WHERE conversation_id = %(chat)s"], [2, 1]),
    "another message": ([_STORED.format(BOB, "'other'"), _MOVED], [3, 1]),
    "the same message": ([_STORED.format(ALICE, "'1'"), _MOVED], ["=2", 1]),
    "its sender left": (
        [_STORED.format(ALICE, "NULL"), _MOVED, f"DELETE FROM members WHERE conversation_id = %(chat)s AND user_ordinal = {ALICE}"],
        ["NOT_A_MEMBER", 1],
    ),
}


@pytest.mark.postgresql
@pytest.mark.parametrize(("changes", "expected"), MEANWHILE.values(), ids=MEANWHILE)
async def test_what_another_store_did_while_it_waited_counts(
    postgres_url: str, changes: list[str], expected: list[int | str]
) -> None:
    options: dict[str, Any] = {"database": postgres_url}
    async with open_database(StoreSettings(**options)) as (database, log):
        await database.write(lambda connection: ensure_direct(connection, [("alice", "bob"), ("alice", "carol")], clock()))
        assert short(await log.append([draft("0")])) == [1]
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            for change in changes:
                await other.execute(change.encode(), {"chat": CHAT})
            waiting = asyncio.create_task(log.append([draft("1"), draft("1", OTHER)]))
            await _waits_for_a_lock(postgres_url)
            await other.commit()
        assert short(await waiting) == expected


async def _waits_for_a_lock(url: str) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        async with asyncio.timeout(10):
            while (await (await connection.execute(query)).fetchone()) != (1,):  # noqa: ASYNC110
                await asyncio.sleep(0)  # nothing tells when a session begins to wait

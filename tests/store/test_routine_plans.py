"""A routine is planned once a minute, maybe while the tables are empty: it goes by keys then, and so when they are full."""

from collections.abc import Sequence

import psycopg
import pytest

from store.postgres_line import PostgresLine, Routine
from store.postgres_message_log import _ADVANCE, _APPEND, _APPEND_APART

MEMBERS, MESSAGES, LOGS = 3_000, 20_000, 500
ENOUGH = 100  # pages of 8 KiB: going by keys it is 35, reading the whole of one table 270
DRAFT = (1, ["g1"], [7], ["new"], [b"text"])
CALLS = {
    "append": (_APPEND, DRAFT),
    "append apart": (_APPEND_APART, DRAFT),
    "advance": (_ADVANCE, (["g1"], [7], ["phone"], [9], [0])),
}


def fill(postgres_url: str) -> None:
    """One large group among many logs."""
    with psycopg.connect(postgres_url, autocommit=True) as session:
        session.execute(
            f"INSERT INTO users (ordinal, user_id, created_at) SELECT n, 'u' || n, 0 FROM generate_series(1, {MEMBERS}) n"
        )
        session.execute(f"""
            INSERT INTO conversations (conversation_id, kind, name, last_seq, retained_from_seq, removed_below_seq, dispatched_seq,
              membership_version, retention_kind, retention_keep, created_at, last_entry_at)
            SELECT 'g' || n, 2, 'large', {MESSAGES}, 1, 0, 0, 1, 1, 0, 0, 0 FROM generate_series(1, {LOGS}) n
        """)
        session.execute(f"""
            INSERT INTO members (conversation_id, user_ordinal, role, visible_from_seq, delivered_seq, read_seq)
            SELECT 'g1', n, 3, 1, 0, 0 FROM generate_series(1, {MEMBERS}) n
        """)
        session.execute(f"""
            INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
            SELECT 'g1', n, 7, 'id-' || n, 1, 0, 0, 'text' FROM generate_series(1, {MESSAGES}) n
        """)


async def pages(line: PostgresLine, call: str, values: Sequence[object]) -> int:
    """How many pages a call touches."""
    assert line._connection is not None
    cursor = await line._connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}".encode(), values)
    [([explained],)] = await cursor.fetchall()
    return int(explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"])


@pytest.mark.parametrize(("routine", "values"), CALLS.values(), ids=CALLS)
async def test_a_plan_made_while_all_was_empty_goes_by_keys(postgres_url: str, routine: Routine, values: Sequence[object]) -> None:
    line = PostgresLine(postgres_url, routine)
    await line.run(routine, values)
    fill(postgres_url)
    assert await pages(line, routine.calling, values) < ENOUGH
    await line.close()


@pytest.mark.parametrize(("routine", "values"), CALLS.values(), ids=CALLS)
async def test_a_plan_for_tables_known_to_be_empty_does_not_last(
    postgres_url: str, routine: Routine, values: Sequence[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as session:
        session.execute("VACUUM ANALYZE")
    line = PostgresLine(postgres_url, routine)
    await line.run(routine, values)
    fill(postgres_url)
    monkeypatch.setattr("store.postgres_line._PLANNED_SECONDS", 0.0)
    await line.run(routine, values)
    assert await pages(line, routine.calling, values) < ENOUGH
    await line.close()

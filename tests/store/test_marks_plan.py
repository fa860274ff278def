"""How PostgreSQL moves marks: each member of a large group is looked up by key, whatever the planner knows of the table."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from store.postgres_message_log import _ADVANCE

GIVEN = ["ARRAY['g1', 'g1']", "ARRAY[1, 2]", "ARRAY['d', 'd']", "ARRAY[5, 5]", "ARRAY[0, 0]"]


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection]:
    """A session on a database with one group of 3,000."""
    with psycopg.connect(postgres_url, autocommit=True) as session:
        session.execute("INSERT INTO users (ordinal, user_id, created_at) SELECT n, 'u' || n, 0 FROM generate_series(1, 3000) AS n")
        session.execute("""
            INSERT INTO conversations (conversation_id, kind, name, last_seq, retained_from_seq, removed_below_seq, dispatched_seq,
              membership_version, retention_kind, retention_keep, created_at, last_entry_at)
            VALUES ('g1', 2, 'large', 9, 1, 0, 0, 1, 1, 0, 0, 0)
        """)
        session.execute("""
            INSERT INTO members (conversation_id, user_ordinal, role, visible_from_seq, delivered_seq, read_seq)
            SELECT 'g1', n, 3, 1, 0, 0 FROM generate_series(1, 3000) AS n
        """)
        yield session


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("statement", [f"SELECT {_ADVANCE.lock}", _ADVANCE.work])
def test_members_are_looked_up_by_key(connection: psycopg.Connection, statement: str, analyzed: bool, mode: str) -> None:
    if analyzed:
        connection.execute("ANALYZE")
    connection.execute(f"SET plan_cache_mode = {mode}".encode())
    for number, name in enumerate(_ADVANCE.parameters, 1):
        statement = re.sub(rf"\b{name}\b", f"${number}", statement)
    connection.execute(f"PREPARE asked ({', '.join(_ADVANCE.parameters.values())}) AS {statement}".encode())
    plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN EXECUTE asked ({', '.join(GIVEN)})".encode()))
    assert "Seq Scan on members" not in plan, plan
    assert "Join Filter" not in plan, plan

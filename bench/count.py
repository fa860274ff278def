"""Asks the database itself what a run left in it, past all services: SQL of our own, over the store's tables."""

import sqlite3
from typing import Any

import psycopg

_COUNT = """
    WITH mine AS (
        SELECT DISTINCT members.conversation_id
        FROM users JOIN members ON members.user_ordinal = users.ordinal
        WHERE users.user_id LIKE {prefix}
    ), logs AS (
        SELECT count(*) AS entries, max(seq) AS last, count(client_msg_id) AS named,
            count(DISTINCT sender_ordinal || ' ' || client_msg_id) AS names
        FROM messages WHERE conversation_id IN (SELECT conversation_id FROM mine)
        GROUP BY conversation_id
    )
    SELECT coalesce(sum(entries), 0), coalesce(sum(last - entries), 0), coalesce(sum(named - names), 0) FROM logs
"""


def count_rows(database: str, prefix: str) -> dict[str, int]:
    """What is in the conversations of the users whose ids begin with `prefix`.

    Args:
        database: sqlite:///file or postgresql://…
        prefix: of user ids.

    Returns:
        entries: rows; holes: seqs missing below the last; doubled: rows of a (sender, client_msg_id) beyond the first.
    """
    entries, holes, doubled = _ask(database, _COUNT, prefix)
    return {"entries": int(entries), "holes": int(holes), "doubled": int(doubled)}


def _ask(database: str, statement: str, prefix: str) -> tuple[Any, ...]:
    if database.startswith("sqlite:///"):
        connection = sqlite3.connect(f"file:{database.removeprefix('sqlite:///')}?mode=ro", uri=True)
        try:
            return tuple(connection.execute(statement.format(prefix="?"), (f"{prefix}%",)).fetchone())
        finally:
            connection.close()
    with psycopg.connect(database) as session:
        return tuple(session.execute(statement.format(prefix="%s").encode(), (f"{prefix}%",)).fetchone() or ())

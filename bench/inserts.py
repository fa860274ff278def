"""The database alone: batches of a hundred messages in the store's tables, seqs taken in the same transaction, by the driver only.

One session, one transaction per batch, flushed to disk at commit; what the store adds is the difference.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import sqlalchemy

from bench.baselines import SECONDS, Baseline
from bench.frames import text_of
from bench.servers import run_postgres
from store.schema import metadata

BATCH = 100
_IDS = [f"d{n:026d}" for n in range(BATCH)]
_BODY = text_of(120).encode()
_NEW_CONVERSATION = """
    INSERT INTO conversations (conversation_id, kind, name, last_seq, retained_from_seq, removed_below_seq, dispatched_seq,
        membership_version, retention_kind, retention_keep, created_at, last_entry_at)
    VALUES ({0}, 1, '', 0, 1, 1, 0, 1, 1, 0, 0, 0)
"""
_POSTGRES = b"""
    WITH wanted AS (
        SELECT * FROM unnest(%(ids)s::text[], %(names)s::text[], %(bodies)s::bytea[]) AS wanted(id, name, body)
    ), moved AS (
        UPDATE conversations SET last_seq = last_seq + 1 FROM wanted WHERE conversation_id = wanted.id
        RETURNING conversation_id, last_seq, wanted.name, wanted.body
    )
    INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
    SELECT conversation_id, last_seq, 1, name, 1, 0, 0, body FROM moved
"""
_SQLITE_MOVE = "UPDATE conversations SET last_seq = last_seq + 1 WHERE conversation_id = ?"
_SQLITE_INSERT = """
    INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
    SELECT conversation_id, last_seq, 1, ?, 1, 0, 0, ? FROM conversations WHERE conversation_id = ?
"""


def run_insert_baseline(engine: str) -> Baseline:
    """Rows per second; `engine` is "sqlite" or "postgresql"."""
    rate, cpu = _sqlite() if engine == "sqlite" else _postgres()
    driver = "sqlite3" if engine == "sqlite" else "psycopg"
    return Baseline(f"{driver} insert by {BATCH}", round(rate), round(cpu, 4), "one session, one durable transaction per batch")


def _sqlite() -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="tidings-insert-") as folder:
        path = Path(folder) / "baseline.sqlite"
        _create_tables(f"sqlite:///{path}")
        connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536"):
            connection.execute(f"PRAGMA {pragma}")
        connection.executemany(_NEW_CONVERSATION.format("?"), [(name,) for name in _IDS])

        def append(number: int) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_SQLITE_MOVE, [(name,) for name in _IDS])
            connection.executemany(_SQLITE_INSERT, [(str(number), _BODY, name) for name in _IDS])
            connection.execute("COMMIT")

        try:
            return _timed(append)
        finally:
            connection.close()


def _postgres() -> tuple[float, float]:
    with run_postgres(durable=True) as server:
        url = server.new_database()
        _create_tables(url.replace("postgresql://", "postgresql+psycopg://"))
        with psycopg.connect(url, autocommit=True) as session:
            session.cursor().executemany(_NEW_CONVERSATION.format("%s").encode(), [(name,) for name in _IDS])
            bodies = [_BODY] * BATCH
            return _timed(lambda number: _append_to_postgres(session, str(number), bodies))


def _append_to_postgres(session: "psycopg.Connection[tuple[object, ...]]", name: str, bodies: list[bytes]) -> None:
    session.execute(_POSTGRES, {"ids": _IDS, "names": [name] * BATCH, "bodies": bodies})


def _timed(append: Callable[[int], None]) -> tuple[float, float]:
    """Rows per second, and the driving process's CPU seconds per 1,000 rows."""
    batches, started, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() < started + SECONDS:
        append(batches)
        batches += 1
    rows = batches * BATCH
    return rows / (time.monotonic() - started), (time.process_time() - cpu) / rows * 1000


def _create_tables(url: str) -> None:
    engine = sqlalchemy.create_engine(url)
    metadata.create_all(engine)
    engine.dispose()

"""The database alone: messages in the store's tables, seqs taken in the same transaction, by the driver only.

One session, one transaction per batch, flushed to disk at commit: by a hundred as fast as it goes, and one by one at a given rate.
What the store adds is the difference.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import sqlalchemy

from bench.baselines import SECONDS, Baseline
from bench.frames import text_of
from bench.servers import run_postgres
from store.schema import metadata

BATCH = 100
LONE_SECONDS = 10.0
DRIVERS = {"sqlite": "sqlite3", "postgresql": "psycopg"}
Append = Callable[[int, int], None]
"""Inserts rows of a number, so many, and commits."""

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
    with _database(engine) as append:
        rate, cpu = _timed(append)
    how = "one session, one durable transaction per batch"
    return Baseline(f"{DRIVERS[engine]} insert by {BATCH}", round(rate), round(cpu, 4), how)


def lone_inserts(engine: str, rate: float, seconds: float = LONE_SECONDS) -> list[float]:
    """Seconds until durable: rows inserted one by one, due at a fixed rate, from when each was due."""
    waits: list[float] = []
    with _database(engine) as append:
        started = time.monotonic()
        for number in range(round(rate * seconds)):
            due = started + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            append(number, 1)
            waits.append(time.monotonic() - due)
    return waits


@contextmanager
def _database(engine: str) -> Iterator[Append]:
    with _sqlite() if engine == "sqlite" else _postgres() as append:
        yield append


@contextmanager
def _sqlite() -> Iterator[Append]:
    with tempfile.TemporaryDirectory(prefix="tidings-insert-") as folder:
        path = Path(folder) / "baseline.sqlite"
        _create_tables(f"sqlite:///{path}")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536"):
                connection.execute(f"PRAGMA {pragma}")
            connection.executemany(_NEW_CONVERSATION.format("?"), [(name,) for name in _IDS])

            def append(number: int, count: int) -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_SQLITE_MOVE, [(name,) for name in _IDS[:count]])
                connection.executemany(_SQLITE_INSERT, [(str(number), _BODY, name) for name in _IDS[:count]])
                connection.execute("COMMIT")

            yield append


@contextmanager
def _postgres() -> Iterator[Append]:
    with run_postgres(durable=True) as server:
        server.make_log_files()
        url = server.new_database()
        _create_tables(url.replace("postgresql://", "postgresql+psycopg://"))
        with psycopg.connect(url, autocommit=True) as session:
            session.cursor().executemany(_NEW_CONVERSATION.format("%s").encode(), [(name,) for name in _IDS])

            def append(number: int, count: int) -> None:
                session.execute(_POSTGRES, {"ids": _IDS[:count], "names": [str(number)] * count, "bodies": [_BODY] * count})

            yield append


def _timed(append: Append) -> tuple[float, float]:
    """Rows per second, and the driving process's CPU seconds per 1,000 rows."""
    batches, started, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() < started + SECONDS:
        append(batches, BATCH)
        batches += 1
    rows = batches * BATCH
    return rows / (time.monotonic() - started), (time.process_time() - cpu) / rows * 1000


def _create_tables(url: str) -> None:
    engine = sqlalchemy.create_engine(url)
    metadata.create_all(engine)
    engine.dispose()

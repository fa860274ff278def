"""SQLite: one file, one writer thread, a few readers beside it.

WAL with synchronous=FULL: a commit is on the disk before it is answered. Writers take turns in one thread, so nothing ever waits
for a lock inside this process; another process on the same file is waited for, then reported as passing.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from store.ports import T
from store.retrying import retrying

_READERS = 2  # reading is mostly Python's work on the rows, which more threads don't make faster
_BUSY_SECONDS = 5  # how long to wait for another process's transaction
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "cache_size=-65536",  # 64 MiB
    "wal_autocheckpoint=8000",  # pages of 4 KiB: written back eight times as seldom as by default, for twice the entries a second
    "journal_size_limit=67108864",  # 64 MiB
)


class SqliteDatabase:
    """See `store.ports.Database`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _engine(path, 1, "BEGIN IMMEDIATE")
        self._reader = _engine(path, _READERS, "BEGIN")
        self._write_thread = ThreadPoolExecutor(1, "sqlite-writer")
        self._read_threads = ThreadPoolExecutor(_READERS, "sqlite-reader")

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["SqliteDatabase"]:
        """Open the file, made when missing, until the context ends."""
        database = cls(path)
        try:
            yield database
        finally:
            await asyncio.to_thread(database._close)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `store.ports.Database`."""
        return await retrying(lambda: _submit(self._read_threads, self._reader, work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `store.ports.Database`."""
        return await retrying(lambda: self.write_once(work))

    async def write_once(self, work: Callable[[Connection], T]) -> T:
        """As `write`, for a caller who does the retrying."""
        return await _submit(self._write_thread, self._writer, work)

    def _close(self) -> None:
        self._write_thread.shutdown()
        self._read_threads.shutdown()
        self._writer.dispose()
        self._reader.dispose()


async def _submit(threads: ThreadPoolExecutor, engine: Engine, work: Callable[[Connection], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, _transact, engine, work)


def _transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def _engine(path: Path, size: int, begin: str) -> Engine:
    url = URL.create("sqlite", database=str(path))
    options = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    engine = create_engine(url, pool_size=size, max_overflow=0, connect_args=options)

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: on_begin does
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine

"""SQLite: one file, one writing connection, a few readers beside it.

WAL with synchronous=FULL: a commit is on the disk before it is answered. Whatever waits to be written becomes one transaction, each
piece under its own savepoint, so a flush of the disk serves all of them. The statements run on the event loop and only the commit,
which waits for the disk, in a thread: Python's sqlite3 lets go of the interpreter at every row, and getting it back from a busy
event loop takes longer than the row (measured: five times the transaction).

What the WAL holds is written back into the database by a thread and connection of its own, every second in which something was
written. Else the commit that fills the WAL does it, and everybody waits (thirty megabytes, a tenth of a second). Under a load that
fills the WAL within the second it still does: writing back seldom is worth more then.

A connection that met a fault nobody foresaw is not used again: a cursor that wasn't read to its end, which the traceback keeps,
would hold it at the database as it was then.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any, Generic

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from mesh.batching import Batcher, Closed
from mesh.errors import TidingsError
from mesh.process import background
from store.ports import PassingError, T
from store.retrying import passes, retrying
from store.sql import driver_of

_PREPARED = 512  # statements that a connection keeps: those of the hot path have up to ten texts each
_READERS = 2  # reading is mostly Python's work on the rows, which more threads don't make faster
_READ_BUSY_SECONDS = 5.0  # how long a reader's thread waits for another process
_WRITE_BUSY_SECONDS = 0.01  # the event loop hardly waits: the fault is a passing one, and the caller tries again
_QUEUE = 1_000  # pieces waiting to be written; when full, their callers wait
_GROUP = 64  # pieces in one transaction
CHECKPOINT_SECONDS = 1.0
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "cache_size=-65536",  # 64 MiB
    "wal_autocheckpoint=8000",  # pages of 4 KiB: written back eight times as seldom as by default, for twice the entries a second
    "journal_size_limit=67108864",  # 64 MiB
)


class _Piece(Generic[T]):
    """Something to be written, and what came of it."""

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self._work = work
        self._result: T | None = None
        self._error: Exception | None = None
        self.outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    @property
    def broke(self) -> bool:
        """Whether `run` met a fault."""
        return self._error is not None

    @property
    def stumbled(self) -> bool:
        """Whether that was one nobody foresaw."""
        return self._error is not None and _unforeseen(self._error)

    def run(self, connection: Connection, *, alone: bool) -> None:
        """Write. One that isn't alone in its transaction leaves no trace when it breaks."""
        try:
            with nullcontext() if alone else connection.begin_nested():
                self._result = self._work(connection)
        except Exception as error:
            self._error = error

    def committed(self) -> None:
        """Tell the caller."""
        if self._error is not None:
            self.failed(self._error)
        elif not self.outcome.done():
            self.outcome.set_result(self._result)  # type: ignore[arg-type]  # set by run

    def failed(self, error: Exception) -> None:
        """Tell the caller that nothing was written."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class SqliteDatabase:
    """See `store.ports.Database`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._written = False
        self._writer = _engine(path, 1, "BEGIN IMMEDIATE", _WRITE_BUSY_SECONDS)
        self._reader = _engine(path, _READERS, "BEGIN", _READ_BUSY_SECONDS)
        self._pieces: Batcher[_Piece[Any]] = Batcher(_QUEUE, _GROUP)
        self._commit_thread = ThreadPoolExecutor(1, "sqlite-commit")
        self._read_threads = ThreadPoolExecutor(_READERS, "sqlite-reader")
        self._checkpoint_thread = ThreadPoolExecutor(1, "sqlite-checkpoint")

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["SqliteDatabase"]:
        """Open the file, made when missing, until the context ends."""
        database = cls(path)
        writing = asyncio.create_task(database._write_groups())
        try:
            async with background(database._write_back()):
                yield database
        finally:
            database._pieces.close()
            await writing
            await asyncio.to_thread(database._close)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `store.ports.Database`."""
        loop = asyncio.get_running_loop()
        return await retrying(lambda: loop.run_in_executor(self._read_threads, _read, self._reader, work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `store.ports.Database`."""
        return await retrying(lambda: self.write_once(work))

    async def write_once(self, work: Callable[[Connection], T]) -> T:
        """As `write`, for a caller who does the retrying."""
        piece = _Piece(work)
        await self._pieces.put(piece)
        return await piece.outcome

    async def _write_groups(self) -> None:
        with self._writer.connect() as connection:
            while True:
                try:
                    pieces = await self._pieces.take()
                except Closed:
                    return
                try:
                    await self._write_group(connection, pieces)
                except Exception as error:
                    _undo(connection)
                    for piece in pieces:
                        piece.failed(error)

    async def _write_group(self, connection: Connection, pieces: Sequence[_Piece[Any]]) -> None:
        transaction = connection.begin()
        alone = len(pieces) == 1
        for piece in pieces:
            piece.run(connection, alone=alone)
            if not alone:
                _check_open(connection)
        end = transaction.rollback if alone and pieces[0].broke else transaction.commit
        await asyncio.get_running_loop().run_in_executor(self._commit_thread, end)
        self._written = True
        if any(piece.stumbled for piece in pieces):
            connection.invalidate()
        for piece in pieces:
            piece.committed()

    async def _write_back(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            if self._written:
                self._written = False
                with suppress(sqlite3.Error):  # the writer will come to it
                    await asyncio.get_running_loop().run_in_executor(self._checkpoint_thread, _checkpoint, self._path)

    def _close(self) -> None:
        self._checkpoint_thread.shutdown()
        self._commit_thread.shutdown()
        self._read_threads.shutdown()
        self._writer.dispose()
        self._reader.dispose()


def _undo(connection: Connection) -> None:
    """After a fault: the next group begins with nothing under way, if need be on a new connection."""
    connection.rollback()
    driver = connection.connection.driver_connection
    if driver is None or driver.in_transaction:
        connection.invalidate()


def _check_open(connection: Connection) -> None:
    """Make sure that a piece's fault has not undone those before it: a full disk, for one, makes SQLite end the whole transaction.

    Raises:
        PassingError: nothing of the group is written.
    """
    driver = connection.connection.driver_connection
    if driver is None or not driver.in_transaction:
        raise PassingError("SQLite gave up the transaction of a whole group")


def _read(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        try:
            with connection.begin():
                return work(connection)
        except Exception as error:
            if _unforeseen(error):
                connection.invalidate()
            raise


def _checkpoint(path: Path) -> None:
    """Write back what can be without making anybody wait."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _unforeseen(error: Exception) -> bool:
    return not isinstance(error, TidingsError) and not passes(error)


def _engine(path: Path, size: int, begin: str, busy_seconds: float) -> Engine:
    url = URL.create("sqlite", database=str(path))
    options = {"timeout": busy_seconds, "check_same_thread": False, "cached_statements": _PREPARED}
    engine = create_engine(url, pool_size=size, max_overflow=0, connect_args=options)

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: on_begin does
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        driver_of(connection).execute(begin)  # a fifth of what SQLAlchemy's way costs, once a group

    return engine

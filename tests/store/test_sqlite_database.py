"""Group commit on SQLite: what is told as written is written, whatever befalls another piece of the group."""

import asyncio
import sqlite3
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from mesh.errors import TidingsError
from store.sqlite_database import SqliteDatabase


def _insert(size: int, connection: Connection) -> None:
    connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(?))", (size,))


def _make(connection: Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE t (body BLOB)")
    connection.exec_driver_sql("PRAGMA max_page_count = 20")


def _sizes(connection: Connection) -> list[int]:
    return [size for (size,) in connection.exec_driver_sql("SELECT length(body) FROM t ORDER BY 1")]


async def test_a_full_disk_takes_no_neighbour_with_it(tmp_path: Path) -> None:
    """SQLite ends the whole transaction, not only the savepoint, when the disk is full."""
    async with SqliteDatabase.open(tmp_path / "store.sqlite") as database:
        await database.write(_make)
        sizes = (100, 1_000_000, 200)
        outcomes = await asyncio.gather(*(database.write(partial(_insert, size)) for size in sizes), return_exceptions=True)
        told = [size for size, outcome in zip(sizes, outcomes, strict=True) if outcome is None]
        assert await database.read(_sizes) == told
        assert isinstance(outcomes[1], TidingsError)
        await database.write(partial(_insert, 300))
        assert await database.read(_sizes) == [*told, 300]


async def test_a_reading_that_breaks_midway_leaves_no_old_snapshot(tmp_path: Path) -> None:
    """What it had not read to its end would keep its connection at the database as it was then, for the readings after it."""
    broken = []

    def stumble(connection: Connection) -> None:
        rows = connection.exec_driver_sql("SELECT * FROM t")
        for row in rows:
            broken.append(row)
            raise LookupError

    async with SqliteDatabase.open(tmp_path / "store.sqlite") as database:
        await database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (body BLOB)").close())
        await asyncio.gather(*(database.write(partial(_insert, size)) for size in range(1, 50)))
        faults = []
        for work in (database.read, database.write):
            faults += await asyncio.gather(*(work(stumble) for _ in range(4)), return_exceptions=True)
        await database.write(partial(_insert, 50))
        for _ in range(8):
            assert len(await database.read(_sizes)) == 50
        with closing(sqlite3.connect(tmp_path / "store.sqlite")) as elsewhere, elsewhere:
            elsewhere.execute("INSERT INTO t VALUES (zeroblob(51))")
        await asyncio.wait_for(database.write(partial(_insert, 52)), 2)
        assert all(isinstance(fault, LookupError) for fault in faults) and len(broken) == len(faults)


async def test_what_was_written_comes_into_the_file_though_the_log_is_not_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the commit that fills the log would write all of it back while everybody waits."""
    monkeypatch.setattr("store.sqlite_database.CHECKPOINT_SECONDS", 0.01)

    def in_the_file() -> int:
        (tmp_path / "copy.sqlite").write_bytes((tmp_path / "store.sqlite").read_bytes())  # without its log
        with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy, suppress(sqlite3.Error):
            return int(copy.execute("SELECT count(*) FROM t").fetchone()[0])
        return 0

    async with asyncio.timeout(10), SqliteDatabase.open(tmp_path / "store.sqlite") as database:
        await database.write(_make)
        for count in (1, 2):
            await database.write(partial(_insert, 100))
            while in_the_file() < count:  # noqa: ASYNC110  a file tells nobody
                await asyncio.sleep(0.01)

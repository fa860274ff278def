"""Group commit on SQLite: what is told as written is written, whatever befalls another piece of the group."""

import asyncio
from functools import partial
from pathlib import Path

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

"""One psycopg connection kept for one purpose, opened when needed and again when lost.

What it runs is a pipeline: a statement that takes locks, then one that does the work, sent together and committed together. Each
sees what was committed before it began, so the second sees everything under the locks of the first; and the whole is one round
trip.
"""

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection

from store.postgres_database import CONNECT_SECONDS, LIVELINESS, SESSION_OPTIONS
from store.retrying import passing_faults

Query = tuple[LiteralString, Sequence[object]]
"""A statement and its parameters."""


class PostgresLine:
    """One connection, one caller at a time.

    Args:
        conninfo: a libpq connection string or URL.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: AsyncConnection[tuple[Any, ...]] | None = None

    async def locked(self, lock: Query, work: Query) -> list[tuple[Any, ...]]:
        """Run `lock`, then `work`, in one transaction; gives the rows of `work` once they are durable.

        Raises:
            PassingError: the connection was lost or could not be made, or another transaction was in the way.
            psycopg.Error: the data is at fault; nothing was done.
        """
        with passing_faults():
            connection = await self._connected()
            try:
                async with connection.pipeline():
                    await connection.execute(*lock)
                    cursor = await connection.execute(*work)
                return await cursor.fetchall()
            except BaseException:
                # Whatever happened, cancellation included, the next call begins on a connection that has nothing under way.
                await self.close()
                raise

    async def close(self) -> None:
        """Let the connection go; another call opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> AsyncConnection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._conninfo,
                autocommit=True,
                prepare_threshold=0,
                options=SESSION_OPTIONS,
                connect_timeout=CONNECT_SECONDS,
                client_encoding="utf8",
                **LIVELINESS,
            )
        return self._connection

"""One psycopg connection kept for one purpose, opened when needed and again when lost.

What it runs are routines: a statement that takes locks, then one that does the work, one transaction in one round trip. Each sees
what was committed before it began, so the second sees everything under the locks of the first. One that can tell whether what it
read still holds needs no first. A routine is a function that the connection makes for itself when it opens: nothing of it is in
the schema, so stores of different versions don't share it. Sent as two statements in a pipeline, which is the other way, a batch of
one costs the store twice the CPU.

Each statement is planned once a minute, whatever the values: left to choose, PostgreSQL found on half of the connections that
planning it anew for each call pays, which it doesn't, and then spent as much on planning as on all the rest. A plan may be made
while tables are empty, so a routine must read by keys; a minute is how long one may last that no longer fits them.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, AsyncCursor, sql

from store.ports import PassingError
from store.postgres_database import CONNECT_SECONDS, LIVELINESS, SESSION_OPTIONS
from store.retrying import passing_faults

_PLANNED_SECONDS = 60.0
_OPTIONS = f"{SESSION_OPTIONS} -c plan_cache_mode=force_generic_plan"
# VOLATILE, as functions are unless told otherwise: each statement in it takes a snapshot of its own.
_MAKE = """
CREATE FUNCTION pg_temp.{name}({parameters}) RETURNS TABLE ({columns}) LANGUAGE plpgsql AS $routine$
#variable_conflict use_column
BEGIN
  {lock}
  RETURN QUERY {work};
END
$routine$
"""


@dataclass(frozen=True, slots=True)
class Routine:
    """One or two statements, one transaction.

    Attributes:
        name: an identifier.
        parameters: names, by which the statements know them, and their types; no column's name.
        work: what gives the rows.
        columns: of the rows, with their types.
        lock: what takes locks first: a SELECT's text without the word.
    """

    name: LiteralString
    parameters: dict[LiteralString, LiteralString]
    work: LiteralString
    columns: LiteralString
    lock: LiteralString = ""

    @property
    def making(self) -> sql.Composed:
        """The statement that makes it."""
        lock: LiteralString = f"PERFORM {self.lock};" if self.lock else ""
        parts = {"name": self.name, "columns": self.columns, "lock": lock, "work": self.work}
        parameters = ", ".join(f"{name} {kind}" for name, kind in self.parameters.items())
        return sql.SQL(_MAKE).format(parameters=sql.SQL(parameters), **{key: sql.SQL(text) for key, text in parts.items()})

    @property
    def calling(self) -> LiteralString:
        """The statement that calls it, with values in the parameters' order."""
        return f"SELECT * FROM pg_temp.{self.name}({', '.join(f'%b::{kind}' for kind in self.parameters.values())})"  # noqa: S608 (ours, all of it)


class PostgresLine:
    """One connection, one caller at a time.

    Args:
        conninfo: a libpq connection string or URL.
        routines: what it runs.
    """

    def __init__(self, conninfo: str, *routines: Routine) -> None:
        self._conninfo = conninfo
        self._callings = {routine.name: routine.calling for routine in routines}
        self._routines = routines
        self._connection: AsyncConnection[tuple[Any, ...]] | None = None
        self._cursor: AsyncCursor[tuple[Any, ...]] | None = None
        self._planned_at = 0.0

    async def open(self) -> None:
        """Open the connection and make the routines before anybody waits for it; a fault that may pass is left for `run` to meet.

        Raises:
            psycopg.Error: it will never be possible, for instance because the role may not make temporary functions.
        """
        with suppress(PassingError), passing_faults():
            await self._open()

    async def run(self, routine: Routine, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Run one of its routines; gives its rows once they are durable.

        Raises:
            PassingError: the connection was lost or could not be made, or another transaction was in the way.
            psycopg.Error: the data is at fault; nothing was done.
        """
        cursor = self._cursor or await self._reopened()
        with passing_faults():
            try:
                await self._plan_again(cursor)
                await cursor.execute(self._callings[routine.name], values, prepare=True)
                return await cursor.fetchall()
            except BaseException:
                # Whatever happened, cancellation included, the next call begins on a connection that has nothing under way.
                await self.close()
                raise

    async def close(self) -> None:
        """Let the connection go; another call opens a new one."""
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            await connection.close()

    async def _plan_again(self, cursor: AsyncCursor[tuple[Any, ...]]) -> None:
        """Have plans that are old made anew by who needs them next."""
        if time.monotonic() - self._planned_at > _PLANNED_SECONDS:
            await cursor.execute("DISCARD PLANS")
            self._planned_at = time.monotonic()

    async def _reopened(self) -> AsyncCursor[tuple[Any, ...]]:
        """What fails here is no fault of the data."""
        try:
            return await self._open()
        except psycopg.Error as error:
            raise PassingError(str(error).strip()) from error

    async def _open(self) -> AsyncCursor[tuple[Any, ...]]:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo,
            autocommit=True,
            options=_OPTIONS,
            connect_timeout=CONNECT_SECONDS,
            client_encoding="utf8",
            **LIVELINESS,
        )
        try:
            for routine in self._routines:
                await connection.execute(routine.making)
        except BaseException:
            await connection.close()
            raise
        self._connection, self._cursor, self._planned_at = connection, connection.cursor(binary=True), time.monotonic()
        return self._cursor

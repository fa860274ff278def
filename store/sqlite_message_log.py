"""The message log on SQLite: a batch is one transaction of the writer thread."""

from collections.abc import Callable, Sequence
from functools import partial

from store.append_sql import append
from store.marks_sql import advance
from store.model import Advance, Draft, Moved, Outcome
from store.retrying import passing_faults
from store.sqlite_database import SqliteDatabase


class SqliteMessageLog:
    """See `store.ports.MessageLog`.

    Args:
        database: where.
        clock: microseconds since 1970.
    """

    def __init__(self, database: SqliteDatabase, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See `store.ports.MessageLog`."""
        with passing_faults():
            return await self._database.write_once(partial(append, drafts=drafts, now=self._clock()))

    async def advance(self, advances: Sequence[Advance]) -> list[Moved]:
        """See `store.ports.MessageLog`."""
        return await self._database.write(partial(advance, advances=advances))

"""Entries read from the database alone."""

from collections.abc import Sequence
from functools import partial

from store import entries, sync, sync_sql
from store.ports import Database


class DatabaseHistory:
    """See `store.ports.History`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(self, question: entries.Question) -> entries.Page:
        """See `store.ports.History`."""
        return await self._database.read(partial(entries.list_entries, question=question))

    async def sync_devices(self, questions: Sequence[sync.Question]) -> list[sync.SyncPage]:
        """See `store.ports.History`."""
        return await self._database.read(partial(sync_sql.sync_devices, questions=questions))

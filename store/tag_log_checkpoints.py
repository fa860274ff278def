"""Saves and loads checkpoints of the tag log, part by part: one part at a time is held in memory, and written in a transaction."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial

import structlog

from mesh import errors
from store import tag_log_checkpoint_sql as sql
from store.ports import Database

_log = structlog.get_logger(__name__)


class Checkpoints:
    """The checkpoints in a database.

    Args:
        database: which.
        clock: microseconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def save(self, version: int, parts: AsyncIterator[bytes]) -> bool:
        """Keep what all records up to `version` add up to; False when a newer checkpoint is there. When `parts` raises, nothing is
        kept.

        Raises:
            TidingsError: INVALID_FIELD when the log isn't that far; UNAVAILABLE when the database stays away, or it took an hour.
        """
        checkpoint_id, newest = await self._database.write(partial(sql.begin, version=version))
        if version <= newest:
            async for _ in parts:
                pass  # a caller that writes to the end hears the answer rather than a broken stream
            return version == newest
        await self._tidy()
        try:
            kept = await self._staged_and_shown(sql.Checkpoint(checkpoint_id, version, 0), parts)
        except BaseException:
            await self._tidy(given_up_id=checkpoint_id)
            raise
        await self._tidy()
        return kept

    async def load(self) -> AsyncIterator[tuple[int, bytes]]:
        """The version and each part of the newest checkpoint; nothing when there is none.

        Raises:
            TidingsError: UNAVAILABLE when a newer one replaces it meanwhile, or the database stays away.
        """
        newest = await self._database.read(sql.read_newest)
        for number in range(newest.parts):
            part = await self._database.read(partial(sql.read_part, checkpoint_id=newest.checkpoint_id, number=number))
            if part is None:
                raise errors.unavailable("a newer checkpoint has replaced this one: load again", retry_after=0.1)
            yield newest.version, part

    async def _staged_and_shown(self, save: sql.Checkpoint, parts: AsyncIterator[bytes]) -> bool:
        async for part in parts:
            await self._database.write(partial(sql.stage, save=save, part=part, now=self._clock()))
            save = replace(save, parts=save.parts + 1)
        return await self._database.write(partial(sql.show, save=save))

    async def _tidy(self, given_up_id: int = 0) -> None:
        """Remove what isn't needed any more; what is left when that fails, the next save removes."""
        try:
            while await self._database.write(partial(sql.remove_some, given_up_id=given_up_id, now=self._clock())):
                pass
        except errors.TidingsError as error:
            _log.warning("old checkpoints stay till the next save", error=error.message)

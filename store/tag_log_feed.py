"""Tells followers of the tag log what is new.

Each follower reads from the database, page by page, from where it stands: a slow one costs one page of memory. In between they
wait: an append of this process wakes them at once; appends of others, and new users, are found by asking the database now and then,
once for all followers, and not at all while there is none.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from mesh import errors
from store.ports import Database
from store.tag_log import Page, Position, read_page, read_position

POLL_SECONDS = 0.2  # a quarter of a second is promised, reading included
BEAT_SECONDS = 2.0  # a follower that hears nothing for some of these follows elsewhere: a stream may be lost without a word
_log = structlog.get_logger(__name__)


class TagLogFeed:
    """The followers of one process.

    Args:
        database: where the log is.
        poll_seconds: pause between two looks at it.
    """

    def __init__(self, database: Database, poll_seconds: float = POLL_SECONDS) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._latest = Position()
        self._changed = asyncio.Event()
        self._followed = asyncio.Event()
        self._followers = 0
        self._stopping = False

    async def run(self) -> None:
        """Look for what others did, while anybody follows. Runs until cancelled."""
        while True:
            await self._followed.wait()
            try:
                self._learn(await self._database.read(read_position))
            except errors.TidingsError as error:
                _log.warning("the tag log can't be looked at", error=error.message)
            await asyncio.sleep(self._poll_seconds)

    def appended(self, version: int) -> None:
        """The log is at this version: tell the followers."""
        self._learn(Position(version))

    def stop(self) -> None:
        """Send the followers elsewhere."""
        self._stopping = True
        self._changed.set()

    async def follow(self, after_version: int) -> AsyncIterator[Page]:
        """What is new after a version, for ever: the first page at once, then whenever there is news, and every BEAT_SECONDS.

        Raises:
            TidingsError: SNAPSHOT_GONE when records after the follower's position are not kept any more; UNAVAILABLE when the
                database stays away, or this store is stopping.
        """
        with self._following():
            while True:
                known = self._latest
                page = await self._database.read(partial(read_page, after_version=after_version))
                yield page
                after_version = page.version
                if page.is_last:
                    await self._beyond(known.joined(page.position))

    @contextmanager
    def _following(self) -> Iterator[None]:
        self._followers += 1
        self._followed.set()
        try:
            yield
        finally:
            self._followers -= 1
            if self._followers == 0:
                self._followed.clear()

    def _learn(self, position: Position) -> None:
        latest = self._latest.joined(position)
        if latest != self._latest:
            self._latest = latest
            self._changed.set()
            self._changed = asyncio.Event()

    async def _beyond(self, seen: Position) -> None:
        """Wait for news, but not for longer than a beat."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEAT_SECONDS):
                while not self._stopping and self._latest.joined(seen) == seen:
                    await self._changed.wait()
        if self._stopping:
            raise errors.unavailable("this store is stopping: follow the log at another")

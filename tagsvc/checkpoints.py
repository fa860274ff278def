"""Makes checkpoints now and then, so that a tagsvc that starts need not read the whole log.

Every instance makes them, without agreeing on who: the store keeps the newest, and jitter lets one be first. A pause after each,
many times as long as it took, keeps large ones from taking all the time.
"""

import asyncio
import random
import time
from dataclasses import dataclass

import structlog

from mesh import errors
from tagset.snapshot import Snapshot, parts
from tagsvc.history import History
from tagsvc.journal import Journal
from tagsvc.meters import Meters
from tagsvc.ports import TagLog

PART_BYTES = 3 * 1024 * 1024  # the contract allows 4 MiB
_JITTER = 0.5  # of what to wait for
_REST = 20.0  # times as long as the last one took: making checkpoints takes at most a twentieth of the time
_LEAST_REST_SECONDS = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """When a checkpoint is due: after so many records since the last, or so many bytes of them."""

    records: int
    record_bytes: int


class Checkpoints:
    """The maker of checkpoints of one instance."""

    def __init__(self, log: TagLog, journal: Journal, due: Due, meters: Meters) -> None:
        self._log = log
        self._journal = journal
        self._due = due
        self._meters = meters
        self._last = _Mark(journal.history)

    async def run(self) -> None:
        """Make them until cancelled."""
        while True:
            await self._wait()
            seconds = await self._make()
            await asyncio.sleep(max(_LEAST_REST_SECONDS, seconds * _REST))

    async def _wait(self) -> None:
        """Until one is due."""
        share = random.uniform(1, 1 + _JITTER)  # noqa: S311  (no secret)
        while not self._is_due(share):
            await self._journal.changed()

    def _is_due(self, share: float) -> bool:
        history = self._journal.history
        if self._last.history is not history:
            self._last = _Mark(history)  # it has just begun with what a checkpoint, if any, held
        records, size = history.version - self._last.version, history.bytes_added - self._last.bytes_added
        return records >= self._due.records * share or (records > 0 and size >= self._due.record_bytes * share)

    async def _make(self) -> float:
        """Make one; gives how many seconds it took."""
        started, snapshot, outcome = time.monotonic(), self._journal.history.newest, "failed"
        try:
            mark = _Mark(self._journal.history, snapshot.version, self._journal.history.bytes_added)
            outcome = "kept" if await self._saved(snapshot) else "older"
            self._last = mark
        except errors.TidingsError as error:
            _log.warning("no checkpoint could be made", version=snapshot.version, reason=error.reason, error=error.message)
        seconds = time.monotonic() - started
        self._meters.checkpointed(outcome, seconds)
        return seconds

    async def _saved(self, snapshot: Snapshot) -> bool:
        encoded = (part.SerializeToString() for part in parts(snapshot, PART_BYTES))
        return await self._log.save_checkpoint(snapshot.version, encoded)


class _Mark:
    """How far the last checkpoint reached: a place in a history."""

    def __init__(self, history: History, version: int | None = None, bytes_added: int = 0) -> None:
        self.history = history
        self.version = history.first_version if version is None else version
        self.bytes_added = bytes_added

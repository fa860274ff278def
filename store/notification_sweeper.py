"""Forgetting what notifications need not keep any more: recipients, some time after the end, and first answers to requests.

Each step is a small transaction. Several stores may sweep at once: each looks again under the row's lock. Totals are kept for ever.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy import Connection

from mesh.errors import TidingsError
from store import notification_block_rows, notification_requests, notification_rows
from store.ports import Database
from store.sql import Statement

GRACE = 600 * 1_000_000  # microseconds: acknowledgements that come late still count where only totals are kept afterwards
_PER_RECIPIENT, _TOTALS = 1, 2  # the contract's StatusReport
_FOUND = 100  # notifications looked for at a time
_ANSWERS = 1_000  # removed in one transaction
_OLD = Statement(
    """
    SELECT notification_id FROM notifications
    WHERE state > 4 AND recipients_kept = 1 AND status_report = :status_report AND finished_at <= :until
    ORDER BY finished_at LIMIT :most
    """
)
_FORGOTTEN = Statement("UPDATE notifications SET recipients_kept = 0 WHERE notification_id = :notification_id")
_log = structlog.get_logger(__name__)


class NotificationSweeper:
    """Sweeps a database.

    Args:
        database: which.
        clock: microseconds since 1970.
        keep_recipients: microseconds for which who was sent a notification, and who has it, is known after its end, unless it asked
            for totals only.
        keep_answers: microseconds for which a repeated request gets its first answer.
    """

    def __init__(self, database: Database, clock: Callable[[], int], keep_recipients: int, keep_answers: int) -> None:
        self._database = database
        self._clock = clock
        self._keep = {_PER_RECIPIENT: keep_recipients, _TOTALS: min(GRACE, keep_recipients)}
        self._keep_answers = keep_answers

    async def run(self, pause: float) -> None:
        """Sweep, wait `pause` seconds, again. Runs until cancelled."""
        while True:
            try:
                await self.sweep(self._clock())
            except TidingsError as error:
                _log.warning("sweep given up till the next round", error=error.message)
            await asyncio.sleep(pause)

    async def sweep(self, now: int) -> int:
        """Forget everything that may go at `now`; gives of how many notifications the recipients went."""
        forget = partial(notification_requests.forget, until=now - self._keep_answers, most=_ANSWERS)
        while await self._database.write(forget):
            pass
        return sum([await self._sweep_recipients(status_report, now - keep) for status_report, keep in self._keep.items()])

    async def _sweep_recipients(self, status_report: int, until: int) -> int:
        total = 0
        find = partial(_find, status_report=status_report, until=until)
        while found := await self._database.read(find):
            for notification_id in found:
                await self._database.write(partial(_forget, notification_id=notification_id))
            total += len(found)
        return total


def _find(connection: Connection, status_report: int, until: int) -> list[str]:
    return list(_OLD(connection, status_report=status_report, until=until, most=_FOUND).scalars())


def _forget(connection: Connection, notification_id: str) -> None:
    """Once over, it stays over: there is nothing to look at again but that nobody is writing just now."""
    notification_rows.lock(connection, [notification_id])
    notification_block_rows.remove(connection, notification_id)
    _FORGOTTEN(connection, notification_id=notification_id)

"""Reports as they change, for many watchers at the price of one reading of each notification.

Rules: what is watched is read in batches at a steady pace while anybody watches. A watcher who is slow gets the newest report and
misses those in between. The store being away delays reports and ends nothing.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator

import structlog

from mesh import errors
from mesh.errors import TidingsError
from scheduler.ports import NotificationStore
from tidings.common.v1.notification_pb2 import NOTIFICATION_STATE_COMPLETED, NotificationReport
from tidings.store.v1.notification_pb2 import NOTIFICATION_VIEW_BRIEF, GetNotificationsRequest

_BATCH = 500  # brief ones, together below 16 MiB
_RETRY_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class _Watcher:
    """One who watches: a slot for the newest report, or for the error that ends it."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.report: NotificationReport | None = None
        self.error: TidingsError | None = None

    def tell(self, report: NotificationReport) -> None:
        if _differ(report, self.report):
            self.report = report
            self.changed.set()

    def fail(self, error: TidingsError) -> None:
        self.error = error
        self.changed.set()

    async def next(self) -> NotificationReport:
        await self.changed.wait()
        self.changed.clear()
        if self.error is not None:
            raise self.error
        assert self.report is not None, "a watcher is woken for a report or an error"  # noqa: S101
        return self.report


class Watches:
    """All who watch.

    Args:
        interval: seconds between two readings.
        most: watchers at once; more are refused.
    """

    def __init__(self, store: NotificationStore, interval: float, most: int) -> None:
        self._store = store
        self._interval = interval
        self._most = most
        self._watchers: dict[str, set[_Watcher]] = defaultdict(set)
        self._count = 0
        self._any = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return self._count

    async def follow(self, notification_id: str) -> AsyncGenerator[NotificationReport, None]:
        """A notification's report, at once and whenever it has changed, until it is over.

        Raises:
            TidingsError: NOTIFICATION_NOT_FOUND; OVERLOADED when too many watch; UNAVAILABLE when this scheduler stops, or
                when the store is away at the beginning.
        """
        watcher = self._enter(notification_id)
        try:
            await self._read([notification_id])
            while True:
                report = await watcher.next()
                yield report
                if report.state >= NOTIFICATION_STATE_COMPLETED:
                    return
        finally:
            self._leave(notification_id, watcher)

    async def run(self) -> None:
        """Read what is watched until cancelled."""
        while True:
            await self._any.wait()
            await asyncio.sleep(self._interval)
            watched = list(self._watchers)
            for start in range(0, len(watched), _BATCH):
                with contextlib.suppress(TidingsError):
                    await self._read(watched[start : start + _BATCH])

    def close(self) -> None:
        """End all watching: those who watch ask another scheduler."""
        self._closed = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.fail(errors.unavailable("this scheduler stops: watch again"))

    def _enter(self, notification_id: str) -> _Watcher:
        if self._closed:
            raise errors.unavailable("this scheduler stops: watch again")
        if self._count >= self._most:
            raise errors.overloaded(_RETRY_SECONDS, "watching")
        watcher = _Watcher()
        self._watchers[notification_id].add(watcher)
        self._count += 1
        self._any.set()
        return watcher

    def _leave(self, notification_id: str, watcher: _Watcher) -> None:
        self._watchers[notification_id].discard(watcher)
        if not self._watchers[notification_id]:
            del self._watchers[notification_id]
        self._count -= 1
        if not self._count:
            self._any.clear()

    async def _read(self, notification_ids: list[str]) -> None:
        request = GetNotificationsRequest(notification_ids=notification_ids, view=NOTIFICATION_VIEW_BRIEF)
        found = {one.notification_id: one.report for one in (await self._store.get(request)).notifications}
        for one in notification_ids:
            for watcher in self._watchers.get(one, ()):
                if one in found:
                    watcher.tell(found[one])
                else:
                    watcher.fail(errors.notification_not_found(one))


def _differ(new: NotificationReport, old: NotificationReport | None) -> bool:
    """Whether two readings tell different things."""
    if old is None:
        return True
    one, other = NotificationReport(), NotificationReport()
    one.CopyFrom(new)
    other.CopyFrom(old)
    one.ClearField("read_time")
    other.ClearField("read_time")
    return one != other

"""Notifications under way at this router: takes claims, watches the time, and keeps a few calls to the store going.

One task drives all runs: it gathers what is due into calls, of which a few may be under way, so that no run waits for another's.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable

import structlog
from pyroaring import BitMap

from mesh import errors
from router.agenda import Entry
from router.directory import chunks
from router.link import EdgeLink
from router.notification_run import NotificationRun
from router.notification_table import RunTable
from router.ports import NotificationStore
from router.preparation import Preparation
from router.progress import ProgressWriter
from router.roster import Roster
from tidings.common.v1.notification_pb2 import NotificationReport
from tidings.router.v1.notification_pb2 import StartNotification
from tidings.store.v1.notification_pb2 import Claim, ReleaseNotificationsRequest

_CALLS = 4  # to the store, under way at once
_GATHER_SECONDS = 0.02  # a call begun so lately is given time to end: meanwhile what falls due gathers for the next
_RENEW_SECONDS = 1.0  # how often leases are looked at
_SPREAD_SECONDS = 0.05  # between two rounds that tell all runs who came online, or more: a round may take
_SPREAD_SHARE = 0.1  # at most this share of the time
_RUNS_A_TURN = 500  # told in one go, so that chat doesn't wait
_log = structlog.get_logger(__name__)


class Notifications:
    """See above.

    Args:
        due: set when something may be due; the table's `wake` sets it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        table: RunTable,
        preparation: Preparation,
        progress: ProgressWriter,
        store: NotificationStore,
        roster: Roster[EdgeLink],
        due: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._preparation = preparation
        self._progress = progress
        self._store = store
        self._roster = roster
        self._clock = clock
        self._due = due
        self._under_way: set[asyncio.Task[None]] = set()
        self._renewal = 0.0
        self._spreading = 0.0
        self._gathered = 0.0
        self._leaving = False

    def start(self, claims: Iterable[StartNotification]) -> list[str]:
        """Take claims; gives the ids of those for which there is no room, or no time, because this router leaves."""
        return [claim.notification_id for claim in claims if not self._start(claim)]

    def refresh(self, notification_ids: Iterable[str]) -> None:
        """Look in the store what became of these. One there is no room to look at hears of it with its next write."""
        for notification_id in notification_ids:
            run = self._table.get(notification_id)
            if run is not None:
                self._preparation.read(run)

    def recorded(self, notification_id: str, ordinals: BitMap, report: NotificationReport) -> None:
        """The store has it that these have one."""
        self._table.recorded(notification_id, ordinals, report, self._clock())

    async def drive(self) -> None:
        """Do what is due until cancelled."""
        while True:
            self._due.clear()
            try:
                await self._turn()
            except Exception:
                _log.exception("a turn of notifications failed")
                await asyncio.sleep(_RENEW_SECONDS)
            await self._pause()

    async def leave(self, within: float) -> None:
        """This router stops: take no more, finish the steps under way, and give up what isn't over; another goes on at once."""
        self._leaving = True
        await self._preparation.leave(within)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=within)
        runs = list(self._table)
        for run in runs:
            self._table.end(run, "released", self._clock())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._release(runs)

    def _start(self, claim: StartNotification) -> bool:
        if self._leaving or not self._table.room_for(claim.notification_id):
            return False
        run = self._table.enter(claim.notification_id, claim.fence, self._clock())
        if run is None or self._preparation.read(run):
            return True
        self._table.end(run, "refused", self._clock())
        return False

    async def _turn(self) -> None:
        now = self._clock()
        if now >= self._renewal:
            self._table.agenda.renew(iter(self._table), now)
            self._renewal = now + _RENEW_SECONDS
        await self._spread(now)
        self._write()

    async def _spread(self, now: float) -> None:
        """Tell all runs who came, now and then."""
        if not self._table.news or now < self._spreading:
            return
        for number, _ in enumerate(self._table.spread(now)):
            if number % _RUNS_A_TURN == _RUNS_A_TURN - 1:
                await asyncio.sleep(0)
        ended = self._clock()
        self._spreading = ended + max(_SPREAD_SECONDS, (ended - now) / _SPREAD_SHARE)

    def _write(self) -> None:
        """Make calls for what is due, as long as there is any."""
        while self._may_call() <= self._clock():
            entries = self._table.batch(self._roster.online, self._clock())
            if not entries:
                return
            self._gathered = self._clock() + _GATHER_SECONDS
            self._under_way.add(asyncio.create_task(self._call(entries)))

    async def _call(self, entries: list[Entry]) -> None:
        try:
            await self._progress.write(entries)
        finally:
            self._under_way -= {asyncio.current_task()}
            self._due.set()

    def _may_call(self) -> float:
        """When the next call may be made."""
        if self._leaving or len(self._under_way) >= _CALLS:
            return math.inf
        return self._gathered if self._under_way else 0.0

    async def _pause(self) -> None:
        """Wait until something is due."""
        moments = [self._renewal]
        if self._table.news:
            moments.append(self._spreading)
        if self._table.agenda.next is not None:
            moments.append(max(self._table.agenda.next, self._may_call()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._due.wait(), max(0.0, min(moments) - self._clock()))

    async def _release(self, runs: list[NotificationRun]) -> None:
        for part in chunks(runs):
            claims = [Claim(notification_id=run.notification_id, fence=run.fence) for run in part]
            try:
                await self._store.release_notifications(ReleaseNotificationsRequest(claims=claims))
            except errors.TidingsError as error:
                _log.warning("notifications not released", count=len(claims), reason=error.reason, error=error.message)

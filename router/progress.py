"""Writes what runs are about to do, and does it: one call for all that is due, and after its commit one broadcast per run and edge.

Rules: nobody is sent anything that the store has not accepted under the run's fence, nor after the lease that its answer confirmed,
counted from before the call was made. A call of which nothing was heard is made again as it was. One run that the store refuses
doesn't hinder the others.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from mesh import errors, patience
from router import bitmaps
from router.agenda import Entry
from router.notification_run import NotificationRun
from router.notification_table import RunTable
from router.ports import NotificationStore
from router.preparation import seconds
from router.sender import Sender
from tidings.store.v1.notification_pb2 import Claim, Progress, ProgressResult, SaveProgressRequest

_TURN_SECONDS = 0.004  # after this long others get the event loop: chat must not wait for broadcasts
_log = structlog.get_logger(__name__)


class ProgressWriter:
    """See above.

    Args:
        lease: seconds for which a write confirms ownership.
        clock: monotonic seconds.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        table: RunTable,
        store: NotificationStore,
        sender: Sender,
        lease: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._store = store
        self._sender = sender
        self._lease = lease
        self._clock = clock
        self._wall = wall
        self._delays = patience.delays()

    async def write(self, entries: list[Entry]) -> None:
        """Write and act; afterwards the runs are under way no more."""
        try:
            await self._write(entries)
        except errors.TidingsError as error:
            delay = next(self._delays)
            _log.warning("progress not written yet", runs=len(entries), reason=error.reason, error=error.message)
            self._failed(entries, delay)
        except Exception as error:
            _log.exception("progress failed", runs=len(entries))
            await self._refused(entries, error)

    def _failed(self, entries: list[Entry], delay: float) -> None:
        now = self._clock()
        for entry in entries:
            self._table.agenda.failed(entry.run, now, delay)

    async def _write(self, entries: list[Entry]) -> None:
        called = self._clock()
        request = SaveProgressRequest(progress=map(_progress, entries), lease=seconds(self._lease))
        try:
            response = await self._store.save_progress(request)
        except errors.TidingsError as error:
            if error.code in patience.PASSING:
                raise
            await self._refused(entries, error)
            return
        self._delays = patience.delays()
        await self._act_on_all(list(zip(entries, response.results, strict=True)), called)

    async def _refused(self, entries: list[Entry], error: Exception) -> None:
        """Find the one that can't be written; that is given up."""
        if len(entries) == 1:
            self._table.give_up(entries[0].run, "refused", error, self._clock())
            return
        middle = len(entries) // 2
        await self.write(entries[:middle])
        await self.write(entries[middle:])

    async def _act_on_all(self, answered: list[tuple[Entry, ProgressResult]], called: float) -> None:
        turn = self._clock()
        for entry, result in answered:
            try:
                self._act(entry, result, called)
                self._table.agenda.written(entry.run, self._clock())
            except Exception as error:
                _log.exception("a run failed", notification=entry.run.notification_id)
                self._table.give_up(entry.run, "faulty", error, self._clock())
            if self._clock() - turn > _TURN_SECONDS:
                await asyncio.sleep(0)
                turn = self._clock()

    def _act(self, entry: Entry, result: ProgressResult, called: float) -> None:
        run, plan = entry
        if not result.HasField("report"):
            self._table.end(run, "unknown", self._clock())
            return
        if not self._table.told(run, result.report, self._clock()):
            return
        if result.fenced and not result.early:
            self._table.end(run, "fenced", self._clock())
            return
        run.lease_until = called + self._lease
        run.priority = result.priority
        now = self._clock()
        if plan.finish:
            self._unfinished(run, now)
        if result.early:
            run.early(now + run.terms.due - self._wall())
        elif plan.sent:
            self._sender.send(run)

    def _unfinished(self, run: NotificationRun, now: float) -> None:
        _log.warning("the store goes on with what has ended here: compare the clocks", notification=run.notification_id)
        self._table.unfinished(run, now + run.terms.expire_time_us / 1e6 - self._wall(), now)


def _progress(entry: Entry) -> Progress:
    run, plan = entry
    return Progress(
        claim=Claim(notification_id=run.notification_id, fence=run.fence),
        sent_ordinals=bitmaps.write(plan.sent),
        finish_state=plan.finish,
        reason=plan.reason,
    )

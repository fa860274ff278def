"""From a claim to a run that sends: reads the record, awaits its time, settles the audience and stores it, or reads back what is
stored. With the audience goes who is sent it first, when no other run is in the way: one transaction, and it is on its way.

Runs wait in order of priority for a few workers. What fails for a passing reason is tried again later, behind what hasn't been
tried, for as long as the run lives: until it expires, or another has it.

Rules: what the store has settled counts, not what was settled here in vain. Whatever keeps a run from being prepared for good is
its reason to fail, if it has a name; a fault of ours makes the run be given up after a few attempts, for another owner to try.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import structlog
from google.protobuf.duration_pb2 import Duration
from pyroaring import BitMap

from mesh import batching, errors, patience
from router import bitmaps, frames
from router.agenda import rank
from router.dead_letters import unforeseen
from router.expansion import Expansions, Meant, may_pass
from router.notification_run import NotificationRun, Phase, Recipients, Terms
from router.notification_table import RunTable
from router.ports import NotificationStore
from router.sender import Sender
from tidings.common.v1 import error_pb2
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1.notification_pb2 import (
    NOTIFICATION_VIEW_ORDINALS,
    Claim,
    Expansion,
    GetNotificationsRequest,
    GetNotificationsResponse,
    ReadRecipientsRequest,
    SaveExpansionRequest,
    StoredNotification,
)

WORKERS = 8  # runs prepared at once: mostly they wait for tagsvc and the store
_FAULTS = 5  # faults of ours, after which a run is given up here: with the delays between them, some seconds
_READ = 50  # records in one call: each may hold 300 kB, but few do
_MAX_EXPANSION = 15 * 1024 * 1024  # bytes of a bitmap: the store's bound
_KEPT = (common.OUTCOME_EXPANSION, common.OUTCOME_SENT, common.OUTCOME_DELIVERED, common.OUTCOME_FAILED)
_GONE = (error_pb2.ERROR_CODE_FENCED, error_pb2.ERROR_CODE_NOTIFICATION_NOT_FOUND, error_pb2.ERROR_CODE_REPORT_GONE)
_log = structlog.get_logger(__name__)
_Found = tuple[Recipients, BitMap | None]  # and the first step, if it is stored already


@dataclass
class _Task:
    """A run to prepare, and how far that is.

    Attributes:
        meant: its audience once settled: if storing it fails, the same is stored again.
        faults: attempts that met a fault of ours.
        delays: seconds to wait before each further attempt.
    """

    run: NotificationRun
    record: StoredNotification
    meant: Meant | None = None
    tried: bool = False
    faults: int = 0
    delays: Iterator[float] = field(default_factory=patience.delays)

    @property
    def settled(self) -> bool:
        """Whether its audience is: what is missing then is the notification itself, not one that its audience names."""
        return self.meant is not None or self.record.report.state == common.NOTIFICATION_STATE_SENDING


class Preparation:
    """Prepares the runs of a table.

    Args:
        capacity: runs waiting for their records to be read.
        lease: seconds for which a write confirms ownership.
        clock: monotonic seconds.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        table: RunTable,
        store: NotificationStore,
        expansions: Expansions,
        sender: Sender,
        capacity: int,
        lease: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._store = store
        self._expansions = expansions
        self._sender = sender
        self._lease = lease
        self._clock = clock
        self._wall = wall
        self._unread: batching.Batcher[NotificationRun] = batching.Batcher(capacity, _READ)
        self._tasks: asyncio.PriorityQueue[tuple[bool, tuple[int, float, str], int, _Task]] = asyncio.PriorityQueue()
        self._count = itertools.count()
        self._under_way = 0
        self._leaving = False
        self._idle = asyncio.Event()
        self._idle.set()

    def read(self, run: NotificationRun) -> bool:
        """Look at a run's record: to prepare it, or because it may have changed. False without room."""
        return self._unread.offer(run)

    async def read_all(self) -> None:
        """Read records until cancelled."""
        await patience.drain(self._unread, self._read)

    async def work(self) -> None:
        """Prepare one run after the other until cancelled."""
        while True:
            *_, task = await self._tasks.get()
            if task.run.phase is not Phase.PREPARING:
                continue
            if self._table.crowded_out(task.run):  # more were taken at once than there is room for: it is claimed again
                self._table.end(task.run, "crowded", self._clock())
                continue
            if self._leaving:
                return
            with self._working():
                await self._attempt(task)

    async def leave(self, within: float) -> None:
        """Begin nothing more, and wait for what is under way: a first step that is being stored is to be sent, too."""
        self._leaving = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    async def _attempt(self, task: _Task) -> None:
        try:
            await self._prepare(task)
        except errors.TidingsError as error:
            self._on_error(task, error)
        except Exception as fault:
            _log.exception("notification not prepared", notification=task.run.notification_id)
            self._on_error(task, errors.internal(f"an unforeseen fault: {fault!r}"))

    async def _read(self, batch: list[NotificationRun]) -> None:
        runs = {run.notification_id: run for run in batch if run.phase is not Phase.OVER}
        if not runs:
            return
        try:
            found = await self._get(list(runs))
        except errors.TidingsError as error:
            await self._unreadable(list(runs.values()), error)
            return
        records = {record.notification_id: record for record in found.notifications}
        for notification_id, run in runs.items():
            try:
                self._judge(run, records.get(notification_id))
            except Exception as fault:
                _log.exception("a record can't be made sense of", notification=notification_id)
                self._table.give_up(run, "unreadable", fault, self._clock())

    async def _get(self, notification_ids: list[str]) -> GetNotificationsResponse:
        request = GetNotificationsRequest(notification_ids=notification_ids, view=NOTIFICATION_VIEW_ORDINALS)
        return await patience.until_done(lambda: self._store.get_notifications(request))

    async def _unreadable(self, runs: list[NotificationRun], error: errors.TidingsError) -> None:
        """They may be too large together, or one of them can't be read: that is given up."""
        if len(runs) == 1:
            self._table.give_up(runs[0], "unreadable", error, self._clock())
            return
        middle = len(runs) // 2
        await self._read(runs[:middle])
        await self._read(runs[middle:])

    def _judge(self, run: NotificationRun, record: StoredNotification | None) -> None:
        now = self._clock()
        if record is None or record.fence != run.fence:
            self._table.end(run, "unknown" if record is None else "fenced", now)
        elif self._table.told(run, record.report, now) and not run.described:
            self._table.describe(run, self._terms(record, now), record.spec.priority, now, record.ByteSize())
            self._await(_Task(run, record))
        elif run.phase is not Phase.OVER:
            self._table.prioritize(run, record.spec.priority, now)

    def _terms(self, record: StoredNotification, now: float) -> Terms:
        spec = record.spec
        expire_time_us = spec.expire_time.ToMicroseconds()
        return Terms(
            rate=spec.rate_per_second if spec.HasField("rate_per_second") else None,
            due=spec.send_time.ToMicroseconds() / 1e6,
            expires=now + expire_time_us / 1e6 - self._wall(),
            expire_time_us=expire_time_us,
            frame=frames.notification(record.notification_id, spec),
            begins=now + self._early(record),
        )

    def _early(self, record: StoredNotification) -> float:
        """Seconds until its time comes, by the store's clock as we know it; not above 0 once it has. What has begun has begun."""
        return 0.0 if record.report.sent else record.spec.send_time.ToMicroseconds() / 1e6 - self._wall()

    def _await(self, task: _Task) -> None:
        """Queue it when its time has come; a clock that is put right meanwhile is looked at again."""
        early = self._early(task.record)
        if early > 0:
            asyncio.get_running_loop().call_later(early, self._await, task)
        else:
            self._queue(task)

    def _queue(self, task: _Task) -> None:
        self._tasks.put_nowait((task.tried, rank(task.run), next(self._count), task))

    async def _prepare(self, task: _Task) -> None:
        stored = task.record.report.state == common.NOTIFICATION_STATE_SENDING
        found = (await self._load(task.run), None) if stored else await self._expand(task)
        if found is not None and task.run.phase is Phase.PREPARING:
            recipients, step = found
            self._table.begin(task.run, recipients, self._sender.online, self._clock(), step)
            if step:
                self._sender.send(task.run)
                self._table.agenda.put(task.run, self._clock())

    async def _load(self, run: NotificationRun) -> Recipients:
        """What the store has of a run's recipients."""
        request = ReadRecipientsRequest(notification_id=run.notification_id, outcomes=_KEPT)
        parts = [BitMap() for _ in _KEPT]
        async for chunk in self._store.read_recipients(request):
            for part, data in zip(parts, chunk.user_ordinals, strict=True):
                part |= bitmaps.read(data)  # noqa: PLW2901  (in place)
        return Recipients(*parts)

    async def _expand(self, task: _Task) -> _Found | None:
        """Settle an audience and store it; None when the run is over with that."""
        if task.meant is None:
            record = task.record
            named = bitmaps.read(record.recipient_ordinals), bitmaps.read(record.excluded_ordinals)
            task.meant = await self._expansions.settle(record.spec.audience, *named)
        data = bitmaps.write(task.meant.ordinals)
        if len(data) > _MAX_EXPANSION:
            number = len(task.meant.ordinals)
            raise errors.invalid_field("spec.audience", f"fewer than {number:,} users: make several notifications of it")
        return await self._save(task.run, task.meant, data)

    async def _save(self, run: NotificationRun, meant: Meant, data: bytes) -> _Found | None:
        called = self._clock()
        first = run.first(meant.ordinals, self._sender.online, called) if self._table.agenda.leads(run, called) else BitMap()
        saved = await self._store.save_expansion(
            SaveExpansionRequest(
                claim=Claim(notification_id=run.notification_id, fence=run.fence),
                expansion=Expansion(user_ordinals=data, snapshot_version=meant.version),
                lease=seconds(self._lease),
                sent_ordinals=bitmaps.write(first),
            )
        )
        if not self._table.told(run, saved.report, self._clock()):
            return None
        run.lease_until = called + self._lease
        if saved.sent_stored:
            return Recipients(meant.ordinals), first
        if (saved.report.expansion, saved.report.snapshot_version, saved.report.sent) != (len(meant.ordinals), meant.version, 0):
            return await self._load_own(run)
        return Recipients(meant.ordinals), None

    async def _load_own(self, run: NotificationRun) -> _Found:
        """What an earlier attempt stored, of which we heard nothing: under our fence, so nobody was sent its first step."""
        stored = await self._load(run)
        return replace(stored, sent=BitMap()), stored.sent

    def _on_error(self, task: _Task, error: errors.TidingsError) -> None:
        run, now = task.run, self._clock()
        if run.phase is not Phase.PREPARING:
            return
        _log.warning("notification not prepared", notification=run.notification_id, reason=error.reason, error=error.message)
        task.faults += unforeseen(error)
        if task.faults >= _FAULTS:
            self._table.give_up(run, "faulty", error, now)
        elif may_pass(error):
            task.tried = True
            self._table.delayed(run, now)
            asyncio.get_running_loop().call_later(next(task.delays), self._queue, task)
        elif error.code in _GONE and task.settled:
            self._table.end(run, error.reason.lower(), now)
        else:
            self._table.fail(run, f"{error.reason}: {error.message}", now)


def seconds(length: float) -> Duration:
    """A length of time as the contracts carry it."""
    duration = Duration()
    duration.FromMicroseconds(int(length * 1e6))
    return duration

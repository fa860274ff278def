"""The one writer of this instance: mutations queue, and go to the log in batches.

Rules: what is answered is durable, and applied to this instance's snapshot. An append that finds the log moved on waits until this
instance has caught up, and the batch is tried anew. An append of unknown outcome is made again with the same records under the same
version: the log takes them once at most, and if it has moved on, what it holds shows whether they are in it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from mesh import errors, patience
from mesh.batching import Batcher
from tagsvc.journal import Journal
from tagsvc.plan import Done, Mutation, Plan
from tagsvc.ports import TagLog

_BATCH = 500  # mutations in one append
_TURN_SECONDS = 0.005  # of planning, before others get a turn
_RETRY_SECONDS = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    mutation: Mutation
    answer: "asyncio.Future[Done]"

    def refuse(self, error: Exception) -> None:
        self.mutation.refused()
        if not self.answer.done():
            self.answer.set_exception(error)


class Writer:
    """Carries out mutations, one batch after the other.

    Args:
        log: the store's.
        journal: what the log adds up to here.
        clock: nanoseconds since 1970.
        capacity: mutations waiting; when full, `change` refuses and `queue` waits.
        within: seconds after which a batch that no store takes is given up.
        appended: told how many records, and how many bytes, were logged.
    """

    def __init__(
        self,
        log: TagLog,
        journal: Journal,
        clock: Callable[[], int],
        capacity: int,
        within: float,
        appended: Callable[[int, int], None],
    ) -> None:
        self._log = log
        self._journal = journal
        self._clock = clock
        self._within = within
        self._appended = appended
        self._queue: Batcher[_Job] = Batcher(capacity, _BATCH)

    def __len__(self) -> int:
        return len(self._queue)

    def carried_out(self, request_id: str) -> bool:
        """Whether a request is known to have been carried out, so that what it depends on needs no check."""
        return bool(request_id) and request_id in self._journal.newest().done_requests

    async def change(self, mutation: Mutation) -> Done:
        """Carry out a mutation.

        Raises:
            TidingsError: why it can't be done; OVERLOADED when the queue is full; UNAVAILABLE when no store took it in time, and
                then it may have been carried out or not.
        """
        self._journal.newest()
        job = _job(mutation)
        if not self._queue.offer(job):
            raise errors.overloaded(_RETRY_SECONDS, "the queue of changes")
        return await job.answer

    async def queue(self, mutation: Mutation) -> "asyncio.Future[Done]":
        """Queue a mutation, waiting for room; the future is done when it is, or fails as `change`."""
        self._journal.newest()
        job = _job(mutation)
        await self._queue.put(job)
        return job.answer

    async def run(self) -> None:
        """Write until cancelled, which is when nobody can call any more."""
        await patience.drain(self._queue, self._write)

    async def _write(self, jobs: list[_Job]) -> None:
        until = time.monotonic() + self._within
        try:
            while jobs:
                jobs = jobs[await self._settle(jobs, until) :]
        except errors.TidingsError as error:
            _log.warning("changes given up", number=len(jobs), reason=error.reason, error=error.message)
            _refuse(jobs, error)
        except TimeoutError:
            _refuse(jobs, errors.unavailable("the log of tags can't be followed just now; the change may have been made or not"))
        except Exception:
            _log.exception("changes failed", number=len(jobs))
            _refuse(jobs, errors.internal("an unforeseen fault; the service's log has it"))

    async def _settle(self, jobs: Sequence[_Job], until: float) -> int:
        """Carry out as many of the first as fit into one append; gives how many."""
        plan = await self._plan(jobs)
        while plan.steps and not await self._logged(plan, until):
            plan = await self._plan(jobs)
        for job, verdict in zip(jobs, plan.verdicts, strict=False):
            if isinstance(verdict, Done):
                _answer(job, verdict)
            else:
                job.refuse(verdict)
        return len(plan.verdicts)

    async def _plan(self, jobs: Sequence[_Job]) -> Plan:
        history, now = self._journal.history, Timestamp()
        now.FromNanoseconds(self._clock())
        plan = Plan(history.newest, history.find)
        turn = time.monotonic() + _TURN_SECONDS
        for job in jobs:
            try:
                if not plan.take(job.mutation, now):
                    break
            except Exception:
                _log.exception("a change can't be tried", kind=type(job.mutation).__name__)
                plan.verdicts.append(errors.internal("an unforeseen fault; the service's log has it"))
            if time.monotonic() > turn:
                await asyncio.sleep(0)
                turn = time.monotonic() + _TURN_SECONDS
        return plan

    async def _logged(self, plan: Plan, until: float) -> bool:
        """Append a plan's records; False when the log had moved on without them, and this instance has caught up."""
        records = plan.records
        append = partial(self._log.append, plan.base.version, records)
        response = await patience.until_done(append, until - time.monotonic())
        if response.WhichOneof("outcome") == "version":
            self._journal.adopt(plan.base, plan.steps)
        async with asyncio.timeout(until - time.monotonic()):
            await self._journal.reached(response.version or response.conflict_version)
        logged = bool(response.version) or self._journal.history.holds(plan.base.version, records)
        if logged:
            self._appended(len(records), sum(map(len, records)))
        return logged


def _job(mutation: Mutation) -> _Job:
    return _Job(mutation, asyncio.get_running_loop().create_future())


def _answer(job: _Job, done: Done) -> None:
    if not job.answer.done():
        job.answer.set_result(done)


def _refuse(jobs: Sequence[_Job], error: errors.TidingsError) -> None:
    for job in jobs:
        job.refuse(error)

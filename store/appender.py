"""Gathers the batches of all streams, writes them together, answers each.

One task drains one queue: whatever waits becomes one transaction. Fairness is first come, first served. A fault that may pass is
retried without end, because a repeat of a stored entry is recognised by its client_msg_id; callers feel it as backpressure. Data
that can't be stored is found by trying halves, in order, and refused alone: its neighbours cost a few transactions more, once.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import stamina
import structlog

from mesh.batching import Batcher, Closed
from mesh.telemetry import Telemetry
from store.model import Draft, Outcome, Refusal
from store.ports import MessageLog, PassingError

_QUEUE = 256  # batches waiting; when full, streams are not read, so routers feel it
_TRANSACTION = 2_000  # entries in one transaction: past about a thousand nothing gets cheaper, and others wait longer
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    drafts: Sequence[Draft]
    answer: "asyncio.Future[list[Outcome]]"


class Appender:
    """The only writer of entries in this process.

    Args:
        log: where.
        telemetry: counts entries, and how long transactions take.
    """

    def __init__(self, log: MessageLog, telemetry: Telemetry) -> None:
        self._message_log = log
        self._telemetry = telemetry
        self._queue: Batcher[_Job] = Batcher(_QUEUE, _QUEUE)
        self._entries = telemetry.counter("store_entries_total", "Entries appended, by outcome")
        self._seconds = telemetry.histogram("store_append_seconds", "One transaction of the appender")

    async def submit(self, drafts: Sequence[Draft]) -> "asyncio.Future[list[Outcome]]":
        """Queue a batch, waiting for room; the future is done when the batch is durable.

        Raises:
            Closed: the store is stopping.
        """
        job = _Job(drafts, asyncio.get_running_loop().create_future())
        await self._queue.put(job)
        return job.answer

    def close(self) -> None:
        """Take nothing more; `run` ends when what is queued is answered."""
        self._queue.close()

    async def run(self) -> None:
        """Write until closed."""
        while True:
            try:
                jobs = await self._queue.take()
            except Closed:
                return
            for group in gather(jobs):
                await self._write(group)

    async def _write(self, jobs: Sequence[_Job]) -> None:
        drafts = [draft for job in jobs for draft in job.drafts]
        started = asyncio.get_running_loop().time()
        with self._telemetry.span("append", batches=len(jobs), entries=len(drafts)):
            outcomes = await self._stored(drafts)
        self._seconds.observe(asyncio.get_running_loop().time() - started)
        self._count(outcomes)
        position = iter(outcomes)
        for job in jobs:
            mine = [next(position) for _ in job.drafts]
            if not job.answer.done():
                job.answer.set_result(mine)

    async def _stored(self, drafts: Sequence[Draft], *, again: bool = False) -> list[Outcome]:
        """Outcomes in order; `again` when a part of these may have been stored by an attempt that failed."""
        try:
            return await self._attempted(drafts, again=again)
        except Exception as fault:
            if len(drafts) == 1:
                [draft] = drafts
                _log.exception("entry refused", conversation=draft.conversation_id, client_msg_id=draft.client_msg_id)
                return [Outcome(refusal=Refusal.INTERNAL)]
            _log.warning("a batch can't be stored as a whole; trying its halves", entries=len(drafts), fault=repr(fault)[:300])
        middle = len(drafts) // 2
        return await self._stored(drafts[:middle], again=True) + await self._stored(drafts[middle:], again=True)

    async def _attempted(self, drafts: Sequence[Draft], *, again: bool) -> list[Outcome]:
        # Mostly it goes well, and making a loop of attempts costs a tenth of a millisecond.
        try:
            outcomes = await self._message_log.append(drafts)
            return _as_new(outcomes) if again else outcomes
        except PassingError as error:
            _log.warning("appending again", entries=len(drafts), fault=str(error))
        async for attempt in stamina.retry_context(on=PassingError, attempts=None, timeout=None, wait_initial=0.02, wait_max=2.0):
            with attempt:
                return _as_new(await self._message_log.append(drafts))
        raise AssertionError("retry_context without a limit doesn't end")

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        refused = sum(1 for outcome in outcomes if outcome.refusal)
        repeated = sum(1 for outcome in outcomes if outcome.duplicate)
        for name, number in (("stored", len(outcomes) - refused - repeated), ("duplicate", repeated), ("refused", refused)):
            if number:
                self._entries.add(number, {"outcome": name})


def _as_new(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """After a lost connection nobody knows whether the attempt before was committed, so what looks like a repeat may be this batch
    itself and unheard of: called new, it is fanned out, at worst twice."""
    return [replace(outcome, duplicate=False) for outcome in outcomes]


def gather(jobs: Sequence[_Job], limit: int = _TRANSACTION) -> Iterator[list[_Job]]:
    """Group jobs, in order, into transactions of about `limit` entries; a job stays whole."""
    group: list[_Job] = []
    size = 0
    for job in jobs:
        if group and size + len(job.drafts) > limit:
            yield group
            group, size = [], 0
        group.append(job)
        size += len(job.drafts)
    if group:
        yield group

"""The appender: one transaction for all that waits, retries without end, one bad entry refused alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import stamina

from mesh.batching import Closed
from mesh.telemetry import Telemetry
from store.appender import Appender
from store.model import Advance, Draft, Moved, Outcome, Refusal
from store.ports import PassingError


class MemoryLog:
    """A log that can be told to wait, to fail for a while, or to choke on an entry."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.called = asyncio.Event()
        self.faults: list[Exception] = []
        self.poison = ""
        self.stored: dict[str, int] = {}

    async def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        self.called.set()
        await self.may_go.wait()
        ids = [draft.client_msg_id for draft in drafts]
        if self.poison in ids:
            raise ValueError("can't be stored")
        outcomes = [self._store(name) for name in ids]
        self.batches.append(ids)
        if self.faults:
            raise self.faults.pop(0)
        return outcomes

    async def advance(self, advances: Sequence[Advance]) -> list[Moved]:
        raise NotImplementedError

    def _store(self, name: str) -> Outcome:
        known = name in self.stored
        return Outcome(self.stored.setdefault(name, len(self.stored) + 1), duplicate=known)


@asynccontextmanager
async def running(log: MemoryLog) -> AsyncIterator[Appender]:
    """An appender at work."""
    telemetry = Telemetry("appender-test")
    appender = Appender(log, telemetry)
    task = asyncio.create_task(appender.run())
    try:
        yield appender
    finally:
        appender.close()
        await asyncio.wait_for(task, 5)
        telemetry.close()


def batch(*names: str) -> list[Draft]:
    """Messages by these client_msg_ids."""
    return [Draft("d" + "a" * 26, 1, name, 0, b"x") for name in names]


async def test_what_waits_goes_together_and_is_answered_apart() -> None:
    log = MemoryLog()
    async with running(log) as appender:
        log.may_go.clear()
        first = await appender.submit(batch("a"))
        await asyncio.wait_for(log.called.wait(), 5)
        rest = [await appender.submit(batch(*names)) for names in ("bc", "d", "")]
        log.may_go.set()
        outcomes = await asyncio.wait_for(asyncio.gather(first, *rest), 5)
    assert log.batches == [["a"], ["b", "c", "d"]]
    assert [[outcome.seq for outcome in answer] for answer in outcomes] == [[1], [2, 3], [4], []]


async def test_a_transaction_has_a_bound() -> None:
    log = MemoryLog()
    async with running(log) as appender:
        log.may_go.clear()
        answers = [await appender.submit(batch(*(f"{job}.{n}" for n in range(900)))) for job in range(5)]
        log.may_go.set()
        await asyncio.wait_for(asyncio.gather(*answers), 5)
    assert max(map(len, log.batches)) == 1_800
    assert [name for names in log.batches for name in names] == [f"{job}.{n}" for job in range(5) for n in range(900)]


async def test_a_passing_fault_is_retried_and_a_doubtful_repeat_is_called_new() -> None:
    log = MemoryLog()
    log.faults = [PassingError("connection lost after the commit"), PassingError("again")]
    with stamina.set_testing(True, attempts=10):
        async with running(log) as appender:
            outcomes = await asyncio.wait_for(await appender.submit(batch("a", "b")), 5)
            known = await asyncio.wait_for(await appender.submit(batch("a")), 5)
    assert [(outcome.seq, outcome.duplicate) for outcome in outcomes] == [(1, False), (2, False)]
    assert [(outcome.seq, outcome.duplicate) for outcome in known] == [(1, True)]


async def test_one_bad_entry_is_refused_alone() -> None:
    log = MemoryLog()
    log.poison = "bad"
    async with running(log) as appender:
        outcomes = await asyncio.wait_for(await appender.submit(batch("a", "bad", "b")), 5)
    assert [outcome.refusal for outcome in outcomes] == [Refusal.NONE, Refusal.INTERNAL, Refusal.NONE]
    assert log.batches == [["a"], ["b"]]


async def test_what_an_attempt_stored_that_failed_is_called_new_when_it_is_tried_by_halves() -> None:
    log = MemoryLog()
    log.faults = [ValueError("after a part of it was stored")]
    async with running(log) as appender:
        outcomes = await asyncio.wait_for(await appender.submit(batch("a", "b")), 5)
    assert [(outcome.seq, outcome.duplicate) for outcome in outcomes] == [(1, False), (2, False)]


async def test_a_caller_who_went_away_harms_nobody() -> None:
    log = MemoryLog()
    async with running(log) as appender:
        log.may_go.clear()
        gone = await appender.submit(batch("a"))
        here = await appender.submit(batch("b"))
        gone.cancel()
        log.may_go.set()
        assert (await asyncio.wait_for(here, 5))[0].seq == 2


async def test_closing_answers_what_is_queued_and_takes_no_more() -> None:
    log = MemoryLog()
    async with running(log) as appender:
        log.may_go.clear()
        queued = await appender.submit(batch("a"))
        appender.close()
        with pytest.raises(Closed):
            await appender.submit(batch("b"))
        log.may_go.set()
        assert (await asyncio.wait_for(queued, 5))[0].seq == 1

"""A run under faults: workloads act while a fault does its worst, everything settles and is read back, and the history is judged.

A failing run prints its seed and keeps its history; give the seed by TIDINGS_SEED to repeat its intentions.
"""

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.checker.history import Operation, Send, save
from tests.checker.recorder import Recorder
from tests.checker.report import evidence, summary
from tests.checker.verdict import judge

SETTLE_SECONDS = 30.0
READ_BACK_SECONDS = 240.0  # a long run has much to read
Fault = Callable[[random.Random, asyncio.Event], Coroutine[None, None, None]]
"""Does harm, by the random source, until it has done enough or the event says so; leaves every service up. One that cuts off what
is under way records that as Disturbed; services that stop in order lose nothing."""


class Work(Protocol):
    """A workload, phase by phase."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Make everything ready."""

    async def work(self, seconds: float) -> None:
        """Act at random."""

    async def settle(self, timeout: float) -> bool:
        """Wait until everybody has what they are owed; False when it did not come to that."""

    async def read_back(self) -> None:
        """Read what there is, for the judge."""


def draw_seed() -> int:
    """A new one, unless the environment says which."""
    return int(os.environ.get("TIDINGS_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


async def no_fault(rng: random.Random, enough: asyncio.Event) -> None:
    """All is well."""


async def live_through(
    recorder: Recorder,
    works: Sequence[Work],
    seconds: float,
    fault: Fault = no_fault,
    heal: Callable[[], None] | None = None,
) -> None:
    """Act under a fault, settle, read back, judge; see `live`."""
    settled = await live(recorder, works, seconds, fault, heal)
    verdict(recorder.history, recorder.seed, settled=settled)


async def live(
    recorder: Recorder,
    works: Sequence[Work],
    seconds: float,
    fault: Fault = no_fault,
    heal: Callable[[], None] | None = None,
) -> bool:
    """Act under a fault, settle, read back; False when not everybody got what they are owed.

    Args:
        seconds: how long to act at least; as long as the fault lasts.
        heal: called when the fault is over.
    """
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(SETTLE_SECONDS):
            for one in works:
                await stack.enter_async_context(one.open())
        enough = asyncio.Event()
        async with _beside(fault(random.Random(recorder.seed), enough)) as failing:
            await asyncio.gather(*(one.work(seconds) for one in works))
            enough.set()
            await failing
        if heal is not None:
            heal()
        settled = all(await asyncio.gather(*(one.settle(SETTLE_SECONDS) for one in works)))
        if settled:
            async with asyncio.timeout(READ_BACK_SECONDS):
                await asyncio.gather(*(one.read_back() for one in works))
    return settled


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run something beside the body, and not longer."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def verdict(history: list[Operation], seed: int, *, settled: bool) -> None:
    """Fail with the evidence, keeping the history."""
    breaches = judge(history)
    print(f"seed {seed}: {summary(history)}")  # noqa: T201  (pytest shows it when the test fails)
    if breaches or not settled:
        path = Path(tempfile.gettempdir()) / f"tidings-history-{seed}.jsonl"
        save(history, path)
        unanswered = [one for one in history if isinstance(one, Send) and one.completed is None]
        lines = [
            f"TIDINGS_SEED={seed}",
            f"history: {path}",
            f"settled: {settled}, unanswered: {len(unanswered)}",
            *evidence(breaches),
        ]
        pytest.fail("\n".join(lines))

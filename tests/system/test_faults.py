"""The whole system: twenty devices talk in ten direct chats and three groups while the network, or a service, fails under them.

Then the faults stop, everything settles, everyone reads all history in both directions, and the run's history is judged: G1-G8.
A failing run prints its seed and keeps its history; give the seed by TIDINGS_SEED to repeat its intentions.
"""

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

from tests.checker.checks import judge
from tests.checker.history import Operation, Receive, Send, save
from tests.checker.recorder import Recorder
from tests.checker.report import evidence, summary
from tests.checker.workload import Workload
from tests.system.mesh_fixture import Mesh, run_mesh

TALK_SECONDS = 6.0
SETTLE_SECONDS = 30.0
CUT_SECONDS = 0.12  # mean time between two cuts: each connection is cut every few seconds
DOWN_SECONDS = 0.7

Fault = Callable[[random.Random, asyncio.Event], Coroutine[None, None, None]]
"""Does harm, by the random source, until it has done enough or the event says so; leaves every service up."""


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("TIDINGS_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


@pytest.fixture
async def mesh(tmp_path: Path, seed: int) -> AsyncIterator[Mesh]:
    async with run_mesh(tmp_path, random.Random(seed)) as mesh:
        yield mesh


async def test_sockets_cut_at_random(mesh: Mesh, tmp_path: Path, seed: int) -> None:
    async def cut(rng: random.Random, enough: asyncio.Event) -> None:
        while not enough.is_set():
            await asyncio.sleep(rng.expovariate(1 / CUT_SECONDS))
            mesh.proxy.fail_one()

    history = await live_through(mesh, tmp_path, seed, cut)
    assert sum(mesh.proxy.faults.values()) > TALK_SECONDS / CUT_SECONDS / 3, "too few cuts to prove anything"
    assert len(stored(history)) > 100, "too little was said to prove anything"


async def test_services_restarted_one_after_the_other(mesh: Mesh, tmp_path: Path, seed: int) -> None:
    async def restart(rng: random.Random, enough: asyncio.Event) -> None:
        for name in ("router", "edge", "store"):
            await asyncio.sleep(TALK_SECONDS / 6)
            await mesh.stop(name)
            await asyncio.sleep(rng.expovariate(1 / DOWN_SECONDS))
            await mesh.start(name)

    history = await live_through(mesh, tmp_path, seed, restart)
    assert len(stored(history)) > 100, "too little was said to prove anything"


async def test_all_sockets_dropped_at_once(mesh: Mesh, tmp_path: Path, seed: int) -> None:
    async def drop(rng: random.Random, enough: asyncio.Event) -> None:
        for _ in range(3):
            await asyncio.sleep(TALK_SECONDS / 8)
            mesh.proxy.fail_all()

    history = await live_through(mesh, tmp_path, seed, drop, TALK_SECONDS / 2)
    assert sum(isinstance(one, Receive) for one in history) > 100


async def live_through(mesh: Mesh, folder: Path, seed: int, fault: Fault, seconds: float = TALK_SECONDS) -> list[Operation]:
    """Talk while `fault` does its worst, settle, read back, judge."""
    recorder, rng = Recorder(seed, mesh.url), random.Random(seed)
    workload = Workload(mesh.url, mesh.token, folder, recorder, rng)
    async with workload.open():
        enough = asyncio.Event()
        failing = asyncio.create_task(fault(random.Random(rng.random()), enough))
        await workload.talk(seconds)
        enough.set()
        await failing
        mesh.proxy.heal()
        settled = await workload.settle(SETTLE_SECONDS)
        await workload.read_back()
    verdict(recorder.history, seed, settled=settled)
    return recorder.history


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


def stored(history: list[Operation]) -> list[Send]:
    return [one for one in history if isinstance(one, Send) and one.outcome == "stored"]

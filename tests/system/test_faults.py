"""The whole system: twenty devices talk in ten direct chats and three groups while the network, or a service, fails under them.

Then the faults stop, everything settles, everyone reads all history in both directions, and the run's history is judged: G1-G8.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.checker.history import Operation, Receive, Send
from tests.checker.recorder import Recorder
from tests.checker.workload import Workload
from tests.system.living import Fault, draw_seed, live_through
from tests.system.mesh_fixture import Mesh, run_mesh

TALK_SECONDS = 6.0
CUT_SECONDS = 0.12  # mean time between two cuts: each connection is cut every few seconds
DOWN_SECONDS = 0.7


@pytest.fixture
def seed() -> int:
    return draw_seed()


@pytest.fixture
async def mesh(tmp_path: Path, seed: int) -> AsyncIterator[Mesh]:
    async with run_mesh(tmp_path, random.Random(seed)) as mesh:
        yield mesh


async def test_sockets_cut_at_random(mesh: Mesh, tmp_path: Path, seed: int) -> None:
    async def cut(rng: random.Random, enough: asyncio.Event) -> None:
        while not enough.is_set():
            await asyncio.sleep(rng.expovariate(1 / CUT_SECONDS))
            mesh.proxy.fail_one()

    history = await talk(mesh, tmp_path, seed, cut)
    assert sum(mesh.proxy.faults.values()) > TALK_SECONDS / CUT_SECONDS / 3, "too few cuts to prove anything"
    assert len(stored(history)) > 100, "too little was said to prove anything"


async def test_services_restarted_one_after_the_other(mesh: Mesh, tmp_path: Path, seed: int) -> None:
    async def restart(rng: random.Random, enough: asyncio.Event) -> None:
        for name in ("router", "edge", "store"):
            await asyncio.sleep(TALK_SECONDS / 6)
            await mesh.stop(name)
            await asyncio.sleep(rng.expovariate(1 / DOWN_SECONDS))
            await mesh.start(name)

    history = await talk(mesh, tmp_path, seed, restart)
    assert len(stored(history)) > 100, "too little was said to prove anything"


async def test_all_sockets_dropped_at_once(mesh: Mesh, tmp_path: Path, seed: int) -> None:
    async def drop(rng: random.Random, enough: asyncio.Event) -> None:
        for _ in range(3):
            await asyncio.sleep(TALK_SECONDS / 8)
            mesh.proxy.fail_all()

    history = await talk(mesh, tmp_path, seed, drop, TALK_SECONDS / 2)
    assert sum(isinstance(one, Receive) for one in history) > 100


async def talk(mesh: Mesh, folder: Path, seed: int, fault: Fault, seconds: float = TALK_SECONDS) -> list[Operation]:
    """Talk while `fault` does its worst, settle, read back, judge."""
    recorder = Recorder(seed, mesh.url)
    workload = Workload(mesh.url, mesh.token, folder, recorder, random.Random(seed))
    await live_through(recorder, [workload], seconds, fault, mesh.proxy.heal)
    return recorder.history


def stored(history: list[Operation]) -> list[Send]:
    return [one for one in history if isinstance(one, Send) and one.outcome == "stored"]

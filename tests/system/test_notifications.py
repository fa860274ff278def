"""The whole system: a business changes tags, and sends, pauses and cancels notifications, while the network, or a service, fails.

Then the faults stop, everything settles, every report and its recipients are read back, and the history is judged: G9-G12, G17.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.checker.history import Call, Controlled, Disturbed, Reported, Shown
from tests.checker.notification_workload import NotificationWorkload
from tests.checker.recorder import Recorder
from tests.checker.workload import Plan, Workload
from tests.system.living import Fault, draw_seed, live_through, no_fault
from tests.system.mesh_fixture import Mesh, run_mesh

WORK_SECONDS = 5.0
CUT_SECONDS = 0.12
DOWN_SECONDS = 0.4


@pytest.fixture
def seed() -> int:
    return draw_seed()


@pytest.fixture
async def mesh(tmp_path: Path, seed: int) -> AsyncIterator[Mesh]:
    async with run_mesh(tmp_path, random.Random(seed)) as mesh:
        yield mesh


@pytest.fixture
def recorder(mesh: Mesh, seed: int) -> Recorder:
    return Recorder(seed, mesh.url)


async def test_without_a_fault_beside_a_chat(mesh: Mesh, tmp_path: Path, recorder: Recorder) -> None:
    chat = Plan(clients=8, second_devices=2, directs=4, groups=1, pause=0.4)
    await notify(mesh, tmp_path, recorder, no_fault, chat)
    steered = {one.action for one in recorder.history if isinstance(one, Controlled) and one.outcome == "done"}
    assert steered == {"cancel", "pause", "resume"}, "too little was steered to prove anything"


async def test_sockets_cut_at_random(mesh: Mesh, tmp_path: Path, recorder: Recorder) -> None:
    async def cut(rng: random.Random, enough: asyncio.Event) -> None:
        since = recorder.now()
        while not enough.is_set():
            await asyncio.sleep(rng.expovariate(1 / CUT_SECONDS))
            mesh.proxy.fail_one()
        recorder.add(Disturbed(since, recorder.now()))

    await notify(mesh, tmp_path, recorder, cut)
    assert sum(mesh.proxy.faults.values()) > WORK_SECONDS / CUT_SECONDS / 3, "too few cuts to prove anything"


async def test_services_restarted_one_after_the_other(mesh: Mesh, tmp_path: Path, recorder: Recorder) -> None:
    async def restart(rng: random.Random, enough: asyncio.Event) -> None:
        for name in ("router", "scheduler", "tagsvc", "store", "edge"):
            await asyncio.sleep(WORK_SECONDS / 12)
            await mesh.stop(name)
            await asyncio.sleep(rng.expovariate(1 / DOWN_SECONDS))
            await mesh.start(name)

    await notify(mesh, tmp_path, recorder, restart)
    fences = [one.fence for one in recorder.history if isinstance(one, Reported)]
    assert max(fences) > 1, "no notification ever changed its owner"


async def notify(mesh: Mesh, folder: Path, recorder: Recorder, fault: Fault, chat: Plan | None = None) -> None:
    """A business at work while `fault` does its worst, and people chatting beside it if there is a plan for that."""
    seed = recorder.seed
    rng = random.Random(seed)
    business = NotificationWorkload(mesh.url, mesh.token, folder, mesh.business, recorder, rng, fence=mesh.fences.read)
    people = [Workload(mesh.url, mesh.token, folder, recorder, random.Random(seed + 1), chat)] if chat is not None else []
    await live_through(recorder, [business, *people], WORK_SECONDS, fault, mesh.proxy.heal)
    assert sum(isinstance(one, Shown) for one in recorder.history) > 20, "too little was shown to prove anything"
    assert sum(isinstance(one, Call) for one in recorder.history) > 20, "too little was repeated to prove anything"

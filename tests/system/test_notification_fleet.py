"""Real processes die and stall in the middle of a fan-out: whoever owned a notification is replaced, and the promises hold.

The history of each run is judged as in test_notifications.py: G9-G12, G17.
"""

import asyncio
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.checker.history import Controlled, Operation, Reported, Shown
from tests.checker.notification_view import NotificationView
from tests.checker.notification_workload import NotificationPlan, NotificationWorkload
from tests.checker.recorder import Recorder
from tests.servers import EtcdServer, PostgresServer, etcd_server, postgres_server  # noqa: F401  (fixtures)
from tests.system.fleet_fixture import LEASE_SECONDS, Fleet, run_fleet
from tests.system.living import Fault, draw_seed, live_through

pytestmark = [pytest.mark.postgresql, pytest.mark.etcd]
WORK_SECONDS = 7.0
PLAN = NotificationPlan(users=24, silent=4, pause=0.4, rates=(0, 3, 6))  # paced ones take seconds


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,  # noqa: F811
    etcd_server: EtcdServer,  # noqa: F811
) -> Iterator[Fleet]:
    with run_fleet(tmp_path_factory.mktemp("fleet"), postgres_server, etcd_server) as fleet:
        yield fleet


async def test_killed_in_the_middle_of_a_fan_out(fleet: Fleet, tmp_path: Path) -> None:
    seed, killed = draw_seed(), list[float]()
    recorder = Recorder(seed, fleet.url)

    async def kill(rng: random.Random, enough: asyncio.Event) -> None:
        await asyncio.sleep(WORK_SECONDS / 3)
        await recorder.wait_for(lambda: under_way(recorder.history) > 1, WORK_SECONDS)
        names = [f"{service}-{rng.randint(1, 2)}" for service in ("router", "scheduler", "tagsvc")]
        for name in names:
            fleet.kill(name)
            killed.append(recorder.now())
            await asyncio.sleep(rng.expovariate(1 / 0.3))
        for name in names:
            fleet.start(name)
        await asyncio.to_thread(fleet.await_ready, *names)

    await notify(fleet, recorder, tmp_path, seed, kill)
    assert taken_over(recorder.history, killed[0]) > 0, "no notification changed its owner after the kill"


async def test_frozen_for_longer_than_the_lease(fleet: Fleet, tmp_path: Path) -> None:
    seed, frozen = draw_seed(), list[float]()
    recorder = Recorder(seed, fleet.url)
    name = f"router-{random.Random(seed).randint(1, 2)}"
    before = fleet.metric(name, "router_notification_runs_ended_total", 'why="fenced"')

    async def freeze(rng: random.Random, enough: asyncio.Event) -> None:
        await asyncio.sleep(WORK_SECONDS / 3)
        await recorder.wait_for(lambda: under_way(recorder.history) > 1, WORK_SECONDS)
        fleet.freeze(name)
        frozen.append(recorder.now())
        await asyncio.sleep(3 * LEASE_SECONDS)
        fleet.thaw(name)

    await notify(fleet, recorder, tmp_path, seed, freeze)
    assert taken_over(recorder.history, frozen[0]) > 0, "no notification changed its owner after the freeze"
    fenced = fleet.metric(name, "router_notification_runs_ended_total", 'why="fenced"') - before
    assert fenced > 0, "the router woke, and nothing that it wrote was refused"


async def notify(fleet: Fleet, recorder: Recorder, folder: Path, seed: int, fault: Fault) -> None:
    """A business at work while `fault` does its worst."""
    rng = random.Random(seed)
    business = NotificationWorkload(fleet.url, fleet.token, folder, fleet.business, recorder, rng, PLAN, fleet.fences.read)
    await live_through(recorder, [business], seed, WORK_SECONDS, fault)
    assert sum(isinstance(one, Shown) for one in recorder.history) > 40, "too little was shown to prove anything"


def under_way(history: list[Operation]) -> int:
    """How many notifications are being sent: some recipients were, others that could be were not."""
    view = NotificationView(history)
    last = [view.last(name) for name in view.uploads]
    return sum(one is not None and one.state == "SENDING" and 0 < one.sent < one.expansion - PLAN.silent for one in last)


def taken_over(history: list[Operation], since: float) -> int:
    """How many notifications were given to another owner after that time, and were sent to more people then."""
    view, count = NotificationView(history), 0
    steered = {one.notification for one in history if isinstance(one, Controlled)}
    for name, readings in view.readings.items():
        later = [one for one in readings if one.completed > since - 1.0]
        count += name not in steered and any(_moved(one, later) for one in pairwise(later))
    return count


def _moved(pair: tuple[Reported, Reported], later: list[Reported]) -> bool:
    before, after = pair
    return 0 < before.fence < after.fence and before.sent < later[-1].sent

"""Real processes die and stall in the middle of a fan-out: whoever owned a notification is replaced, and the promises hold.

The history of each run is judged as in test_notifications.py: G9-G12, G17.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.checker.history import Disturbed, Reported, Shown
from tests.checker.notification_workload import NotificationPlan, NotificationWorkload
from tests.checker.recorder import Recorder
from tests.servers import EtcdServer, PostgresServer, etcd_server, postgres_server  # noqa: F401  (fixtures)
from tests.system.fleet_fixture import LEASE_SECONDS, Fleet, run_fleet
from tests.system.living import Fault, draw_seed, live_through

pytestmark = [pytest.mark.postgresql, pytest.mark.etcd]
WORK_SECONDS = 5.0
FROZEN_SECONDS = 3 * LEASE_SECONDS  # longer than etcd takes to forget it, too
RATE = 3  # of the announcement: all of it takes several seconds
START_SECONDS = 10.0
PLAN = NotificationPlan(users=24, silent=4, pause=0.4, steered=8, rates=(0, 3, 6))


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,  # noqa: F811
    etcd_server: EtcdServer,  # noqa: F811
) -> Iterator[Fleet]:
    with run_fleet(tmp_path_factory.mktemp("fleet"), postgres_server, etcd_server) as fleet:
        yield fleet


@pytest.fixture
def run(fleet: Fleet, tmp_path: Path) -> "Run":
    recorder = Recorder(draw_seed(), fleet.url)
    rng = random.Random(recorder.seed)
    work = NotificationWorkload(fleet.url, fleet.token, tmp_path, fleet.business, recorder, rng, PLAN, fleet.fences.read)
    return Run(fleet, recorder, work)


async def test_killed_in_the_middle_of_a_fan_out(fleet: Fleet, run: "Run") -> None:
    async def kill(rng: random.Random, enough: asyncio.Event) -> None:
        names = [await run.owner_in_the_middle(), *(f"{service}-{rng.randint(1, 2)}" for service in ("scheduler", "tagsvc"))]
        for name in names:
            fleet.kill(name)
            await asyncio.sleep(rng.expovariate(1 / 0.3))
        for name in names:
            fleet.start(name)
        await asyncio.to_thread(fleet.await_ready, *names)
        run.recorder.add(Disturbed(run.since, run.recorder.now()))

    await run.live_through(kill)
    assert run.taken_over(), "what the killed router was sending got no other owner"


async def test_frozen_for_longer_than_the_lease(fleet: Fleet, run: "Run") -> None:
    fenced: list[float] = []

    async def freeze(rng: random.Random, enough: asyncio.Event) -> None:
        name = await run.owner_in_the_middle()
        before = runs_fenced(fleet, name)
        fleet.freeze(name)
        await asyncio.sleep(FROZEN_SECONDS)
        fleet.thaw(name)
        fenced.append(await asyncio.to_thread(await_fenced, fleet, name, before))

    await run.live_through(freeze)
    assert run.taken_over(), "what the frozen router was sending got no other owner"
    assert fenced[0] > 0, "the router woke, and nothing that it wrote was refused"


class Run:
    """A business at work at the fleet, and among what it does one long announcement, in the middle of which something happens."""

    def __init__(self, fleet: Fleet, recorder: Recorder, work: NotificationWorkload) -> None:
        self.recorder = recorder
        self.since = 0.0
        self._fleet, self._work = fleet, work
        self._name = ""

    async def live_through(self, fault: Fault) -> None:
        """Work while `fault` does its worst, settle, and judge."""
        await live_through(self.recorder, [self._work], WORK_SECONDS, fault)
        assert sum(isinstance(one, Shown) for one in self.recorder.history) > 20, "too little was shown to prove anything"

    async def owner_in_the_middle(self) -> str:
        """Send the announcement, wait until some have it, and give the router that is sending it."""
        self._name = await self._work.announce(RATE)
        assert await self.recorder.wait_for(lambda: self._sent() > 1, START_SECONDS), "the announcement never began"
        self.since = self.recorder.now()
        return await self._fleet.owner(self._name)

    def taken_over(self) -> bool:
        """Whether the announcement was given to another owner then, who sent it to more people."""
        later = [one for one in self._readings() if one.completed > self.since - 1.0]
        return any(0 < before.fence < after.fence and before.sent < later[-1].sent for before, after in pairwise(later))

    def _sent(self) -> int:
        return max((one.sent for one in self._readings()), default=0)

    def _readings(self) -> list[Reported]:
        return [one for one in self.recorder.history if isinstance(one, Reported) and one.notification == self._name]


def await_fenced(fleet: Fleet, name: str, before: float) -> float:
    """How many more of its notifications a router finds to be another's, in the time in which it renews what it believes to own."""
    fleet.await_ready(name)
    until = time.monotonic() + 2 * LEASE_SECONDS
    while (more := runs_fenced(fleet, name) - before) == 0 and time.monotonic() < until:
        time.sleep(0.05)
    return more


def runs_fenced(fleet: Fleet, name: str) -> float:
    """How many of its notifications a router found to be another's."""
    return fleet.metric(name, "router_notification_runs_ended_total", 'why="fenced"')

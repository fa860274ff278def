"""The faults of docs/guarantees.md, each as a context: it strikes on entering and is over on leaving. They know no workload.

A part is drawn by chance where there are several of its kind, so many runs strike them all.
"""

import asyncio
import math
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import psycopg

from tests.faults.clients import never_reading, poisonous
from tests.faults.stage import Stage
from tests.faults.surroundings import all_restarted, clock_jumps, disk_full
from tests.system.proxy import CLEAR, CUT, Weather

Befall = Callable[[Stage, random.Random], AbstractAsyncContextManager[None]]

BRIEF, LONG = 4.0, 6.5  # seconds; LONG is longer than every lease
UNFELT = 4.0  # seconds without any answer, on a busy machine, where a fault should not be felt at all
SERVICES = ("edge", "router", "store", "tagsvc", "scheduler", "balancer")
LINKS = (
    ("client", "edge"),
    ("edge", "balancer"),
    ("edge", "router"),
    ("router", "store"),
    ("router", "tagsvc"),
    ("scheduler", "router"),
    ("scheduler", "store"),
    ("scheduler", "tagsvc"),
    ("tagsvc", "store"),
    ("store", "postgres"),
    ("everybody", "etcd"),
    ("everybody", "redis"),
)
"""Every way of the picture in docs/ARCHITECTURE.md: who dials whom."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    Attributes:
        lasts: seconds between having struck and healing.
        takes: seconds that striking takes, about.
        disturbs: cuts off what is under way, so that an acknowledgement on its way may be lost (see `Disturbed`).
        silence: seconds for which nobody's message may be left unanswered, where the fault is not to be felt.
    """

    name: str
    befall: Befall
    lasts: float = BRIEF
    disturbs: bool = True
    silence: float = math.inf
    takes: float = 0.0


def catalogue() -> list[Fault]:
    """All of them."""
    return [
        Fault("nothing", nothing, disturbs=False),
        *(Fault(f"kill -9 {service}", partial(killed, service=service)) for service in SERVICES),
        *(Fault(f"freeze {service}", partial(frozen, service=service), LONG) for service in SERVICES),
        *(Fault(f"stop {service}", partial(stopped, service=service), disturbs=False) for service in SERVICES),
        *(Fault(f"cut {one} - {other}", partial(cut, link=(one, other))) for one, other in LINKS),
        *(Fault(f"deaf {one} > {other}", partial(half_cut, link=(one, other), up=CUT, down=CLEAR), LONG) for one, other in LINKS),
        *(Fault(f"mute {one} < {other}", partial(half_cut, link=(one, other), up=CLEAR, down=CUT), LONG) for one, other in LINKS),
        *(Fault(f"slow {one} - {other}", partial(bad, link=(one, other), weather=Weather(delay=0.1))) for one, other in LINKS[:4]),
        *(Fault(f"slices {one} - {other}", partial(bad, link=(one, other), weather=SLICES)) for one, other in LINKS[:4]),
        *(Fault(f"resets {one} - {other}", partial(resets, link=(one, other))) for one, other in LINKS[:4]),
        Fault("all sockets dropped", dropped),
        Fault("redis: FLUSHALL", flushed, silence=UNFELT),
        Fault("redis: restart", redis_restarted, silence=UNFELT),
        Fault("redis: frozen", redis_frozen, silence=UNFELT),
        Fault("etcd: one of three down", partial(etcd_down, count=1), LONG, silence=UNFELT),
        Fault("etcd: quorum lost", partial(etcd_down, count=2), 2 * LONG, silence=UNFELT),
        Fault("etcd: all restarted", partial(etcd_down, count=3), 2 * LONG, silence=UNFELT),
        Fault("postgres: immediate restart", postgres_restarted, 1.0),
        Fault("postgres: down", postgres_restarted),
        Fault("postgres: backends killed", backends_killed),
        Fault("all stores frozen", overload, LONG),
        Fault("a client that never reads", never_reading, disturbs=False),
        Fault("poisoned payloads", poisonous, disturbs=False),
        Fault("clock an hour ahead", partial(clock_jumps, back=False), LONG, takes=15.0),
        Fault("clock an hour back", partial(clock_jumps, back=True), LONG, takes=15.0),
        Fault("disk full", disk_full),
        Fault("everything restarted", all_restarted, disturbs=False, takes=90.0),
    ]


SLICES = Weather(piece=64, delay=0.0005)


@asynccontextmanager
async def nothing(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """All is well."""
    yield


@asynccontextmanager
async def killed(stage: Stage, rng: random.Random, service: str) -> AsyncIterator[None]:
    """kill -9, and started again when it is over."""
    name = rng.choice(stage.names(service))
    stage.fleet.kill(name)
    yield
    await stage.back(name)


@asynccontextmanager
async def frozen(stage: Stage, rng: random.Random, service: str) -> AsyncIterator[None]:
    """SIGSTOP, then SIGCONT: it goes on as if no time had passed."""
    name = rng.choice(stage.names(service))
    stage.fleet.freeze(name)
    yield
    stage.fleet.thaw(name)


@asynccontextmanager
async def overload(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """No store answers while everybody goes on sending: what finds no room is refused with a time to come again."""
    for name in stage.names("store"):
        stage.fleet.freeze(name)
    yield
    for name in stage.names("store"):
        stage.fleet.thaw(name)


@asynccontextmanager
async def stopped(stage: Stage, rng: random.Random, service: str) -> AsyncIterator[None]:
    """SIGTERM: it leaves in order, and is started again."""
    name = rng.choice(stage.names(service))
    stage.fleet.stop(name)
    yield
    await asyncio.to_thread(stage.fleet.await_end, name)
    await stage.back(name)


@asynccontextmanager
async def cut(stage: Stage, rng: random.Random, link: tuple[str, str]) -> AsyncIterator[None]:
    """Nothing passes between all of the one kind and all of the other. Half of the time the connections don't outlive it."""
    stage.weather(_dialer(link), link[1], CUT, CUT)
    yield
    stage.clear(reset=rng.random() < 0.5)


@asynccontextmanager
async def half_cut(stage: Stage, rng: random.Random, link: tuple[str, str], up: Weather, down: Weather) -> AsyncIterator[None]:
    """One of the one kind and one of the other: what goes one way arrives, what goes the other way doesn't."""
    dialers = stage.names(_dialer(link)) if _dialer(link) else [""]
    talking = [
        (one, name) for one in dialers for name, proxy in stage.proxies.items() if name.startswith(link[1]) and proxy.connected(one)
    ]
    stage.weather(*rng.choice(talking), up, down)
    yield
    stage.clear(reset=rng.random() < 0.5)


@asynccontextmanager
async def bad(stage: Stage, rng: random.Random, link: tuple[str, str], weather: Weather) -> AsyncIterator[None]:
    """Everything between the two kinds is late, or comes in pieces."""
    stage.weather(_dialer(link), link[1], weather, weather)
    yield
    stage.clear()


@asynccontextmanager
async def resets(stage: Stage, rng: random.Random, link: tuple[str, str]) -> AsyncIterator[None]:
    """Connections between the two kinds are reset, half-closed or swallowed at random."""

    async def harm() -> None:
        while True:
            await asyncio.sleep(rng.expovariate(1 / 0.15))
            rng.choice(list(stage.before(link[1]))).fail_one()

    harming = asyncio.create_task(harm())
    yield
    harming.cancel()
    await asyncio.gather(harming, return_exceptions=True)
    stage.clear()


@asynccontextmanager
async def dropped(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """All clients' sockets are reset at once."""
    for proxy in stage.before("edge"):
        proxy.fail_all()
    yield


@asynccontextmanager
async def flushed(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """FLUSHALL."""
    await asyncio.to_thread(stage.redis.flush)
    yield


@asynccontextmanager
async def redis_restarted(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """Killed, and started again empty."""
    stage.redis.kill()
    yield
    await asyncio.to_thread(stage.redis.start)


@asynccontextmanager
async def redis_frozen(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """It takes connections and answers nothing."""
    stage.redis.signal(signal.SIGSTOP)
    yield
    stage.redis.signal(signal.SIGCONT)


@asynccontextmanager
async def etcd_down(stage: Stage, rng: random.Random, count: int) -> AsyncIterator[None]:
    """So many members are killed; with two of three gone nobody can register."""
    gone = rng.sample(stage.etcds, count)
    for one in gone:
        one.kill()
    yield
    for one in gone:
        one.launch()
    for one in gone:
        await asyncio.to_thread(one.await_healthy)


@asynccontextmanager
async def postgres_restarted(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """Ended without a word to anybody; it recovers from its log when it is started."""
    await asyncio.to_thread(stage.postgres.stop, signal.SIGQUIT)
    yield
    await asyncio.to_thread(stage.postgres.start)


@asynccontextmanager
async def backends_killed(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """Every session of the database is ended, several times."""

    async def end_all() -> None:
        while True:
            await asyncio.to_thread(_end_sessions, stage.postgres.url())
            await asyncio.sleep(rng.expovariate(1 / 0.7))

    ending = asyncio.create_task(end_all())
    yield
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)


def _end_sessions(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'tidings_%'")


def _dialer(link: tuple[str, str]) -> str:
    """Whose connections: "" for everybody's; clients are no part of the fleet, and nobody else comes through an edge's proxy."""
    return "" if link[0] in ("client", "everybody") else link[0]

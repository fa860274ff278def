"""What the router's roster, its watches and the balancer's books cost, measured on the real cores at sizes that fit.

Nothing here is simulated: each function fills a real structure, and times and weighs it. Others scale what comes out. Memory is the
process's own, so what is to be weighed is filled in a process that has done nothing else: see `alone`.
"""

import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import ParamSpec, TypeVar

import psutil

from balancer import policies
from balancer.door import Caps, Door
from balancer.fleet import Connection, Fleet, Profile
from bench.simulation.scatter import Scatter
from mesh.credentials import Identity, TicketIssuer
from router.presence import PresenceBoard
from router.roster import Roster

P = ParamSpec("P")
T = TypeVar("T")
_REPEATS = 30
_GROUP = 100  # members of a group that is looked for by bitmap
CAPACITY = 200_000  # connections that an edge of the balancer's books takes


@dataclass(frozen=True, slots=True)
class RosterCost:
    """One router's roster with so many links and users. Times are seconds of CPU; `held` is bytes of memory in all."""

    edges: int
    users: int
    held: int
    where_two: float  # to find the two members of a pair
    where_group: float  # to find a hundred members
    opened: float  # one user came to an edge
    closed: float  # one user left an edge
    snapshot: float  # an edge's link came, when all others are there
    gone: float  # an edge's link ended


def alone(measure: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Measure in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *args, **kwargs).result()


def roster(make: Callable[[], Roster[int]], edges: int, users: int, seed: int = 1) -> RosterCost:
    """Fill a roster and measure it."""
    scatter, random, before = Scatter(edges, users), Random(seed), _memory()
    found = make()
    for edge in range(edges - 1):
        found.snapshot(edge, scatter.online(edge))
    last, started = scatter.online(edges - 1), time.perf_counter()
    found.snapshot(edges - 1, last)
    snapshot, held = time.perf_counter() - started, _memory() - before
    some = [found.online[random.randrange(len(found))] for _ in range(_REPEATS * _GROUP)]
    where_two = _median(lambda n: list(found.where(some[2 * n : 2 * n + 2])))
    where_group = _median(lambda n: list(found.where(some[_GROUP * n : _GROUP * (n + 1)])))
    spare = [scatter.highest + 1 + n for n in range(_REPEATS)]
    opened = _median(lambda n: found.opened(n % edges, [spare[n]]))
    closed = _median(lambda n: found.closed(n % edges, [spare[n]]))
    gone = _median(found.gone, repeats=min(5, edges - 1))
    return RosterCost(edges, users, held, where_two, where_group, opened, closed, snapshot, gone)


def watch_bytes(sessions: int, watched: int, users: int, seed: int = 1) -> float:
    """Bytes of the presence board for each watch, when sessions watch so many of these users each, by chance."""
    random, before = Random(seed), _memory()
    board: PresenceBoard[int] = PresenceBoard(watched, 2.0)
    for session in range(sessions):
        them = {ordinal: f"user-{ordinal:09d}" for ordinal in (random.randrange(users) for _ in range(watched))}
        board.watch(0, session, session, them)
    return (_memory() - before) / (sessions * watched)


def connection_bytes(connections: int, edges: int = 10) -> float:
    """Bytes of a balancer's books for each connection, when each user has one and comes from an address of their own."""
    before, fleet = _memory(), Fleet()
    for edge in range(edges):
        mine = range(edge, connections, edges)
        fleet.enter(_profile(edge), (Connection.of(_address(n), f"user-{n:09d}") for n in mine), 0.0)
    return (_memory() - before) / connections


def admission(edges: int, repeats: int = 300) -> float:
    """Seconds of a balancer's CPU to place one client among so many edges, with its ticket; without HTTP, token and JSON."""
    fleet = Fleet()
    for edge in range(edges):
        fleet.enter(_profile(edge), (), 0.0)
    door = Door(fleet, policies.named("two_choices"), TicketIssuer("s" * 32), Caps(0, 50, 2.0), Random(1))
    return _median(lambda n: door.admit(Identity(f"user-{n}", 1e12), _address(n), "", 0.0, 1e9), repeats)


def _profile(edge: int) -> Profile:
    return Profile(f"edge-{edge:026d}", f"wss://edge-{edge}.example", "", CAPACITY)


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _median(work: Callable[[int], object], repeats: int = _REPEATS) -> float:
    times: list[float] = []
    for number in range(repeats):
        started = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _memory() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)

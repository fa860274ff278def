"""What an edge does by and by: session deadlines, broadcasts, and syncing everybody again after a link was lost."""

import asyncio
from collections.abc import Callable

from edge.connection import Connection
from edge.population import Population
from edge.session import Session
from edge.switchboard import Switchboard

SLICE = 500  # sessions looked at before others get their turn
RESYNC_SLICE = 20  # sessions synced again at once
TURNS = 4  # of the event loop after each slice of what is for many: what takes others some turns is not to take as many slices
SETTLE_SECONDS = 0.5  # after a link changed, wait so long for others: one pass then does for all


async def tick_sessions(population: Population, switchboard: Switchboard, clock: Callable[[], float], interval: float) -> None:
    """Look at the deadlines of all sessions every `interval` seconds."""
    while True:
        await _tick_all(population.all(), switchboard, clock)
        await asyncio.sleep(interval)


async def _tick_all(connections: list[Connection], switchboard: Switchboard, clock: Callable[[], float]) -> None:
    """Apart, so that while nobody is looked at nobody is held: the last connection would stay until another comes."""
    for start in range(0, len(connections), SLICE):
        now = clock()
        for connection in connections[start : start + SLICE]:
            if connection.session.deadline <= now:
                _tick(connection.session, switchboard, now)
        switchboard.flush()
        await asyncio.sleep(0)


def _tick(session: Session, switchboard: Switchboard, now: float) -> None:
    try:
        session.tick(now)
    except Exception:
        switchboard.failed(session)


async def resync_sessions(wanted: asyncio.Event, switchboard: Switchboard, clock: Callable[[], float], per_second: float) -> None:
    """Whenever `wanted` is set, sync every session from the log and renew its presence watches, at a bounded pace."""
    while True:
        await wanted.wait()
        await asyncio.sleep(SETTLE_SECONDS)
        wanted.clear()
        numbers = switchboard.directory.numbers()
        for start in range(0, len(numbers), RESYNC_SLICE):
            _resync(numbers[start : start + RESYNC_SLICE], switchboard, clock())
            await asyncio.sleep(RESYNC_SLICE / per_second)


def _resync(numbers: list[int], switchboard: Switchboard, now: float) -> None:
    for number in numbers:
        session = switchboard.directory.of_number(number)
        if session is not None and session.synced < switchboard.missed:
            session.resync(now)
            switchboard.rewatch(session)
    switchboard.flush()


async def write_broadcasts(
    wanted: asyncio.Event, switchboard: Switchboard, clock: Callable[[], float], wall: Callable[[], float]
) -> None:
    """Whenever `wanted` is set, write what is for many, one slice in a few turns of the event loop: chat goes in between."""
    while True:
        await wanted.wait()
        if not switchboard.write_slice(clock(), wall()):
            wanted.clear()
        for _ in range(TURNS):
            await asyncio.sleep(0)

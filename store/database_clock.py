"""The store's clock with PostgreSQL: the database's, so that all stores judge by one clock what is due, leased and expired.

Nobody's use of it costs a query: it is this machine's steady clock and a difference, measured before the store serves and again
every few seconds. A measurement that fails leaves the difference as it is. When the database's clock is set, or another server
takes over, the stores follow within one pause, all of them, and a warning is logged.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy import Connection, text

from mesh.errors import TidingsError
from mesh.followed_clock import FollowedClock
from mesh.telemetry import Telemetry
from mesh.times import SECOND
from store.ports import Database

SECONDS = 5.0  # between two measurements: two good machines drift apart by less than a millisecond in that time
_ANSWERS = 5  # in one measurement: the quickest of them counts most
_STEP = SECOND  # a correction by more is no drift: somebody set a clock, or this machine slept
_NOW = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
_log = structlog.get_logger(__name__)
Answer = tuple[int, int, int]


class DatabaseClock:
    """Keeps a clock at the time of a database.

    Args:
        database: PostgreSQL.
        clock: is kept right.
    """

    def __init__(self, database: Database, clock: FollowedClock, telemetry: Telemetry) -> None:
        self._database = database
        self._clock = clock
        telemetry.gauge(
            "store_clock_ahead_seconds",
            "How far the time of day here is ahead of the database's, which is gone by",
            lambda: clock.own_ahead / SECOND,
        )

    async def measure(self) -> None:
        """Put the clock right.

        Raises:
            TidingsError: UNAVAILABLE when the database stays away; the clock is as it was.
        """
        answers = await self._database.read(partial(_ask, steady=self._clock.steady))
        moved = sum(self._clock.learn(*answer) for answer in answers)
        if abs(moved) > _STEP:
            _log.warning("clock put right by the database's", seconds=moved / SECOND)

    async def run(self, pause: float = SECONDS) -> None:
        """Measure every `pause` seconds until cancelled."""
        while True:
            await asyncio.sleep(pause)
            try:
                await self.measure()
            except TidingsError as error:
                _log.warning("the database's clock not read; the difference stays as it was", error=error.message)


def _ask(connection: Connection, steady: Callable[[], int]) -> list[Answer]:
    answers = []
    for _ in range(_ANSWERS):
        asked = steady()
        said = connection.execute(_NOW).scalar_one()
        answers.append((asked, said, steady()))
    return answers

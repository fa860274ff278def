"""The loop that finds what is due, or is about to be, and has it handed over in the order in which the store gave it."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from mesh.errors import TidingsError
from mesh.patience import PASSING
from mesh.times import microseconds
from scheduler.claims import Claims, claim_of
from scheduler.handover import Handover
from scheduler.meters import Meters
from scheduler.pace import Pace
from scheduler.series import Series
from tidings.store.v1.notification_pb2 import Claim, StoredNotification

_log = structlog.get_logger(__name__)


class DueLoop:
    """Claims, has next occurrences made, hands over; until stopped.

    Args:
        batch: notifications claimed at once, at most.
        woken: set by others when something may be due.
        clock: microseconds since 1970.
    """

    def __init__(
        self,
        claims: Claims,
        series: Series,
        handover: Handover,
        pace: Pace,
        meters: Meters,
        batch: int,
        woken: asyncio.Event,
        clock: Callable[[], int],
    ) -> None:
        self._claims = claims
        self._series = series
        self._handover = handover
        self._pace = pace
        self._meters = meters
        self._batch = batch
        self._woken = woken
        self._clock = clock
        self._tell = _log.warning
        self._stopping = False
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Work until stopped."""
        try:
            while not self._stopping:
                limit = min(self._batch, await self._handover.room())
                if not self._stopping:
                    await self._turn(limit)
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Claim nothing more; release what no router has taken."""
        self._stopping = True
        self._woken.set()
        self._handover.hurry()
        await self._stopped.wait()
        await self._handover.close()

    async def _turn(self, limit: int) -> None:
        """Claim once, hand over what came, and wait until there may be more."""
        self._woken.clear()
        wait = await self._claim(limit)
        if wait > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), wait)

    async def _claim(self, limit: int) -> float:
        """Gives the seconds to wait."""
        try:
            response = await self._claims.take(limit)
        except TidingsError as error:
            tell, self._tell = self._tell, _log.debug  # once is enough until it can be
            tell("nothing can be claimed", reason=error.reason, error=error.message)
            return self._pace.after_failure()
        self._tell = _log.warning
        self._meters.claimed(response.notifications, self._clock())
        await self._hand_over(response.notifications)
        next_due = microseconds(response.next_due_time) if response.HasField("next_due_time") else None
        return self._pace.after_claim(len(response.notifications), limit, next_due, self._clock())

    async def _hand_over(self, claimed: Sequence[StoredNotification]) -> None:
        """In order: one whose next occurrence is being made holds up those after it, and none before it."""
        ready: list[Claim] = []
        async with asyncio.TaskGroup() as group:
            preparing = [group.create_task(self._prepare(one)) for one in claimed]
            for one, prepared in zip(claimed, preparing, strict=True):
                if not prepared.done():
                    self._handover.give(ready)
                    ready = []
                if await prepared:
                    ready.append(claim_of(one))
        self._handover.give(ready)

    async def _prepare(self, claimed: StoredNotification) -> bool:
        """Whether it is to be handed over. An occurrence of a series has its next one made first; an expired one is ended then."""
        if not claimed.occurrence:
            return True
        try:
            holds = await self._series.follow_claimed(claimed)
            if holds and microseconds(claimed.spec.expire_time) <= self._clock():
                await self._claims.expire(claimed)
                return False
        except Exception as error:  # its own: it harms no other
            if isinstance(error, TidingsError) and error.code in PASSING:
                self._handover.give_back([claim_of(claimed)], f"its next occurrence can't be made: {error.message}")
            else:
                await self._fail(claimed, error)
            return False
        return holds

    async def _fail(self, claimed: StoredNotification, error: Exception) -> None:
        _log.error("not prepared", notification=claimed.notification_id, exc_info=error)
        try:
            await self._claims.fail(claim_of(claimed), error)
        except TidingsError as refusal:
            _log.warning("not given up; its lease runs out", notification=claimed.notification_id, error=refusal.message)

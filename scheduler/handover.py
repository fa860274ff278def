"""Handing claimed notifications to the routers that run them.

Rules: each router gets its own in the order of their claims, all that wait for it in one call, one call at a time; a router that
hangs holds up no other. What a router doesn't take stays claimed for a moment, which grows while it keeps failing, and is released
then: so it is due again, and a mesh without routers doesn't spin. Everything held is counted, and bounded by whoever claims.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from mesh.errors import TidingsError
from scheduler.backoff import Backoff
from scheduler.claims import Claims
from scheduler.meters import Meters
from scheduler.ports import Router, Routers
from tidings.store.v1.notification_pb2 import Claim

_BATCH = 1_000  # what a router, or the store, takes at once
_NOBODY = ""  # stands for a router where there is none
_log = structlog.get_logger(__name__)


class Handover:
    """Gives claims away. It holds what no router has taken yet; `room` says how much more it may hold.

    Args:
        capacity: claims held at most, if the claimer asks `room` first.
        on_released: called when something was released and is due again.
    """

    def __init__(self, routers: Routers, claims: Claims, meters: Meters, capacity: int, on_released: Callable[[], None]) -> None:
        self._routers = routers
        self._claims = claims
        self._meters = meters
        self._capacity = capacity
        self._on_released = on_released
        self._backoff = Backoff()
        self._waiting: dict[str, list[Claim]] = {}  # by router; one that is here is being told something
        self._held = 0
        self._fell = asyncio.Event()
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return self._held

    async def room(self) -> int:
        """How many more claims there is room for; waits until there is some."""
        while self._held >= self._capacity:
            self._fell.clear()
            await self._fell.wait()
        return self._capacity - self._held

    def give(self, claims: Sequence[Claim]) -> None:
        """Hand these over, in this order."""
        homeless = []
        self._held += len(claims)
        for claim in claims:
            try:
                self._put(self._routers.owner(claim.notification_id), claim)
            except TidingsError:
                homeless.append(claim)
        if homeless:
            self._give_back(homeless, _NOBODY, "no router is up")

    def give_back(self, claims: Sequence[Claim], why: str) -> None:
        """Release these in a moment: they can't be handed over now."""
        self._held += len(claims)
        self._give_back(claims, _NOBODY, why)

    def hurry(self) -> None:
        """Tell no router anything more; release what waits, now."""
        self._closing.set()

    async def close(self) -> None:
        """`hurry`, and wait until nothing is held: routers that are being told something may still take it."""
        self.hurry()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _put(self, router: Router, claim: Claim) -> None:
        if router.router_id in self._waiting:
            self._waiting[router.router_id].append(claim)
        else:
            self._waiting[router.router_id] = [claim]
            self._spawn(self._tell_all(router))

    async def _tell_all(self, router: Router) -> None:
        while waiting := self._waiting[router.router_id]:
            batch, self._waiting[router.router_id] = waiting[:_BATCH], waiting[_BATCH:]
            await self._tell(router, batch)
        del self._waiting[router.router_id]

    async def _tell(self, router: Router, claims: list[Claim]) -> None:
        refused, why = await self._start(router, claims)
        if refused:
            self._give_back(refused, router.router_id, why)
        else:
            self._backoff.succeeded(router.router_id)
        taken = len(claims) - len(refused)
        if taken:
            self._backoff.succeeded(_NOBODY)
            self._meters.handed_over(taken)
            self._let_go(taken)

    async def _start(self, router: Router, claims: list[Claim]) -> tuple[list[Claim], str]:
        """What the router did not take, and why."""
        if self._closing.is_set():
            return claims, "the scheduler stops"
        try:
            refused = await router.start(claims)
        except TidingsError as error:
            return claims, error.message
        return [claim for claim in claims if claim.notification_id in refused], "it has no room, or leaves"

    def _give_back(self, claims: Sequence[Claim], router_id: str, why: str) -> None:
        _log.warning("not handed over", router=router_id, notifications=len(claims), why=why)
        self._meters.given_back(len(claims))
        self._spawn(self._release(claims, self._backoff.failed(router_id)))

    async def _release(self, claims: Sequence[Claim], delay: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), delay)
        try:
            for start in range(0, len(claims), _BATCH):
                await self._claims.release(claims[start : start + _BATCH])
        except TidingsError as error:
            _log.warning("not released; their lease runs out", notifications=len(claims), error=error.message)
        finally:
            self._let_go(len(claims))
            self._on_released()

    def _let_go(self, count: int) -> None:
        self._held -= count
        self._fell.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

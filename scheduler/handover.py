"""Handing claimed notifications to the routers that run them.

Rules: each router gets its own in the order of their claims, all that wait for it in one call, one call at a time; a router that
hangs, or is full, holds up no other. What waits is counted, and bounded by whoever claims; what a router didn't take is held apart
(`aside`) and not counted, as long as there is room for it.
What a router refused is released after a while: so it is due again. When a call's outcome is unknown, the router may be at work
under the very fence that a release would end: then nothing is released unless the router leaves, and the lease runs out if it
isn't at work. What has no router stays claimed for a moment, which grows, so that a mesh without routers doesn't spin.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from mesh.errors import TidingsError
from scheduler.aside import Aside, Group
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
        aside: where what wasn't taken is held apart; when that is full, it counts like all else until it is released.
        capacity: claims held at most, not counting those apart, if the claimer asks `room` first.
        on_released: called when something was released and is due again.
    """

    def __init__(
        self, routers: Routers, claims: Claims, meters: Meters, aside: Aside, capacity: int, on_released: Callable[[], None]
    ) -> None:
        self._routers = routers
        self._claims = claims
        self._meters = meters
        self._aside = aside
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
        """Tell no router anything more; release what waits or was refused, now."""
        self._closing.set()
        self._aside.close()

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
        try:
            while waiting := self._waiting[router.router_id]:
                batch, self._waiting[router.router_id] = waiting[:_BATCH], waiting[_BATCH:]
                await self._tell(router, batch)
        finally:
            untold = self._waiting.pop(router.router_id)
            if untold:
                self._give_back(untold, router.router_id, "it could not be told")

    async def _tell(self, router: Router, claims: list[Claim]) -> None:
        refused_ids = await self._start(router, claims)
        if refused_ids is None:
            self._leave_to_lease(router, claims)
            return
        refused = [claim for claim in claims if claim.notification_id in refused_ids]
        taken = len(claims) - len(refused)
        if taken:
            self._backoff.succeeded(router.router_id)
            self._backoff.succeeded(_NOBODY)
            self._meters.handed_over(taken)
            self._let_go(taken)
        if refused:
            self._set_aside(router, refused)
        else:
            self._aside.has_room(router.router_id)

    async def _start(self, router: Router, claims: list[Claim]) -> set[str] | None:
        """The ids of those that the router did certainly not take; None when nobody knows."""
        if self._closing.is_set():
            return {claim.notification_id for claim in claims}
        try:
            return await router.start(claims)
        except TidingsError as error:
            _log.warning("no answer; it may have taken them", router=router.router_id, notifications=len(claims), why=error.message)
        except Exception:
            _log.exception("the call failed; it may have taken them", router=router.router_id, notifications=len(claims))
        return None

    def _set_aside(self, router: Router, refused: Sequence[Claim]) -> None:
        """Release these when the router may have room."""
        group = self._aside.add(router.router_id, refused, refused=True)
        if group is None:
            self._give_back(refused, router.router_id, "it has no room, or leaves; nor is there room to hold it apart")
            return
        self._let_go(len(refused))
        self._note(refused, router.router_id, "it has no room, or leaves")
        delay = min(self._backoff.failed(router.router_id), self._aside.longest) if group.soon else self._aside.longest
        self._spawn(self._hold_refused(group, delay))

    async def _hold_refused(self, group: Group, delay: float) -> None:
        try:
            await group.wait(delay)
            await self._release(group.claims)
        finally:
            self._aside.remove(group)
            self._on_released()

    def _leave_to_lease(self, router: Router, claims: Sequence[Claim]) -> None:
        """Hold these until their leases end, for the router may run them; release them if it leaves."""
        group = self._aside.add(router.router_id, claims, refused=False)
        if group is not None:
            self._let_go(len(claims))
        self._spawn(self._hold_unanswered(router, claims, group))

    async def _hold_unanswered(self, router: Router, claims: Sequence[Claim], group: Group | None) -> None:
        try:
            if await self._leaves(router):
                self._note(claims, router.router_id, "it left")
                await self._release(claims)
        finally:
            if group is None:
                self._let_go(len(claims))
            else:
                self._aside.remove(group)
            self._on_released()

    async def _leaves(self, router: Router) -> bool:
        """Whether it does within a lease, and before the scheduler stops."""
        left, closing = asyncio.create_task(router.left()), asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({left, closing}, timeout=self._aside.lease, return_when=asyncio.FIRST_COMPLETED)
            return left.done()
        finally:
            left.cancel()
            closing.cancel()

    def _give_back(self, claims: Sequence[Claim], router_id: str, why: str) -> None:
        """Release these in a moment; they count until then."""
        self._note(claims, router_id, why)
        self._spawn(self._hold(claims, self._backoff.failed(router_id)))

    async def _hold(self, claims: Sequence[Claim], delay: float) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay)
            await self._release(claims)
        finally:
            self._let_go(len(claims))
            self._on_released()

    async def _release(self, claims: Sequence[Claim]) -> None:
        try:
            for start in range(0, len(claims), _BATCH):
                await self._claims.release(claims[start : start + _BATCH])
        except TidingsError as error:
            _log.warning("not released; their lease runs out", notifications=len(claims), error=error.message)

    def _note(self, claims: Sequence[Claim], router_id: str, why: str) -> None:
        _log.warning("not handed over", router=router_id, notifications=len(claims), why=why)
        self._meters.given_back(len(claims))

    def _let_go(self, count: int) -> None:
        self._held -= count
        self._fell.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

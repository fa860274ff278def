"""Claims that a router has refused, or may have taken without saying so: held apart, so that claiming goes on past them. No I/O.

Rules: of what a router refused, one group at a time is to be tried again soon; the others wait until it takes things again, and at
most until shortly before their leases end. Were all tried again soon, they would be claimed again before anything newer, and the
routers that have room would get nothing. What a router may have taken waits for the end of its lease.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from tidings.store.v1.notification_pb2 import Claim

_SHARE_OF_LEASE = 0.8  # what is given back by then is claimed again no later than if its lease had run out


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """Claims held apart together.

    Attributes:
        refused: the router said no; else it said nothing.
        soon: to be tried again soon, to see whether the router has room.
        free: set when it needn't be held any longer.
    """

    router_id: str
    claims: Sequence[Claim]
    refused: bool
    soon: bool
    free: asyncio.Event

    async def wait(self, seconds: float) -> None:
        """Until it is free; after so many seconds it is."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.free.wait(), seconds)
        self.free.set()


class Aside:
    """What is held apart. When it is full it takes nothing more, and says so.

    Args:
        capacity: claims held at most.
        lease: seconds from a claim to the end of its lease.
    """

    def __init__(self, capacity: int, lease: float) -> None:
        self.lease = lease
        self._capacity = capacity
        self._held = 0
        self._groups: dict[str, dict[Group, None]] = {}  # by router, the oldest first
        self._closed = False

    def __len__(self) -> int:
        return self._held

    @property
    def longest(self) -> float:
        """Seconds for which something refused is held at most."""
        return self.lease * _SHARE_OF_LEASE

    def add(self, router_id: str, claims: Sequence[Claim], *, refused: bool) -> Group | None:
        """Hold these until they are removed; None when there is no room for them."""
        if self._held + len(claims) > self._capacity:
            return None
        groups = self._groups.setdefault(router_id, {})
        soon = refused and not any(one.soon and not one.free.is_set() for one in groups)
        group = Group(router_id, claims, refused, soon, asyncio.Event())
        groups[group] = None
        self._held += len(claims)
        if self._closed:
            group.free.set()
        return group

    def remove(self, group: Group) -> None:
        """These are held no longer."""
        self._held -= len(group.claims)
        groups = self._groups[group.router_id]
        del groups[group]
        if not groups:
            del self._groups[group.router_id]

    def has_room(self, router_id: str) -> None:
        """A router took all it was offered: the oldest group that it refused may go."""
        waiting = (one for one in self._groups.get(router_id, ()) if one.refused and not one.free.is_set())
        if group := next(waiting, None):
            group.free.set()

    def close(self) -> None:
        """Everything may go, also what is added from now on."""
        self._closed = True
        for groups in self._groups.values():
            for group in groups:
                group.free.set()

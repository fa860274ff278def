"""The cache of a mesh that lives in one process: its services meet in it, and no other process does.

Bounded: RATE_KEYS buckets a rate, RECENT_KEYS keys of recent bytes, past which the one unused for longest goes; the directory holds
what the process's own edges put, which their capacity bounds.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from mesh.cache import EDGE_SECONDS, SessionRecord
from mesh.rate_limit import RateLimit

RATE_KEYS = 100_000
RECENT_KEYS = 10_000
Clock = Callable[[], float]


class MemoryCache:
    """See `mesh.cache.Cache`.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.limits = MemoryRateLimits(clock)
        self.directory = MemorySessionDirectory(clock)
        self.recent = MemoryRecentBytes(clock)

    @property
    def up(self) -> bool:
        """See `Cache`."""
        return True


class MemoryRateLimits:
    """See `RateLimits`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._limits: dict[tuple[float, int], RateLimit] = {}  # one entry per rate in the settings

    async def take(self, key: str, per_second: float, burst: int) -> float | None:
        """See `RateLimits`."""
        rate = (per_second, burst)
        if rate not in self._limits:
            self._limits[rate] = RateLimit(*rate, RATE_KEYS)
        return self._limits[rate].take(key, self._clock())


class MemorySessionDirectory:
    """See `SessionDirectory`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beats: dict[str, float] = {}
        self._users: dict[str, dict[tuple[str, int], SessionRecord]] = {}

    async def beat(self, edge_id: str) -> bool | None:
        """See `SessionDirectory`."""
        known = self._alive(edge_id)
        self._beats[edge_id] = self._clock()
        return known

    async def put(self, sessions: Sequence[SessionRecord]) -> bool:
        """See `SessionDirectory`."""
        for session in sessions:
            self._users.setdefault(session.user_id, {})[session.edge_id, session.number] = session
        return True

    async def remove(self, sessions: Sequence[SessionRecord]) -> bool:
        """See `SessionDirectory`."""
        for session in sessions:
            of_user = self._users.get(session.user_id, {})
            of_user.pop((session.edge_id, session.number), None)
            if not of_user:
                self._users.pop(session.user_id, None)
        return True

    async def leave(self, edge_id: str) -> None:
        """See `SessionDirectory`."""
        self._beats.pop(edge_id, None)
        gone = [one for of_user in self._users.values() for one in of_user.values() if one.edge_id == edge_id]
        await self.remove(gone)

    async def sessions_of(self, user_id: str) -> list[SessionRecord] | None:
        """See `SessionDirectory`."""
        return [session for session in self._users.get(user_id, {}).values() if self._alive(session.edge_id)]

    def _alive(self, edge_id: str) -> bool:
        beaten = self._beats.get(edge_id)
        return beaten is not None and self._clock() - beaten < EDGE_SECONDS


class MemoryRecentBytes:
    """See `RecentBytes`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: OrderedDict[str, tuple[float, dict[int, bytes]]] = OrderedDict()  # the one unused for longest first

    async def get(self, wanted: Sequence[tuple[str, Sequence[int]]]) -> list[list[bytes | None]] | None:
        """See `RecentBytes`."""
        return [[self._slots(key).get(slot) for slot in slots] for key, slots in wanted]

    def put(self, values: Mapping[str, Mapping[int, bytes]], keep_seconds: float) -> None:
        """See `RecentBytes`."""
        for key, slots in values.items():
            self._keys[key] = (self._clock() + keep_seconds, {**self._slots(key), **slots})
            self._keys.move_to_end(key)
        while len(self._keys) > RECENT_KEYS:
            self._keys.popitem(last=False)

    def _slots(self, key: str) -> dict[int, bytes]:
        until, slots = self._keys.get(key, (0.0, {}))
        return slots if self._clock() < until else {}

"""A token bucket per key in bounded memory: sans-IO, time passed in.

Kept as the generic cell rate algorithm does (ITU-T I.371): one number per key, the time at which its bucket will be full again.
A key whose bucket is full is as good as unknown, so it is forgotten. When the table itself is full, the key heard from longest ago
is forgotten: who floods from that many addresses isn't held by a limit per address, and everybody else isn't locked out for it.
"""

from collections import OrderedDict


class RateLimit:
    """Refuses what comes too fast from one key.

    Args:
        per_second: lasting rate, above 0.
        burst: how many may come at once, at least 1.
        capacity: most keys remembered.
    """

    def __init__(self, per_second: float, burst: int, capacity: int) -> None:
        self._interval = 1.0 / per_second
        self._tolerance = self._interval * (burst - 1)
        self._capacity = capacity
        self._full_at: OrderedDict[str, float] = OrderedDict()  # the longest silent key first

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, now: float) -> float:
        """Take one token: 0 when there was one, else the seconds until there will be (and none is taken)."""
        full_at = max(now, self._full_at.get(key, now))
        wait = full_at - self._tolerance - now
        if wait > 0:
            return wait
        self._full_at[key] = full_at + self._interval
        self._full_at.move_to_end(key)
        self._tidy(now)
        return 0.0

    def _tidy(self, now: float) -> None:
        """Forget up to two silent keys whose bucket is full, so that the table shrinks faster than it grows; past the capacity, the
        longest silent one whatever its bucket."""
        for _ in range(2):
            key, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= self._capacity:
                return
            del self._full_at[key]

"""How fast a notification goes out: at most so many recipients in any one second, evenly spread.

A token bucket spreads them; the sends of the last second, kept beside it, make the bound strict: a bucket alone lets its capacity
pass on top of the rate. Time is passed in: monotonic seconds.
"""

from collections import deque

_STEP_SECONDS = 0.05  # a step's worth is what the rate allows in this time: 20 steps a second
_CAPACITY_SECONDS = 0.1  # tokens saved at most: what a step that comes late may catch up
_SECOND = 1.0
_TOLERANCE = 1e-6  # of rounding, so that a step that comes exactly when told to isn't told to come again


class Pace:
    """Lets recipients pass.

    Args:
        rate: recipients in a second, at least 1; None for no bound.
        now: monotonic seconds; a step's worth may pass at once.
    """

    def __init__(self, rate: int | None, now: float) -> None:
        self._rate = rate
        self._tokens = self._worth
        self._filled = now
        self._passed: deque[tuple[float, int]] = deque()
        self._in_second = 0

    def room(self, now: float) -> int | None:
        """How many may pass now; None for any number."""
        if self._rate is None:
            return None
        self._settle(now)
        return min(int(self._tokens + _TOLERANCE), self._rate - self._in_second)

    def passed(self, now: float, count: int) -> None:
        """So many passed."""
        if self._rate is None or not count:
            return
        self._settle(now)
        self._tokens -= count
        self._in_second += count
        self._passed.append((now, count))

    def when(self, now: float, waiting: int) -> float:
        """When a step's worth, or all who wait if they are fewer, may pass. `waiting` is at least 1."""
        if self._rate is None:
            return now
        self._settle(now)
        wanted = min(float(waiting), self._worth)
        return max(now, now + (wanted - self._tokens) / self._rate, self._free(now, wanted))

    @property
    def _worth(self) -> float:
        return 0.0 if self._rate is None else max(1.0, float(int(self._rate * _STEP_SECONDS)))

    def _settle(self, now: float) -> None:
        assert self._rate is not None  # noqa: S101
        capacity = max(1.0, self._rate * _CAPACITY_SECONDS)
        self._tokens = min(capacity, self._tokens + max(0.0, now - self._filled) * self._rate)
        self._filled = now
        while self._passed and now - self._passed[0][0] >= _SECOND - _TOLERANCE:
            self._in_second -= self._passed.popleft()[1]

    def _free(self, now: float, wanted: float) -> float:
        """When the last second's sends leave room for so many."""
        assert self._rate is not None  # noqa: S101
        free = float(self._rate - self._in_second)
        for at, count in self._passed:
            if free >= wanted:
                break
            free += count
            now = at + _SECOND
        return now

"""Who is to leave when, told by and by: a ticket for another edge holds only briefly, so nobody is told long before their time.

Pure; times are seconds of one monotonic clock.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

LEAD_SECONDS = 5.0  # clients are told at most this long before their appointment
CHUNK = 1_000  # clients told at once: as many as a balancer is asked about in one question

T = TypeVar("T")


def appointments(count: int, over: float, chance: Callable[[], float]) -> list[float]:
    """When each of `count` clients is to leave: evenly over `over` seconds, each anywhere in its own slot.

    Args:
        chance: gives numbers in [0, 1).
    """
    slot = over / count if count else 0.0
    return [(index + chance()) * slot for index in range(count)]


class Timetable(Generic[T]):
    """The appointments of some who leave within `over` seconds from `now`, in order.

    Attributes:
        end: when the last have left.
    """

    def __init__(self, leavers: Sequence[T], over: float, now: float, chance: Callable[[], float]) -> None:
        self._left = deque(zip(appointments(len(leavers), over, chance), leavers, strict=True))
        self._begin = now
        self.end = now + over

    def __len__(self) -> int:
        return len(self._left)

    def take(self, now: float) -> list[tuple[float, T]]:
        """Those whose time has come to be told, with their appointments: at most CHUNK."""
        taken: list[tuple[float, T]] = []
        while self._left and len(taken) < CHUNK and self._begin + self._left[0][0] <= now + LEAD_SECONDS:
            after, who = self._left.popleft()
            taken.append((self._begin + after, who))
        return taken

    def delay(self, seconds: float) -> None:
        """Whoever is left leaves so much later: it kept them waiting, and they shall not catch up all at once."""
        self._begin += seconds
        self.end += seconds

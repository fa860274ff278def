"""Who was sent a notification, hasn't acknowledged it, and when it is sent to them again: after 10 s, then 20, 40 … 300.

Users are kept in cohorts that fall due together. A cohort's time is rounded up to an eighth of its interval, so that there are
tens of cohorts, however many steps a notification goes out in.

Rules: a user is in at most one cohort. Who falls due while offline leaves; coming back starts from the first interval.
It must not know who acknowledged: the caller intersects what falls due with those who haven't. Time is passed in.
"""

import math
from collections.abc import Iterator

from pyroaring import BitMap

SOON_SECONDS = 1.0  # after this, what found no room on a link is tried again
_PARTS = 8  # an interval is cut into so many cohorts


class Resends:
    """The cohorts of one notification.

    Args:
        first: seconds to the first resend; each further interval is twice the one before.
        longest: seconds no further interval exceeds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._intervals = list(_doubling(first, max(first, longest)))
        self._levels = [BitMap() for _ in self._intervals]  # by resends made, from one on: level 0 holds nobody
        self._cohorts: dict[float, BitMap] = {}

    def sent(self, ordinals: BitMap, now: float) -> None:
        """These were sent it now. They are in no cohort."""
        rest = ordinals
        last = len(self._intervals) - 1
        for level in range(last, 0, -1):
            part = rest & self._levels[level]
            if part:
                rest = rest - part
                self._plan(part, now, self._intervals[level])
                self._move(part, level, min(level + 1, last))
        if rest:
            self._plan(rest, now, self._intervals[0])
            self._move(rest, 0, min(1, last))

    def missed(self, ordinals: BitMap, now: float) -> None:
        """These were to be sent it, but their link had no room."""
        if ordinals:
            self._plan(ordinals, now, SOON_SECONDS)

    def came(self, ordinals: BitMap) -> None:
        """These came online: they are sent it at once by other means, and begin anew."""
        self._forget(ordinals)
        for at in list(self._cohorts):
            self._cohorts[at] -= ordinals
            if not self._cohorts[at]:
                del self._cohorts[at]

    def acknowledged(self, ordinals: BitMap) -> None:
        """These have it. They stay in their cohorts until those fall due."""
        self._forget(ordinals)

    def due(self, now: float) -> BitMap:
        """Who falls due; they are in no cohort any more."""
        times = [at for at in self._cohorts if at <= now]
        return BitMap.union(BitMap(), *(self._cohorts.pop(at) for at in times))

    @property
    def next(self) -> float | None:
        """When the next cohort falls due; None when there is none."""
        return min(self._cohorts, default=None)

    @property
    def bitmaps(self) -> list[BitMap]:
        """All it holds, for measures."""
        return [*self._levels, *self._cohorts.values()]

    def _plan(self, ordinals: BitMap, now: float, interval: float) -> None:
        grain = interval / _PARTS
        at = math.ceil((now + interval) / grain) * grain
        if at in self._cohorts:
            self._cohorts[at] |= ordinals
        else:
            self._cohorts[at] = ordinals.copy()

    def _move(self, ordinals: BitMap, before: int, after: int) -> None:
        if after != before:
            self._levels[before] -= ordinals
            self._levels[after] |= ordinals

    def _forget(self, ordinals: BitMap) -> None:
        for level in self._levels:
            if level:
                level -= ordinals  # noqa: PLW2901  (in place)


def _doubling(first: float, longest: float) -> Iterator[float]:
    interval = first
    while interval < longest:
        yield interval
        interval *= 2
    yield longest

"""A clock that goes by another's: a store's by its database's, schedulers' and routers' by the stores'. Pure but for this machine's
own clocks.

Of the other clock only its answers are known: what it said, between our asking and our hearing. So the difference from our steady
clock, which no one sets, lies between two bounds, and each answer moves it as little as its bounds allow. An answer that took long
does no harm therefore, and one that came at once puts right what such answers left.

Rules: it must not ask: whoever gets an answer passes it on. When the other clock is set, this one follows with the next answer,
backwards too: for all who go by it, the other clock is the time. Between answers it never runs backwards, and does not notice when
this machine's time of day is set.
"""

import time
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.times import MICROSECOND, clock, microseconds

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # Linux has one that counts while the machine sleeps, too


def steady() -> int:
    """Microseconds since some moment, by a clock that no one sets."""
    return time.clock_gettime_ns(_STEADY) // MICROSECOND


class FollowedClock:
    """Called, it gives microseconds since 1970.

    Args:
        own: microseconds since 1970 by this machine, which it begins with.
        steady: microseconds of a clock that no one sets.
    """

    def __init__(self, own: Callable[[], int] = clock, steady: Callable[[], int] = steady) -> None:
        self.steady = steady
        self._own = own
        self._offset = own() - steady()

    def __call__(self) -> int:
        return self.steady() + self._offset

    @property
    def own_ahead(self) -> int:
        """Microseconds by which this machine's time of day is ahead of the other clock."""
        return self._own() - self()

    def heard(self, asked: int, stamp: Timestamp) -> None:
        """As `learn`, of an answer that came just now; one in which no time is said changes nothing."""
        if stamp.seconds:
            self.learn(asked, microseconds(stamp), self.steady())

    def learn(self, asked: int, said: int, heard: int) -> int:
        """Take an answer into account; gives by how many microseconds this clock was put forward (negative: back).

        Args:
            asked, heard: when, by `steady`.
            said: what the other clock showed in between, microseconds since 1970.
        """
        before = self._offset
        self._offset = max(said - heard, min(said - asked, before))
        return self._offset - before

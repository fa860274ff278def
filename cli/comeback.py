"""When a process that ended is started again: at first after a second, then twice as long each time, up to half a minute; anew
from a second once it has been ready for a minute. Pure: time is passed in, in seconds.
"""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0  # one that can't live costs a start of its interpreter, a second and a half, twice a minute
SETTLED_SECONDS = 60.0


class Comeback:
    """One process's.

    Attributes:
        has_been_ready: whether it ever was.
    """

    def __init__(self) -> None:
        self.has_been_ready = False
        self._ready_since: float | None = None
        self._pause = FIRST_PAUSE

    def ready(self, now: float) -> None:
        """It serves."""
        self.has_been_ready = True
        self._ready_since = now

    def ended(self, now: float) -> float:
        """It has ended; gives how long to wait before it is started again."""
        if self._ready_since is not None and now - self._ready_since >= SETTLED_SECONDS:
            self._pause = FIRST_PAUSE
        self._ready_since = None
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause

"""Whether to ask one node: a circuit breaker. Pure; times are monotonic seconds, passed in.

Closed: it is asked. Open: it is passed over until its time. Half-open: its time has come and one call is under way to it, which
decides. Refusals that may pass open after some in a row, for whoever refuses is alive and may serve the next call; then a caller's
call decides. Silence opens at once, and then no caller's call is risked: it would lose a share of its deadline, and all that waits
behind it too. Whether the node lives is asked beside them.

The breakers one can install wrap a function and raise in its place. A chooser among nodes has to see the state before it calls, and
needs a node even when all are open: the one whose time is nearest.
"""

from collections.abc import Callable
from enum import Enum

FAILURES = 3  # refusals in a row that open it
FIRST_SECONDS = 0.5  # how long it is open at first; doubles each time the one call fails
LONGEST_SECONDS = 10.0
PROBE_SECONDS = 10.0  # a call without any outcome for so long holds up no other


class State(Enum):
    """Of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """What is known of one node.

    Args:
        jitter: a factor of about 1 for each time it is open, so that callers don't come back all at once.

    Attributes:
        state: see above.
        silent: whether silence opened it.
        until: from then on it may be asked; of no meaning while closed.
    """

    __slots__ = ("_failures", "_jitter", "_seconds", "silent", "state", "until")

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._failures = 0
        self._seconds = FIRST_SECONDS
        self.state = State.CLOSED
        self.silent = False
        self.until = 0.0

    def admits(self, now: float) -> bool:
        """Whether it is to be asked what callers want to know."""
        return self.state is State.CLOSED or (now >= self.until and not self.silent)

    def doubted(self, now: float) -> bool:
        """Whether it is time to ask it if it lives."""
        return self.state is not State.CLOSED and self.silent and now >= self.until

    def on_asked(self, now: float) -> None:
        """A call begins; unless closed it is the one that decides, also when it comes before its time, for want of another node."""
        if self.state is not State.CLOSED:
            self.state = State.HALF_OPEN
            self.until = now + PROBE_SECONDS

    def on_answered(self) -> None:
        """It answered: all is well."""
        self.state = State.CLOSED
        self.silent = False
        self._failures = 0
        self._seconds = FIRST_SECONDS

    def on_refused(self, now: float) -> None:
        """It answered that it can't just now."""
        self._failures += 1
        if self._failures >= FAILURES or self.state is State.HALF_OPEN:
            self._open(now)

    def on_silence(self, now: float) -> None:
        """It could not be reached, or gave no answer in time."""
        self._failures += 1
        self.silent = self.silent or self.state is not State.OPEN
        self._open(now)

    def on_forgotten(self, now: float) -> None:
        """The caller gave up by itself, so nothing was learned: another call may decide."""
        if self.state is State.HALF_OPEN:
            self.state, self.until = State.OPEN, now

    def _open(self, now: float) -> None:
        """Failures of calls that were under way when it opened say nothing new."""
        if self.state is State.OPEN:
            return
        if self.state is State.HALF_OPEN:
            self._seconds = min(2 * self._seconds, LONGEST_SECONDS)
        self.state, self.until = State.OPEN, now + self._seconds * self._jitter()

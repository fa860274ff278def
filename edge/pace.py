"""When what gathers is to go: the first at once, those that follow it closely together, and in a rush more of them."""

import asyncio
import math
import sys
from collections.abc import Callable


class Pace:
    """A gate that opens at most every so often. For one event loop.

    Args:
        seconds: from one opening to the next, at least.
        go: lets go what has gathered.
        longest: to what that stretches when much gathers: so that what costs as much for one as for a hundred is done less often
            when there is no time for it.
        rush: how much a second begins to be much.
        enough: how much need not wait for more: it goes when the last opening is `soonest` seconds ago.
    """

    __slots__ = ("_due", "_enough", "_gathered", "_go", "_longest", "_rush", "_seconds", "_shortest", "_soonest", "_went")

    def __init__(
        self,
        seconds: float,
        go: Callable[[], None],
        longest: float = 0.0,
        rush: float = math.inf,
        enough: int = sys.maxsize,
        soonest: float = 0.0,
    ) -> None:
        self._shortest = self._seconds = seconds
        self._longest = max(seconds, longest)
        self._rush = rush
        self._enough = enough
        self._soonest = soonest
        self._gathered = 0
        self._go = go
        self._due: asyncio.TimerHandle | None = None
        self._went = 0.0

    def gathered(self, count: int = 1) -> None:
        """So much more waits to go."""
        before = self._gathered
        self._gathered += count
        if before < self._enough <= self._gathered:
            self.cancel()
            self._due = asyncio.get_running_loop().call_at(self._went + self._soonest, self._open)
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_at(self._went + self._seconds, self._open)

    def cancel(self) -> None:
        """Let nothing go any more."""
        if self._due is not None:
            self._due.cancel()

    def _open(self) -> None:
        self._due, self._went = None, asyncio.get_running_loop().time()
        self._seconds = min(max(self._gathered / self._rush, self._shortest), self._longest)
        self._gathered = 0
        self._go()

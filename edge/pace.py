"""When what gathers is to go: the first at once, those that follow it closely together."""

import asyncio
from collections.abc import Callable


class Pace:
    """A gate that opens at most every so often. For one event loop.

    Args:
        seconds: from one opening to the next, at least.
        go: lets go what has gathered.
    """

    __slots__ = ("_due", "_go", "_seconds", "_went")

    def __init__(self, seconds: float, go: Callable[[], None]) -> None:
        self._seconds = seconds
        self._go = go
        self._due: asyncio.TimerHandle | None = None
        self._went = 0.0

    def gathered(self) -> None:
        """Something waits to go."""
        if self._due is None:
            loop = asyncio.get_running_loop()
            self._due = loop.call_at(self._went + self._seconds, self._open)

    def cancel(self) -> None:
        """Let nothing go any more."""
        if self._due is not None:
            self._due.cancel()

    def _open(self) -> None:
        self._due, self._went = None, asyncio.get_running_loop().time()
        self._go()

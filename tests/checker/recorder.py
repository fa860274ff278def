"""Writes a history while it happens, and wakes those who wait for something to be in it."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from tests.checker.history import Operation, Receive, Run


class Recorder:
    """A history under way.

    Attributes:
        seed: of the run.
        history: the operations so far.
        tops: (client, conversation) -> highest seq its application was given.
    """

    def __init__(self, seed: int, url: str, note: str = "") -> None:
        self.seed = seed
        self.history: list[Operation] = [Run(seed, url, note)]
        self.tops: dict[tuple[str, str], int] = defaultdict(int)
        self._start = time.monotonic()
        self._changed = asyncio.Event()

    def now(self) -> float:
        """Seconds since the run began."""
        return round(time.monotonic() - self._start, 6)

    def add(self, operation: Operation) -> int:
        """Write an operation; gives its place."""
        if isinstance(operation, Receive):
            key = operation.client, operation.conversation
            self.tops[key] = max(self.tops[key], operation.entry.seq)
        self.history.append(operation)
        self._wake()
        return len(self.history) - 1

    def complete(self, place: int, **answer: Any) -> None:
        """Fill in what became of an operation that was written when it was invoked."""
        self.history[place] = replace(cast(Any, self.history[place]), completed=self.now(), **answer)
        self._wake()

    async def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until the condition holds; False when it doesn't in time, and the checks will say what is missing."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    changed = self._changed
                    await changed.wait()
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

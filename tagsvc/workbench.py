"""Where expressions are worked out: quick ones at once, others in a thread, so that nobody else waits for them.

A bitmap operation takes up to a millisecond over ten million clients, and others get a turn between any two.
"""

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from typing import TypeVar

from mesh import errors
from tagset.expression import Alias, Expression, Tag, leaves
from tagset.snapshot import Snapshot
from tagsvc.meters import Meters

_QUICK_OPERANDS = 50  # to look up what a quick expression names takes microseconds
_QUICK_SECONDS = 0.002
_CONTAINER = 1 << 16  # ordinals that a roaring bitmap holds in one container
_CONTAINER_SECONDS = 5e-6  # an operation on one at its worst, which is two sorted arrays
_RETRY_SECONDS = 1.0
T = TypeVar("T")


class Workbench:
    """Runs pure work.

    Args:
        limit: most that may be in threads or wait for one; past it, work is refused.
        meters: told how long each took.
    """

    def __init__(self, limit: int, meters: Meters) -> None:
        self._limit = limit
        self._meters = meters
        self._busy = 0

    async def do(self, work: Callable[[], T], *, quick: bool) -> T:
        """The result of some work.

        Raises:
            TidingsError: OVERLOADED.
        """
        if quick:
            return self._timed(work)
        if self._busy >= self._limit:
            raise errors.overloaded(_RETRY_SECONDS, "the evaluation of expressions")
        self._busy += 1
        working = asyncio.ensure_future(asyncio.to_thread(self._timed, work))
        working.add_done_callback(self._done)
        return await asyncio.shield(working)  # a thread goes on when nobody waits for it any more, and counts as long

    def _timed(self, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        try:
            return work()
        finally:
            self._meters.evaluated(time.perf_counter() - started)

    def _done(self, working: "asyncio.Future[T]") -> None:
        self._busy -= 1
        if not working.cancelled():
            working.exception()  # taken note of, should nobody wait for it any more


def is_quick(expression: Expression, snapshot: Snapshot, known: int) -> bool:
    """Whether an expression is worked out in a moment: it names few operands for so many clients, and no combination."""
    operands = list(islice(leaves(expression), _QUICK_OPERANDS + 1))
    containers = known // _CONTAINER + 1
    if len(operands) > _QUICK_OPERANDS or len(operands) * containers * _CONTAINER_SECONDS > _QUICK_SECONDS:
        return False
    return not any(_target(each, snapshot) in snapshot.combinations for each in operands)


def _target(leaf: Expression, snapshot: Snapshot) -> str:
    """The tag or combination that a leaf names; empty when it names none."""
    if isinstance(leaf, Alias):
        return snapshot.aliases.get(leaf.name, "")
    return leaf.name if isinstance(leaf, Tag) else ""

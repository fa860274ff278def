"""Messages fall due at even times, all of them, and late ones are not skipped."""

import asyncio
import itertools
import time

from bench.pacing import pace


async def test_all_are_due_at_their_times() -> None:
    due: list[float] = []
    started = time.monotonic()
    await pace(2000, 0.2, due.append)
    assert len(due) == 400
    assert all(abs(after - before - 1 / 2000) < 1e-9 for before, after in itertools.pairwise(due))
    assert due[0] >= started


async def test_a_loop_that_was_busy_catches_up_with_the_old_times() -> None:
    due: list[tuple[float, float]] = []
    asyncio.get_running_loop().call_later(0.02, time.sleep, 0.05)
    await pace(1000, 0.1, lambda intended: due.append((intended, time.monotonic())))
    assert len(due) == 100
    assert max(now - intended for intended, now in due) > 0.03

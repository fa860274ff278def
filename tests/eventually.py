"""Waiting for what tells nobody, and only looking shows: another process's state, a metric, a queue."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

R = TypeVar("R")


async def eventually(look: Callable[[], R], seconds: float = 10.0) -> R:
    """Look until there is something; gives what was seen then.

    Raises:
        TimeoutError: it does not come.
    """
    async with asyncio.timeout(seconds):
        while not (seen := look()):  # noqa: ASYNC110  (what it is for)
            await asyncio.sleep(0.01)
    return seen


async def eventually_answered(ask: Callable[[], Awaitable[R]], seconds: float = 10.0) -> R:
    """As `eventually`, for what must be asked."""
    async with asyncio.timeout(seconds):
        while not (seen := await ask()):  # noqa: ASYNC110  (what it is for)
            await asyncio.sleep(0.01)
    return seen

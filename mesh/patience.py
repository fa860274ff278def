"""Doing work until it is done: retries with backoff, and loops that outlive what they are given."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog

from mesh import batching, errors
from tidings.common.v1 import error_pb2

PASSING = {error_pb2.ERROR_CODE_UNAVAILABLE, error_pb2.ERROR_CODE_OVERLOADED, error_pb2.ERROR_CODE_RATE_LIMITED}
"""Reasons that may pass by themselves: the same request may succeed a little later."""

_FIRST_SECONDS = 0.05
_LONGEST_SECONDS = 1.0  # a store that comes back is found within this time
T = TypeVar("T")
R = TypeVar("R")
_log = structlog.get_logger(__name__)


def delays() -> Iterator[float]:
    """Seconds to wait before each further attempt: doubling, with jitter, for ever."""
    delay = _FIRST_SECONDS
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
        delay = min(delay * 2, _LONGEST_SECONDS)


async def until_done(attempt: Callable[[], Awaitable[R]], within: float | None = None) -> R:
    """Make an attempt again for as long as it fails for a passing reason.

    Args:
        within: seconds after which a passing reason is given to the caller after all; None means never.

    Raises:
        TidingsError: a reason that won't pass, or time is up.
    """
    until = None if within is None else time.monotonic() + within
    for delay in delays():
        try:
            return await attempt()
        except errors.TidingsError as error:
            if error.code not in PASSING or (until is not None and time.monotonic() + delay > until):
                raise
        await asyncio.sleep(delay)
    raise AssertionError("delays never end")


async def drain(queue: batching.Batcher[T], handle: Callable[[list[T]], Awaitable[None]]) -> None:
    """Give a queue's batches to `handle`, one after the other, until the queue is closed; a batch that fails is logged."""
    while True:
        try:
            batch = await queue.take()
        except batching.Closed:
            return
        try:
            await handle(batch)
        except Exception:
            _log.exception("batch failed", handler=getattr(handle, "__qualname__", repr(handle)), size=len(batch))

"""Opens the cache that a setting names, and publishes how it does."""

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.cache import Cache
from mesh.memory_cache import MemoryCache
from mesh.redis_cache import RedisCache
from mesh.telemetry import Telemetry

# Services of one process meet in one memory, as they would in one Redis; a process has one event loop.
_memories: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, MemoryCache] = weakref.WeakKeyDictionary()


@asynccontextmanager
async def open_cache(url: str, telemetry: Telemetry) -> AsyncIterator[Cache]:
    """The cache a URL names. It may be away: its users go on without it.

    Raises:
        ValueError: neither memory:// nor redis:// nor rediss://.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        yield _memories.setdefault(asyncio.get_running_loop(), MemoryCache())
    elif scheme in {"redis", "rediss"} and rest:
        async with _open_redis(url, telemetry) as cache:
            yield cache
    else:
        raise ValueError("cache: use memory://, redis://host:port/db or rediss://host:port/db")


@asynccontextmanager
async def _open_redis(url: str, telemetry: Telemetry) -> AsyncIterator[Cache]:
    calls = telemetry.counter("cache_calls_total", "Calls of the cache, by outcome")
    drops = telemetry.counter("cache_dropped_writes_total", "Batches of writes dropped: no room, or no cache")

    def count(outcome: str, number: int) -> None:
        calls.add(number, {"outcome": outcome})

    async with RedisCache.open(url, count, drops.add) as cache:
        telemetry.gauge("cache_up", "1 while the cache answers, for each service of this process", lambda: float(cache.up))
        yield cache

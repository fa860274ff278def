"""The cache in Redis: one server (or whatever speaks its protocol to one address) that all processes share.

Keys, all with a time to live: `tidings:limit:{key}` a bucket's number; `tidings:user:{user_id}` a hash of the user's sessions,
field `{edge_id}/{number}`; `tidings:edge:{edge_id}` there while the edge beats; `tidings:recent:{key}` a hash of slots. There are
two lines, so that who waits for an answer never waits behind a heap of writes.
"""

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.message import DecodeError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from mesh.batching import Batcher
from mesh.cache import EDGE_SECONDS, QUICK_SECONDS, SESSION_SECONDS, SessionRecord, by_user
from mesh.patience import drain
from mesh.process import background
from mesh.redis_line import Circuit, Command, Count, RedisLine
from tidings.balancer.v1.balancer_pb2 import UserSession

WRITE_SECONDS = 2.0  # longest time for writes that nobody waits for
QUICK_CALLS = 10_000  # waiting; past it callers go on without an answer
WRITE_CALLS = 64  # waiting; their callers are few, and wait for one before they make the next
RECENT_PUTS = 1_000  # batches waiting to be written; past it the oldest is dropped
RECENT_TOGETHER = 50  # of those in one call

# The generic cell rate algorithm on the server's clock, in microseconds: the time at which the bucket will be full again. A time
# further ahead than a drained bucket's is of another rate, or of a clock that went back.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1])) or now)
full_at = math.min(full_at, now + interval * burst)
local wait = full_at - interval * (burst - 1) - now
if wait > 0 then
  return math.ceil(wait)
end
full_at = full_at + interval
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
return 0
"""
# The sessions at edges that beat; the others' entries are removed on the way.
_SESSIONS_OF = """
local found, beats = {}, {}
local all = redis.call('HGETALL', KEYS[1])
for n = 1, #all, 2 do
  local edge = string.match(all[n], '^(.*)/')
  if edge and beats[edge] == nil then
    beats[edge] = redis.call('EXISTS', ARGV[1] .. edge) == 1
  end
  if edge and beats[edge] then
    found[#found + 1] = all[n]
    found[#found + 1] = all[n + 1]
  else
    redis.call('HDEL', KEYS[1], all[n])
  end
end
return found
"""


class Script:
    """A script's text and its name at the server."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisCache:
    """See `mesh.cache.Cache`.

    Args:
        redis: the client.
        count: told the outcome of calls; see `RedisLine`.
        dropped: told how many writes were dropped for want of room.
    """

    def __init__(self, redis: Redis, count: Count, dropped: Callable[[int], None]) -> None:
        self._circuit = Circuit()
        self._quick = RedisLine(redis, self._circuit, QUICK_SECONDS, QUICK_CALLS, count)
        self._writes = RedisLine(redis, self._circuit, WRITE_SECONDS, WRITE_CALLS, count)
        self.limits = RedisRateLimits(self._quick)
        self.directory = RedisSessionDirectory(self._quick, self._writes)
        self.recent = RedisRecentBytes(self._quick, self._writes, dropped)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, count: Count, dropped: Callable[[int], None]) -> AsyncIterator["RedisCache"]:
        """Use a server until the context ends; it need not be there, now or ever.

        Raises:
            ValueError: no URL of Redis.
        """
        limits: dict[str, Any] = {"socket_connect_timeout": WRITE_SECONDS, "socket_timeout": WRITE_SECONDS}
        redis: Redis = Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), **limits)
        cache = cls(redis, count, dropped)
        try:
            async with background(cache._quick.run(), cache._writes.run(), cache.recent.run()):
                yield cache
        finally:
            await redis.aclose()

    @property
    def up(self) -> bool:
        """See `Cache`."""
        return self._circuit.closed


class RedisRateLimits:
    """See `RateLimits`."""

    def __init__(self, line: RedisLine) -> None:
        self._line = line
        self._take = Script(_TAKE)

    async def take(self, key: str, per_second: float, burst: int) -> float | None:
        """See `RateLimits`."""
        rate = (math.ceil(1e6 / per_second), burst)
        wait = await self._line.run_script(self._take.text, self._take.sha, [f"tidings:limit:{key}"], rate)
        return None if wait is None else float(wait) / 1e6


class RedisSessionDirectory:
    """See `SessionDirectory`."""

    def __init__(self, quick: RedisLine, writes: RedisLine) -> None:
        self._quick = quick
        self._writes = writes
        self._sessions_of = Script(_SESSIONS_OF)

    async def beat(self, edge_id: str) -> bool | None:
        """See `SessionDirectory`."""
        key = f"tidings:edge:{edge_id}"
        answer = await self._writes.call([("EXISTS", key), ("SET", key, "", "PX", _milliseconds(EDGE_SECONDS))])
        return None if answer is None or _faulty(answer) else bool(answer[0])

    async def put(self, sessions: Sequence[SessionRecord]) -> bool:
        """See `SessionDirectory`."""
        return await self._write(
            command
            for user_id, mine in by_user(sessions).items()
            for command in (
                ("HSET", _user(user_id), *(part for one in mine for part in (_field(one), _value(one)))),
                ("PEXPIRE", _user(user_id), _milliseconds(SESSION_SECONDS)),
            )
        )

    async def remove(self, sessions: Sequence[SessionRecord]) -> bool:
        """See `SessionDirectory`."""
        return await self._write(("HDEL", _user(user_id), *map(_field, mine)) for user_id, mine in by_user(sessions).items())

    async def leave(self, edge_id: str) -> None:
        """See `SessionDirectory`."""
        await self._writes.call([("DEL", f"tidings:edge:{edge_id}")])

    async def sessions_of(self, user_id: str) -> list[SessionRecord] | None:
        """See `SessionDirectory`."""
        script = self._sessions_of
        found = await self._quick.run_script(script.text, script.sha, [_user(user_id)], ["tidings:edge:"])
        if found is None:
            return None
        records = (_record(user_id, field, value) for field, value in zip(found[::2], found[1::2], strict=True))
        return [record for record in records if record is not None]

    async def _write(self, commands: Iterable[Command]) -> bool:
        wanted = list(commands)
        if not wanted:
            return True
        answer = await self._writes.call(wanted)
        return answer is not None and not _faulty(one for one in answer if not _foreign(one))


class RedisRecentBytes:
    """See `RecentBytes`. Writes go when those before them have."""

    def __init__(self, quick: RedisLine, writes: RedisLine, dropped: Callable[[int], None]) -> None:
        self._quick = quick
        self._writes = writes
        self._dropped = dropped
        self._queue: Batcher[list[Command]] = Batcher(RECENT_PUTS, RECENT_TOGETHER)

    async def get(self, wanted: Sequence[tuple[str, Sequence[int]]]) -> list[list[bytes | None]] | None:
        """See `RecentBytes`."""
        answer = await self._quick.call([("HMGET", f"tidings:recent:{key}", *slots) for key, slots in wanted])
        if answer is None:
            return None
        return [
            [None] * len(slots) if isinstance(one, Exception) else list(one) for one, (_, slots) in zip(answer, wanted, strict=True)
        ]

    def put(self, values: Mapping[str, Mapping[int, bytes]], keep_seconds: float) -> None:
        """See `RecentBytes`."""
        if self._queue.full:
            self._dropped(len(self._queue.take_now()))
        keep = _milliseconds(keep_seconds)
        commands: list[Command] = []
        for key, slots in values.items():
            name = f"tidings:recent:{key}"
            commands.append(("HSET", name, *(part for slot in slots.items() for part in slot)))
            commands.append(("PEXPIRE", name, keep))
        self._queue.offer(commands)

    async def run(self) -> None:
        """Write until cancelled."""
        await drain(self._queue, self._write)

    async def _write(self, batch: list[list[Command]]) -> None:
        if await self._writes.call([command for commands in batch for command in commands]) is None:
            self._dropped(len(batch))
            await asyncio.sleep(0)  # while Redis is away nothing here waits, and others want their turn


def _user(user_id: str) -> str:
    return f"tidings:user:{user_id}"


def _field(session: SessionRecord) -> str:
    return f"{session.edge_id}/{session.number}"


def _value(session: SessionRecord) -> bytes:
    kept = UserSession(device_id=session.device_id, connected_time_ms=session.connected_ms)
    return kept.SerializeToString()


def _record(user_id: str, field: bytes, value: bytes) -> SessionRecord | None:
    """None for what no edge of ours wrote."""
    edge_id, _, number = field.decode(errors="replace").rpartition("/")
    try:
        kept = UserSession.FromString(value)
        return SessionRecord(user_id, edge_id, int(number), kept.device_id, kept.connected_time_ms)
    except (DecodeError, ValueError):
        return None


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _faulty(answer: Iterable[object]) -> bool:
    return any(isinstance(one, Exception) for one in answer)


def _foreign(result: object) -> bool:
    """Whether something that isn't ours lies at the key: writing again would never help, and hold up all other writes."""
    return isinstance(result, ResponseError) and str(result).startswith("WRONGTYPE")

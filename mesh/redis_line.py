"""One way of asking Redis: what is asked while an answer is under way goes together, as one pipeline, when it has come.

`Circuit` decides whether Redis is worth asking (sans-IO), `RedisLine` asks. Nobody waits longer than the line's deadline, and while
Redis is away nobody waits at all, but for one probe a second.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from redis import exceptions
from redis.asyncio import Redis

from mesh.batching import Batcher, Closed

FAILURES = 3  # in a row before Redis counts as away: a single late answer is as often our own event loop's fault
PAUSE_SECONDS = 1.0  # between two probes while it is away
BATCH = 256  # calls in one pipeline
Command = tuple[str | bytes | int | float, ...]
Count = Callable[[str, int], None]
_log = structlog.get_logger(__name__)


class Circuit:
    """Whether to ask. Times are seconds of a clock that doesn't go back."""

    def __init__(self) -> None:
        self._failures = 0
        self._probe_at = 0.0

    @property
    def closed(self) -> bool:
        """Whether everybody may ask."""
        return self._failures < FAILURES

    def allows(self, now: float) -> bool:
        """Whether to ask now. While Redis is away, one caller in a while is told yes: its call is the probe."""
        if self.closed:
            return True
        if now < self._probe_at:
            return False
        self._probe_at = now + PAUSE_SECONDS
        return True

    def succeeded(self) -> bool:
        """It answered; whether that is news."""
        news, self._failures = not self.closed, 0
        return news

    def failed(self, now: float) -> bool:
        """It didn't; whether that makes it away."""
        news = self._failures == FAILURES - 1
        self._failures = min(self._failures + 1, FAILURES)
        self._probe_at = now + PAUSE_SECONDS
        return news


@dataclass(frozen=True, slots=True)
class _Call:
    commands: Sequence[Command]
    answer: "asyncio.Future[list[Any] | None]"


class RedisLine:
    """Commands in, results out, None when Redis can't be asked.

    Args:
        redis: the client; this line uses one of its connections at a time.
        circuit: shared by the lines to one server.
        deadline: seconds a caller waits at most.
        capacity: calls that may wait; when full, a caller is answered None at once.
        count: told the outcome of calls: ok, refused (Redis answered with an error), late, failed, skipped (while away), full.
    """

    def __init__(self, redis: Redis, circuit: Circuit, deadline: float, capacity: int, count: Count) -> None:
        self._redis = redis
        self._circuit = circuit
        self._deadline = deadline
        self._count = count
        self._queue: Batcher[_Call] = Batcher(capacity, BATCH)

    async def call(self, commands: Sequence[Command]) -> list[Any] | None:
        """The results in order, an error of Redis in place of the one it concerns; None: not asked, or not answered in time."""
        if not self._circuit.allows(time.monotonic()):
            self._count("skipped", 1)
            return None
        call = _Call(commands, asyncio.get_running_loop().create_future())
        if not self._queue.offer(call):
            self._count("full", 1)
            return None
        try:
            async with asyncio.timeout(self._deadline):
                return await call.answer
        except TimeoutError:
            return None

    async def run_script(self, script: str, sha: str, keys: Sequence[str], values: Sequence[str | int | float]) -> Any:
        """A script's result; None: not asked, or failed. A server that doesn't have the script, as after a restart, is given it."""
        for _ in range(2):
            answer = await self.call([("EVALSHA", sha, len(keys), *keys, *values)])
            if answer is None or not isinstance(answer[0], exceptions.NoScriptError):
                break
            await self.call([("SCRIPT LOAD", script)])
        return None if answer is None or isinstance(answer[0], Exception) else answer[0]

    async def run(self) -> None:
        """Ask until closed."""
        while True:
            try:
                calls = await self._queue.take()
            except Closed:
                return
            await self._ask([call for call in calls if not call.answer.done()])

    def close(self) -> None:
        """Take nothing more."""
        self._queue.close()

    async def _ask(self, calls: list[_Call]) -> None:
        if not calls:
            return
        try:
            async with asyncio.timeout(self._deadline):
                results = await self._execute([command for call in calls for command in call.commands])
        except Exception as error:  # whatever it is, the mesh goes on without a cache
            self._failed(calls, error)
        else:
            self._answered(calls, results)

    async def _execute(self, commands: Sequence[Command]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))

    def _answered(self, calls: Sequence[_Call], results: list[Any]) -> None:
        if self._circuit.succeeded():
            _log.info("the cache answers again")
        start = 0
        for call in calls:
            end = start + len(call.commands)
            mine = results[start:end]
            self._count("refused" if any(isinstance(one, Exception) for one in mine) else "ok", 1)
            if not call.answer.done():
                call.answer.set_result(mine)
            start = end

    def _failed(self, calls: Sequence[_Call], error: Exception) -> None:
        late = isinstance(error, TimeoutError | exceptions.TimeoutError)
        self._count("late" if late else "failed", len(calls))
        if self._circuit.failed(time.monotonic()):
            _log.warning("the cache is away: going on without it", error=repr(error))
        for call in calls:
            if not call.answer.done():
                call.answer.set_result(None)

"""Bulkheads: a kind of call that comes in floods, or lasts, fills its own compartment and no other's.

So many of a kind are under way at once, so many more wait their turn, first come, first served; past that they are refused
OVERLOADED with a time to come again, before anything was done. A server has one for each of its methods; a client may have one for
a kind of question, so that these don't take all that the server has.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc

from mesh import errors
from mesh.handlers import Handler, around
from mesh.telemetry import Telemetry

CALLS = 256  # of one method under way at once: above what a process gets done faster together
CALLS_WAITING = 1_000  # a second or a few of work; who waits longer would rather hear so
STREAMS = 1_000  # of one method open at once; they last, so none waits
RETRY_SECONDS = 1.0


class Bulkhead:
    """One compartment.

    Args:
        at_once: most under way.
        waiting: most that wait. When full: refused.
        what: what has no room, for the error.
    """

    def __init__(self, at_once: int, waiting: int, what: str) -> None:
        self._at_once = at_once
        self._most_waiting = waiting
        self._what = what
        self._under_way = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self.refused = 0

    def __len__(self) -> int:
        """How many are under way or wait."""
        return self._under_way + len(self._line)

    @asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """A place, for as long as the context lasts.

        Raises:
            TidingsError: OVERLOADED.
        """
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        if self._under_way < self._at_once:
            self._under_way += 1
            return
        if len(self._line) >= self._most_waiting:
            self.refused += 1
            raise errors.overloaded(RETRY_SECONDS, self._what)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn  # whoever leaves hands over the place
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):
                    self._line.remove(turn)
            else:
                self._leave()
            raise

    def _leave(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._under_way -= 1


class Bulkheads(grpc.aio.ServerInterceptor):
    """One for each method of a server. gRPC's own bound on calls counts all methods together, and refuses without a name."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._rooms: dict[str, Bulkhead] = {}
        telemetry.gauge("rpc_server_calls", "Calls being served or waiting to be, streams included", self._calls)
        telemetry.gauge("rpc_server_calls_refused", "Calls refused for want of room since the start", self._refused)

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """Give the method's calls their room."""
        handler = await continuation(details)
        if handler is None:
            return None
        room = self._rooms.get(details.method)
        if room is None:
            room = self._rooms[details.method] = _room(details.method, handler)
        return around(handler, lambda _: room.room())

    def _calls(self) -> int:
        return sum(map(len, self._rooms.values()))

    def _refused(self) -> int:
        return sum(room.refused for room in self._rooms.values())


def _room(method: str, handler: Handler) -> Bulkhead:
    what = method.rpartition("/")[2]
    if handler.request_streaming or handler.response_streaming:
        return Bulkhead(STREAMS, 0, what)
    return Bulkhead(CALLS, CALLS_WAITING, what)

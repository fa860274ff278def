"""A call within one process: what its two ends, `mesh.local_channel` and `mesh.local_server`, share in place of a connection.

Messages cross as bytes, written once and parsed by the reader, so neither end sees what the other does to its own afterwards. A
status ends the call: behind the messages when the server gives it, at once when the caller leaves or the time is up. It knows
neither methods nor services.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import grpc

# Unread messages of one direction. A reader takes at most so many before others have their turn; and a writer that waits gathers
# what comes meanwhile into its next batch, as it would before a socket.
ROOM = 8
ROOM_BYTES = 64 * 1024  # likewise, in bytes, as a window of HTTP/2 at first; one message may always go
Metadata = tuple[tuple[str, str | bytes], ...]


class Ending(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()


LOCALLY_CANCELLED = Ending(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
_TOO_LATE = Ending(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class Lane:
    """One direction of a call. When full, the writer waits."""

    __slots__ = ("_bytes", "_ended", "_held", "_readable", "_writable")

    def __init__(self) -> None:
        self._held: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._readable, self._writable = asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        """Messages not read yet."""
        return len(self._held)

    async def write(self, data: bytes) -> bool:
        """Hand a message over, when there is room; whether there is still somebody to read it."""
        while not self._ended and self._held and (len(self._held) >= ROOM or self._bytes >= ROOM_BYTES):
            self._writable.clear()
            await self._writable.wait()
        if self._ended:
            return False
        self.put(data)
        return True

    def put(self, data: bytes) -> None:
        """Hand a message over, whether or not there is room: for what is the only one."""
        self._held.append(data)
        self._bytes += len(data)
        self._readable.set()

    async def read(self) -> bytes | None:
        """The next message, when there is one; None when no more will come."""
        while not self._held and not self._ended:
            self._readable.clear()
            await self._readable.wait()
        if not self._held:
            return None
        data = self._held.popleft()
        self._bytes -= len(data)
        self._writable.set()
        return data

    def end(self) -> None:
        """No more will come; what is held can still be read."""
        self._ended = True
        self._readable.set()
        self._writable.set()

    def discard(self) -> None:
        """Nobody will read any more."""
        self._held.clear()
        self.end()


class Exchange:
    """One call, as both its ends have it.

    Args:
        limit: bytes of the largest message.
        shown: the certificate that the caller shows, as gRPC's `auth_context` has it.
        timeout: seconds until it ends by itself; None for never.

    Attributes:
        ending: how it ended; set when the server has said all, or nobody listens any more.
        over: set when the caller has also read what came before the ending.
        serving: the task that serves it.
        initial: metadata that the server began with; None until it has begun.
    """

    def __init__(
        self, method: str, metadata: Metadata, timeout: float | None, limit: int, shown: Mapping[str, Sequence[bytes]]
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.shown = shown
        self.requests, self.responses = Lane(), Lane()
        self.initial: Metadata | None = None
        self.ending: Ending | None = None
        self.over = asyncio.Event()
        self.serving: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._deadline = None if timeout is None else self._loop.time() + max(0.0, timeout)
        self._timer = None if self._deadline is None else self._loop.call_at(self._deadline, self.break_off, _TOO_LATE)
        self._callbacks: list[Callable[[], object]] = []

    @property
    def abandonable(self) -> bool:
        """Whether it runs, in a loop that does."""
        return not self.over.is_set() and not self._loop.is_closed()

    def time_remaining(self) -> float | None:
        """Seconds until its deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    async def send(self, lane: Lane, data: bytes) -> bool:
        """As `Lane.write`. A message that is too large breaks the call off."""
        self._measure(data)
        return await lane.write(data)

    def ask(self, data: bytes) -> None:
        """Send the caller's only message."""
        self._measure(data)
        if self.ending is None:
            self.requests.put(data)
            self.requests.end()

    async def receive(self) -> bytes | None:
        """The caller's next message; None when there are no more, and then it is over."""
        data = await self.responses.read()
        self._settle()
        return data

    def begin(self, initial: Metadata = ()) -> None:
        """The server begins to answer."""
        if self.initial is None:
            self.initial = initial
            self._begun.set()

    async def begun(self) -> Metadata:
        """What the server began with."""
        await self._begun.wait()
        return self.initial or ()

    async def ended(self) -> Ending:
        """How it ended, once it is over."""
        await self.over.wait()
        assert self.ending is not None, "it is over because it has ended"  # noqa: S101
        return self.ending

    def answer(self, ending: Ending) -> None:
        """The server has said all; what it has said before will still be read."""
        if self.ending is None:
            self.begin()
            self.ending = ending
            self.requests.discard()
            self.responses.end()
            self._settle()

    def break_off(self, ending: Ending) -> None:
        """It ends at once, unread messages with it, and whoever serves it is cancelled."""
        if self.over.is_set():
            return
        self.begin()
        self.ending = ending
        self.requests.discard()
        self.responses.discard()
        self._settle()
        if self.serving is not None:
            self.serving.cancel()

    def when_over(self, callback: Callable[[], object]) -> None:
        """Call it once all is over."""
        if self.over.is_set():
            self._loop.call_soon(callback)
        else:
            self._callbacks.append(callback)

    def _measure(self, data: bytes) -> None:
        if len(data) > self._limit:
            text = f"a message of {len(data)} bytes is larger than {self._limit}, the most there may be"
            self.break_off(Ending(grpc.StatusCode.RESOURCE_EXHAUSTED, text))

    def _settle(self) -> None:
        if self.ending is None or self.responses or self.over.is_set():
            return
        self.over.set()
        if self._timer is not None:
            self._timer.cancel()
        for callback in self._callbacks:
            self._loop.call_soon(callback)

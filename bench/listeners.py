"""Many clients that only listen: a process of its own, told what to do by JSON lines on stdin, answering by JSON lines on stdout.

    {"do": "connect", "url": …, "tokens": {user: token}}          -> {"connected": n}, each caught up
    {"do": "connect_bare", "port": …, "count": n}                 -> {"connected": n}, to a bare server of `bench.fan_out`
    {"do": "await", "name": …, "count": n, "seconds": 10}         -> {"shown", "repeated", "first", "last"} of a notification
    end of stdin                                                  -> leaves

Each acknowledges at once what it is shown. Times are Unix seconds: everything of a run is on one machine.
"""

import asyncio
import gc
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
import uvloop

from bench import frames
from bench.commands import obey
from bench.invitations import invite
from bench.wire import WireConnection, client_frame, connect
from tidings.client.v1.frames_pb2 import AcknowledgeNotification, ClientFrame, ServerFrame

_AT_ONCE = 50  # connections being opened at the same time
_OPEN_SECONDS = 60.0
_HEARTBEAT_SECONDS = 15.0
# Parts into which the connections are divided for that: all at once they would delay what is measured, here and at the edge.
_BEATS = 300
BARE = "bare"  # what whatever a bare server sends counts as


class Shown:
    """Who was shown one notification, and when."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}
        self.repeated = 0


class Listeners:
    """All the clients."""

    def __init__(self) -> None:
        self._connections: dict[int, WireConnection] = {}
        self._shown: dict[str, Shown] = {}
        self._acknowledgements: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}
        self._changed = asyncio.Event()

    async def connect(self, url: str, tokens: dict[str, str]) -> int:
        """Connect everybody; gives how many."""
        room = asyncio.Semaphore(_AT_ONCE)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE)) as session:

            async def one(index: int, token: str) -> None:
                async with room, asyncio.timeout(_OPEN_SECONDS):
                    address, _ = await invite(session, url, token)
                    await self._open(index, address)

            await asyncio.gather(*(one(index, token) for index, token in enumerate(tokens.values())))
        gc.collect()
        gc.freeze()
        return len(self._connections)

    async def connect_bare(self, port: int, count: int) -> int:
        """Connect to a server that says nothing until it sends one frame to all."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(index: int) -> None:
            def on_frame(_: bytes) -> None:
                self._note(BARE, index)

            async with room:
                self._connections[index] = await connect(f"ws://127.0.0.1:{port}/", on_frame, lambda code: None)

        await asyncio.gather(*(one(index) for index in range(count)))
        return len(self._connections)

    async def awaited(self, name: str, count: int, seconds: float) -> dict[str, Any]:
        """Wait until so many were shown a notification, or time is up; gives what was seen so far."""
        shown = self._shown.setdefault(name, Shown())
        until = time.monotonic() + seconds
        while len(shown.times) < count and time.monotonic() < until:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), until - time.monotonic())
            except TimeoutError:
                break
        times = sorted(shown.times.values()) or [0.0]
        return {"shown": len(shown.times), "repeated": shown.repeated, "first": times[0], "last": times[-1]}

    async def beat(self) -> None:
        """Keep the connections alive until cancelled; each at a time of its own, as clients that came one by one would."""
        for part in itertools.cycle(range(_BEATS)):
            await asyncio.sleep(_HEARTBEAT_SECONDS / _BEATS)
            for connection in itertools.islice(self._connections.values(), part, None, _BEATS):
                connection.send(frames.heartbeat())

    def close(self) -> None:
        """Everyone leaves."""
        for connection in self._connections.values():
            connection.close()

    async def _open(self, index: int, url: str) -> None:
        caught_up = asyncio.Event()
        connection = await connect(url, self._reader(index, caught_up), lambda code: None)
        self._connections[index] = connection
        connection.send(frames.hello("bench"))
        await caught_up.wait()

    def _reader(self, index: int, caught_up: asyncio.Event) -> Callable[[bytes], None]:
        def on_frame(payload: bytes) -> None:
            name = self._names.get(payload) or self._read(payload, caught_up)
            if name:
                self._note(name, index)
                self._connections[index].send(self._acknowledgements[name])

        return on_frame

    def _read(self, payload: bytes, caught_up: asyncio.Event) -> str:
        """The notification's id; empty when it is another frame. All clients are sent the same bytes, so they are read once."""
        frame = ServerFrame.FromString(payload)
        if frame.WhichOneof("body") == "caught_up":
            caught_up.set()
        name = frame.notification.notification_id
        if name:
            said = ClientFrame(acknowledge_notification=AcknowledgeNotification(notification_ids=[name]))
            self._names[payload], self._acknowledgements[name] = name, client_frame(said.SerializeToString())
        return name

    def _note(self, name: str, index: int) -> None:
        shown = self._shown.setdefault(name, Shown())
        if index in shown.times:
            shown.repeated += 1
        else:
            shown.times[index] = time.time()
            self._changed.set()


async def serve() -> None:
    """Carry out commands until stdin ends."""
    listeners = Listeners()
    beating = asyncio.create_task(listeners.beat())
    await obey(partial(_answer, listeners))
    beating.cancel()
    listeners.close()


async def _answer(listeners: Listeners, command: dict[str, Any]) -> dict[str, Any]:
    match command.pop("do"):
        case "connect":
            return {"connected": await listeners.connect(**command)}
        case "connect_bare":
            return {"connected": await listeners.connect_bare(**command)}
        case "await":
            return await listeners.awaited(**command)
        case other:
            raise ValueError(f"no command {other!r}")


if __name__ == "__main__":
    uvloop.run(serve())

"""Clients that connect and then say nothing but that they are there: a process of its own, told what to do by JSON lines on stdin.

    {"do": "connect", "url": …, "tokens": {user: token}}   -> {"seconds": …}, each caught up
    {"do": "connect_bare", "url": …, "count": n}           -> {"seconds": …}, to a bare server of `bench.fan_out`
    {"do": "rest", "seconds": 30}                          -> {"beats", "closed", "cpu_share", "lateness": a Latency}
    end of stdin                                           -> leaves

Each says "I am here" as often as the mesh asks for, and all of them evenly spread. Commands to connect take an `authority`, a PEM
file, and may be repeated: more come.
"""

import asyncio
import gc
import resource
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import aiohttp
import uvloop

from bench import frames
from bench.commands import FAILURES, Answer, obey
from bench.invitations import invite
from bench.latency import summarize
from bench.wire import HandshakeRefusedError, WireConnection, connect
from tidings.client.v1.frames_pb2 import ServerFrame

T = TypeVar("T")
AT_ONCE = 50  # connections being opened at the same time
_OPEN_SECONDS = 60.0
_BEAT_SECONDS = 30.0  # as edges ask for unless told otherwise
_TICK_SECONDS = 0.1
_SLOTS = int(_BEAT_SECONDS / _TICK_SECONDS)
_HEARTBEAT = frames.heartbeat()


class Idlers:
    """All of them."""

    def __init__(self) -> None:
        self._connections: list[WireConnection] = []
        self._closed = 0
        self._beats = 0
        self._lateness: list[float] = []

    async def connect(self, url: str, tokens: dict[str, str], authority: str = "") -> Answer:
        """Connect and wait until caught up, some at a time."""
        tls = _tls(authority)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as http:

            async def one(token: str) -> None:
                async with asyncio.timeout(_OPEN_SECONDS):
                    address, _ = await invite(http, url, token)
                    await self._open(address, tls)

            return await self._all(tokens.values(), one)

    async def connect_bare(self, url: str, count: int, authority: str = "") -> Answer:
        """Handshakes only."""
        tls = _tls(authority)

        async def one(_: int) -> None:
            self._connections.append(await connect(url, _ignore, self._on_close, tls=tls))

        return await self._all(range(count), one)

    async def rest(self, seconds: float) -> Answer:
        """Do nothing but beat for some time."""
        gc.collect()
        gc.freeze()
        self._beats, self._lateness = 0, []
        started, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        busy = (time.process_time() - cpu) / (time.monotonic() - started)
        latency = asdict(summarize(self._lateness))
        return {"beats": self._beats, "closed": self._closed, "cpu_share": round(busy, 3), "lateness": latency}

    async def beat(self) -> None:
        """Keep the connections alive until cancelled: at each tick a slot's, so that a round of slots is everybody."""
        tick, due = 0, time.monotonic()
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._lateness.append(time.monotonic() - due)
            slot = self._connections[tick % _SLOTS :: _SLOTS]
            for connection in slot:
                connection.send(_HEARTBEAT)
            self._beats += len(slot)
            tick, due = tick + 1, due + _TICK_SECONDS

    def close(self) -> None:
        """Everyone leaves, without a word."""
        for connection in self._connections:
            connection.abort()

    async def _all(self, items: Iterable[T], one: Callable[[T], Awaitable[None]]) -> Answer:
        waiting, started = iter(items), time.monotonic()

        async def work() -> None:
            for item in waiting:
                await one(item)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return {"seconds": time.monotonic() - started}

    async def _open(self, url: str, tls: ssl.SSLContext | None) -> None:
        caught_up = asyncio.Event()

        def on_frame(payload: bytes) -> None:
            if not caught_up.is_set() and ServerFrame.FromString(payload).HasField("caught_up"):
                caught_up.set()

        connection = await connect(url, on_frame, self._on_close, tls=tls)
        connection.send(frames.hello("bench"))
        await caught_up.wait()
        self._connections.append(connection)

    def _on_close(self, code: int) -> None:
        self._closed += 1


def _ignore(payload: bytes) -> None:
    """What a bare server says."""


def _tls(authority: str) -> ssl.SSLContext | None:
    """Trusts one authority, made for the run; the certificate names a role of the mesh, not an address."""
    if not authority:
        return None
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False
    return context


async def _serve() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    idlers = Idlers()
    beating = asyncio.create_task(idlers.beat())
    await obey(partial(_answer, idlers), (*FAILURES, HandshakeRefusedError))
    beating.cancel()
    idlers.close()


async def _answer(idlers: Idlers, command: dict[str, Any]) -> Answer:
    match command.pop("do"):
        case "connect":
            return await idlers.connect(**command)
        case "connect_bare":
            return await idlers.connect_bare(**command)
        case "rest":
            return await idlers.rest(**command)
        case other:
            raise ValueError(f"no command {other!r}")


if __name__ == "__main__":
    uvloop.run(_serve())

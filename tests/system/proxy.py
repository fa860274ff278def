"""A TCP proxy that fails on command: between clients and an edge, it cuts, half-closes, or swallows what passes.

It listens on one port for its whole life, so a server behind it can come back on another one. What to fail, and how, is drawn from
the random source it is given.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_CHUNK = 65_536
_CLOSED_PORT = 1  # nobody listens there
_RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends RST, not FIN


@dataclass(eq=False)
class Pair:
    """A client's connection and ours to the server. `swallowing`: what comes, either way, goes nowhere."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    swallowing: bool = False

    def abort(self) -> None:
        """Both sides see a reset."""
        for writer in (self.client, self.server):
            socket_ = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # closed already
                socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


@dataclass
class Proxy:
    """See the module.

    Attributes:
        rng: source of what is random.
        host, port: where clients connect.
        target: port of the server on 127.0.0.1; 0 refuses everyone, as a server that is down.
        faults: how many of each kind were made.
    """

    rng: random.Random
    host: str = "127.0.0.1"
    port: int = 0
    target: int = 0
    faults: dict[str, int] = field(default_factory=lambda: {"abort": 0, "half_close": 0, "black_hole": 0})
    _pairs: list[Pair] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def fail_one(self) -> None:
        """Do one random harm to one random connection; nothing when there is none."""
        if self._pairs:
            kind = self.rng.choice(list(self.faults))
            self.faults[kind] += 1
            getattr(self, f"_{kind}")(self.rng.choice(self._pairs))

    def fail_all(self) -> None:
        """Reset every connection at once."""
        self.faults["abort"] += len(self._pairs)
        for pair in list(self._pairs):
            pair.abort()

    def heal(self) -> None:
        """Swallow no more: the connections that did are reset."""
        for pair in [pair for pair in self._pairs if pair.swallowing]:
            pair.abort()

    def _abort(self, pair: Pair) -> None:
        pair.abort()

    def _half_close(self, pair: Pair) -> None:
        side = self.rng.choice([pair.client, pair.server])
        with contextlib.suppress(OSError, RuntimeError):
            side.write_eof()

    def _black_hole(self, pair: Pair) -> None:
        pair.swallowing = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server = await asyncio.open_connection(self.host, self.target or _CLOSED_PORT)
        except OSError:
            Pair(writer, writer).abort()
            return
        pair = Pair(writer, server)
        self._pairs.append(pair)
        try:
            await asyncio.gather(self._pump(pair, reader, server), self._pump(pair, server_reader, writer))
        finally:
            self._pairs.remove(pair)
            pair.abort()

    async def _pump(self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while data := await reader.read(_CHUNK):
                if not pair.swallowing:
                    writer.write(data)
                    await writer.drain()
            if not pair.swallowing:
                writer.write_eof()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await self._accept(reader, writer)

    async def close(self) -> None:
        """End all connections."""
        self.fail_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def open_proxy(rng: random.Random) -> AsyncIterator[Proxy]:
    """A proxy that listens until the context ends; give it a `target` next."""
    proxy = Proxy(rng)
    server = await asyncio.start_server(proxy._serve_one, proxy.host, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()

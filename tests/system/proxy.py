"""A TCP proxy that fails on command: it cuts, half-closes, resets, swallows, holds back, delays and slices what passes.

It listens on one port for its whole life, so a server behind it can come back on another one. Harm to single connections, and its
kind, is drawn from the random source it is given; `Weather` is over all connections, or over those of one dialer, one way or both.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_CHUNK = 65_536
_CLOSED_PORT = 1  # nobody listens there
_RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends RST, not FIN


@dataclass(frozen=True, slots=True)
class Weather:
    """What befalls what passes in one direction.

    Attributes:
        hold: nothing passes, and waits for better weather, as TCP does behind a cut cable.
        delay: seconds that each piece takes.
        piece: bytes that pass at a time.
    """

    hold: bool = False
    delay: float = 0.0
    piece: int = _CHUNK


CLEAR = Weather()
CUT = Weather(hold=True)


@dataclass(eq=False)
class Pair:
    """A client's connection and ours to the server. `swallowing`: what comes, either way, goes nowhere."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    dialer: str = ""
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
        dialer: names who connects from a local port; "" when nobody asks.
        host, port: where clients connect.
        target: port of the server on 127.0.0.1; 0 refuses everyone, as a server that is down.
        faults: how many of each kind were made.
        passed: bytes that went through.
    """

    rng: random.Random
    dialer: Callable[[int], str] = lambda port: ""
    host: str = "127.0.0.1"
    port: int = 0
    target: int = 0
    faults: dict[str, int] = field(default_factory=lambda: {"abort": 0, "half_close": 0, "black_hole": 0})
    passed: int = 0
    _pairs: list[Pair] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _weather: dict[str, tuple[Weather, Weather]] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, dialer: str = "") -> int:
        """How many connections pass through; only those of one dialer when it is given."""
        return sum(pair.dialer.startswith(dialer) for pair in self._pairs)

    def weather(self, up: Weather, down: Weather, dialer: str = "") -> None:
        """From now on this befalls what goes up, to the server, and what comes down.

        Args:
            dialer: whose connections; a prefix of the name that `dialer` gives. "" for all.
        """
        self._weather[dialer] = (up, down)
        self._turn()

    def clear(self, *, reset: bool = False) -> None:
        """Fair weather again.

        Args:
            reset: connections that were held back end, as when something on the way has forgotten them.
        """
        held = [pair for pair in self._pairs if any(weather.hold for weather in self._over(pair))]
        self._weather.clear()
        self._turn()
        for pair in held if reset else []:
            pair.abort()

    def fail_one(self) -> None:
        """Do one random harm to one random connection; nothing when there is none."""
        if self._pairs:
            kind = self.rng.choice(list(self.faults))
            self.faults[kind] += 1
            getattr(self, f"_{kind}")(self.rng.choice(self._pairs))

    def fail_all(self, dialer: str = "") -> None:
        """Reset every connection at once; only those of one dialer when it is given."""
        pairs = [pair for pair in self._pairs if pair.dialer.startswith(dialer)]
        self.faults["abort"] += len(pairs)
        for pair in pairs:
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

    def _turn(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _over(self, pair: Pair) -> tuple[Weather, Weather]:
        """The weather over a connection: of its dialer's, else of all."""
        return next((pair_of for who, pair_of in self._weather.items() if pair.dialer.startswith(who)), (CLEAR, CLEAR))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialer = self.dialer(writer.get_extra_info("peername")[1])
        try:
            server_reader, server = await asyncio.open_connection(self.host, self.target or _CLOSED_PORT)
        except OSError:
            Pair(writer, writer).abort()
            return
        pair = Pair(writer, server, dialer)
        self._pairs.append(pair)
        try:
            await asyncio.gather(self._pump(pair, reader, server, 0), self._pump(pair, server_reader, writer, 1))
        finally:
            self._pairs.remove(pair)
            pair.abort()

    async def _pump(self, pair: Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self._pass(pair, data, writer, way)
            if not pair.swallowing:
                await self._held(pair, way)
                writer.write_eof()
        except (OSError, RuntimeError):  # one side was reset: so is the other, as soon as that gets through
            await self._held(pair, way)
            if not pair.swallowing:
                pair.abort()

    async def _pass(self, pair: Pair, data: bytes, writer: asyncio.StreamWriter, way: int) -> None:
        while data and not pair.swallowing:
            weather = await self._held(pair, way)
            if weather.delay:
                await asyncio.sleep(weather.delay)
            piece, data = data[: weather.piece], data[weather.piece :]
            self.passed += len(piece)
            writer.write(piece)
            await writer.drain()

    async def _held(self, pair: Pair, way: int) -> Weather:
        """Wait while this way is held; what is over it then."""
        while (weather := self._over(pair)[way]).hold:
            await self._changed.wait()
        return weather

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(asyncio.CancelledError):  # by `close`; asyncio's own callback would call it a fault
            await self._accept(reader, writer)

    async def close(self) -> None:
        """End all connections."""
        self.fail_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def open_proxy(rng: random.Random, dialer: Callable[[int], str] = lambda port: "") -> AsyncIterator[Proxy]:
    """A proxy that listens until the context ends; give it a `target` next."""
    proxy = Proxy(rng, dialer)
    server = await asyncio.start_server(proxy._serve_one, proxy.host, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()

"""What the bare parts can do on this machine, now: absolute figures drift on shared machines, ratios to these don't.

Each baseline serves in one process and is driven from another, for a few seconds, closed loop with a fixed number under way.

    echo         aiohttp WebSocket server on uvloop, nothing but an echo, the bench's own raw client
    grpc single  a grpc.aio bidirectional stream, one 120-byte envelope a message
    grpc batch   the same, a hundred envelopes a message
    insert       the store's kind of append, in batches of a hundred rows, through the driver alone (see bench.inserts)
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import uvloop
from aiohttp import WSMsgType, web

from bench.resources import measure
from bench.wire import SUBPROTOCOL, WireConnection, client_frame, connect
from tidings.router.v1 import link_pb2

SECONDS = 3.0
PAYLOAD_BYTES = 120
_CONNECTIONS = 100
_WINDOW = 4  # echoes under way per connection
_BATCH = 100
_METHOD = "/bench.Echo/Echo"


@dataclass(frozen=True, slots=True)
class Baseline:
    """How many messages per second the bare part moved, and what its server's CPU took for a thousand."""

    name: str
    rate: float
    cpu_seconds_per_1000: float
    how: str


def run_baselines() -> list[Baseline]:
    """Echo and both gRPC streams."""
    return [
        _drive("aiohttp echo", "echo", _echo, "WebSocket echo, 100 connections, 4 under way on each"),
        _drive("grpc.aio one by one", "grpc", lambda port: _stream(port, 1), "one bidirectional stream, one envelope a message"),
        _drive("grpc.aio by 100", "grpc", lambda port: _stream(port, _BATCH), "one bidirectional stream, 100 envelopes a message"),
    ]


def _drive(name: str, server: str, client: Callable[[int], Awaitable[int]], how: str) -> Baseline:
    with _serving(server) as (port, pid):
        before = measure({"server": pid})["server"]
        started = time.monotonic()
        count = uvloop.run(_result(client(port))) if server == "echo" else asyncio.run(_result(client(port)))
        seconds = time.monotonic() - started
        cpu = measure({"server": pid})["server"].cpu_seconds - before.cpu_seconds
    return Baseline(name, round(count / seconds), round(cpu / count * 1000, 4), how)


async def _result(work: Awaitable[int]) -> int:
    return await work


@contextmanager
def _serving(what: str) -> Iterator[tuple[int, int]]:
    process = subprocess.Popen([sys.executable, "-m", "bench.baselines", what], stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield int(line), process.pid
    finally:
        process.terminate()
        process.wait()


async def _echo(port: int) -> int:
    """Keep `_WINDOW` echoes under way on each connection; gives how many came back."""
    count, frame = 0, client_frame(b"x" * PAYLOAD_BYTES)
    connections: list[WireConnection] = []

    def on_echo(index: int) -> Callable[[bytes], None]:
        def again(_: bytes) -> None:
            nonlocal count
            count += 1
            connections[index].send(frame)

        return again

    opening = (connect(f"ws://127.0.0.1:{port}/", on_echo(index), lambda code: None) for index in range(_CONNECTIONS))
    connections += await asyncio.gather(*opening)
    for connection in connections:
        connection.send(frame * _WINDOW)
    await asyncio.sleep(SECONDS)
    for connection in connections:
        connection.close()
    return count


async def _stream(port: int, batch: int) -> int:
    """Keep `_WINDOW` messages under way on one stream; gives how many envelopes came back."""
    envelopes = [link_pb2.ClientEnvelope(envelope_id=n, user_id="u" * 8, session=n) for n in range(batch)]
    for envelope in envelopes:
        envelope.append_entry.content.text.text = "x" * PAYLOAD_BYTES
    message = link_pb2.LinkRequest(batch=link_pb2.EdgeBatch(envelopes=envelopes))
    count, until = 0, time.monotonic() + SECONDS
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(_METHOD, link_pb2.LinkRequest.SerializeToString, link_pb2.LinkRequest.FromString)()
        for _ in range(_WINDOW):
            await call.write(message)
        while time.monotonic() < until:
            answer = await call.read()
            count += len(answer.batch.envelopes) if isinstance(answer, link_pb2.LinkRequest) else 0
            await call.write(message)
        call.cancel()
    return count


async def _serve_echo() -> None:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=[SUBPROTOCOL], compress=False)
        await socket.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # the client has what it came for
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def _serve_grpc() -> None:
    async def echo(requests: AsyncIterator[link_pb2.LinkRequest], _: object) -> AsyncIterator[link_pb2.LinkRequest]:
        async for request in requests:
            yield request

    handler = grpc.stream_stream_rpc_method_handler(echo, link_pb2.LinkRequest.FromString, link_pb2.LinkRequest.SerializeToString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["echo", "grpc"])
    if parser.parse_args().what == "echo":
        uvloop.run(_serve_echo())
    else:
        asyncio.run(_serve_grpc())

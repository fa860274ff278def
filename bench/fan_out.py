"""A bare fan-out: an aiohttp server that writes one frame to every WebSocket it holds, and nothing else.

As a process it prints its port, and for each line on stdin (how many bytes, and how often) writes to all.
"""

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import uvloop
from aiohttp import web

from bench.listeners import BARE
from bench.remote import generator

_SECONDS = 30.0


def bare_fan_out(connections: int, size: int) -> float:
    """Seconds from the beginning of the writing until the last of `connections` clients had the frame of `size` bytes."""
    with bare_server() as (process, port), generator("bench.listeners") as clients:
        clients.do("connect_bare", port=port, count=connections)
        started = time.time()
        _say(process, size, 1)
        seen = clients.do("await", name=BARE, count=connections, seconds=_SECONDS)
    return float(seen["last"] - started) if seen["shown"] == connections else float("inf")


def bare_fan_out_rate(connections: int, size: int, frames: int) -> float:
    """Deliveries per second when so many frames of `size` bytes go to `connections` clients, one after another."""
    with bare_server() as (process, port), generator("bench.members") as clients:
        clients.do("connect_bare", port=port, count=connections)
        started = time.time()
        _say(process, size, frames)
        seen = clients.do("await_bare", deliveries=connections * frames, seconds=_SECONDS)
    return float(seen["delivered"] / (seen["last"] - started))


def _say(process: "subprocess.Popen[str]", size: int, frames: int) -> None:
    assert process.stdin is not None  # noqa: S101
    process.stdin.write(f"{size} {frames}\n")
    process.stdin.flush()


@contextmanager
def bare_server(
    certificate: str = "", key: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A server as this module describes it, and its port; with TLS when given PEM files."""
    command, given = (
        [sys.executable, "-m", "bench.fan_out", *filter(None, (certificate, key))],
        os.environ | dict(environment or {}),
    )
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=given)  # noqa: S603
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield process, int(line)
    finally:
        process.terminate()
        process.wait()


async def _serve() -> None:
    sockets: list[web.WebSocketResponse] = []

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["tidings.v1.proto"], compress=False)
        await socket.prepare(request)
        sockets.append(socket)
        with contextlib.suppress(ConnectionResetError):
            async for _ in socket:
                pass
        return socket

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096, ssl_context=_tls(*sys.argv[1:])).start()
    print(runner.addresses[0][1], flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        size, frames = map(int, line.split())
        for _ in range(frames):
            for socket in sockets:
                await socket.send_bytes(b"x" * size)
            await asyncio.sleep(0)  # so that each frame goes by itself, as it would when they come one by one


def _tls(certificate: str = "", key: str = "") -> ssl.SSLContext | None:
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve())

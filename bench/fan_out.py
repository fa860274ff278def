"""A bare fan-out: an aiohttp server that writes one frame to every WebSocket it holds, and nothing else.

As a process it prints its port, waits for a line on stdin (the number of bytes to send) and then writes to all.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop
from aiohttp import web

from bench.listeners import BARE
from bench.remote import generator

_SECONDS = 30.0


def bare_fan_out(connections: int, size: int) -> float:
    """Seconds from the beginning of the writing until the last of `connections` clients had the frame of `size` bytes."""
    with _serving() as (process, port), generator("bench.listeners") as clients:
        clients.do("connect_bare", port=port, count=connections)
        started = time.time()
        assert process.stdin is not None  # noqa: S101
        process.stdin.write(f"{size}\n")
        process.stdin.flush()
        seen = clients.do("await", name=BARE, count=connections, seconds=_SECONDS)
    return float(seen["last"] - started) if seen["shown"] == connections else float("inf")


@contextmanager
def _serving() -> Iterator[tuple["subprocess.Popen[str]", int]]:
    command = [sys.executable, "-m", "bench.fan_out"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
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
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    size = int(await asyncio.to_thread(sys.stdin.readline))
    for socket in sockets:
        await socket.send_bytes(b"x" * size)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve())

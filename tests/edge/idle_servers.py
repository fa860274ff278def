"""The servers whose idle connections are measured, each alone in a process: an edge, and a bare aiohttp WebSocket server.

`python -m tests.edge.idle_servers edge|bare …`, as `child` starts it, says where it listens, and answers every line with what its
memory is made of.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import uvloop
from aiohttp import web
from pydantic import SecretStr

from bench.wire import SUBPROTOCOL
from edge.listener import tls_context
from edge.serve import serve
from edge.settings import EdgeSettings
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry, settle_memory
from tests import memory
from tests.edge.cost import SECRET
from tidings.common.v1.instance_pb2 import Instance


async def serve_edge(router: str, certificates: str) -> None:
    """The child: an edge linked to one router."""
    registry, telemetry = MemoryRegistry(), Telemetry("edge")
    tls = {"tls_certificate": f"{certificates}/edge.pem", "tls_key": f"{certificates}/edge.key"} if certificates else {}
    options: dict[str, Any] = {"port": 0, "token_secret": SecretStr(SECRET), "drain_seconds": 0, "capacity": 1_000_000, **tls}
    known = Instance(service="router", instance_id="swift", grpc_address=router)
    async with registry.register(known), serve(EdgeSettings(**options), registry, telemetry) as instance:
        await answer(instance.public_url)


async def serve_bare(certificates: str) -> None:
    """The other child: what aiohttp needs for a connection that does nothing."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=False, protocols=(SUBPROTOCOL,))
        await websocket.prepare(request)
        async for message in websocket:
            await websocket.send_bytes(message.data)
        return websocket

    app = web.Application()
    app.add_routes([web.get("/v1/ws", handle)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    tls = tls_context(f"{certificates}/edge.pem", f"{certificates}/edge.key") if certificates else None
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls, backlog=4096).start()
    try:
        await answer(f"ws://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


async def answer(url: str) -> None:
    """Tell the parent where to connect, then at each of its lines what this process's memory is made of."""
    settle_memory()
    say(url)
    while await asyncio.to_thread(sys.stdin.readline):
        say(json.dumps(asdict(memory.read(objects=tracemalloc.is_tracing()))))


def say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Child:
    """A server under measurement."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self.url = self._output.readline().strip()

    def read(self) -> dict[str, Any]:
        self._input.write("\n")
        self._input.flush()
        reading: dict[str, Any] = json.loads(self._output.readline())
        return reading


@contextmanager
def child(*arguments: str, trace: bool) -> Iterator[Child]:
    command = [sys.executable, *(["-X", "tracemalloc=1"] if trace else []), "-m", "tests.edge.idle_servers", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Child(process)
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["edge", "bare"])
    parser.add_argument("router")
    parser.add_argument("certificates", help="folder; empty for plain")
    arguments = parser.parse_args()
    uvloop.install()
    if arguments.kind == "edge":
        asyncio.run(serve_edge(arguments.router, arguments.certificates))
    else:
        asyncio.run(serve_bare(arguments.certificates))


if __name__ == "__main__":
    main()

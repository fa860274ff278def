"""The real services in this process: one store on SQLite, routers, edges and a balancer."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

import balancer.serve
import edge.serve
import router.serve
import store.serve
from balancer.settings import BalancerSettings
from edge.settings import EdgeSettings
from mesh.credentials import mint_token
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from router.settings import RouterSettings
from store.settings import StoreSettings


@dataclass
class Mesh:
    """A running mesh; edges can be added and stopped."""

    url: str
    secret: str
    common: dict[str, Any]
    registry: MemoryRegistry
    telemetry: Telemetry
    edges: list[AsyncExitStack] = field(default_factory=list)

    def token(self, user_id: str, seconds: float = 3600.0) -> str:
        return mint_token(self.secret, user_id, time.time(), seconds)

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        lines = self.telemetry.exposition().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    async def counted(self, name: str, value: float) -> None:
        """Wait until a metric shows this."""
        async with asyncio.timeout(10):
            while self.metric(name) != value:  # noqa: ASYNC110  (metrics are read by polling)
                await asyncio.sleep(0.01)

    async def start_edge(self) -> None:
        stack = AsyncExitStack()
        settings = EdgeSettings(port=0, drain_seconds=2.0, **self.common)
        await stack.enter_async_context(edge.serve.serve(settings, self.registry, self.telemetry))
        self.edges.append(stack)

    async def stop_edge(self, index: int = 0) -> None:
        await self.edges.pop(index).aclose()


@asynccontextmanager
async def running(folder: Path, routers: int = 2) -> AsyncIterator[Mesh]:
    """A mesh with one edge, until the context ends."""
    secret, ticket_secret = secrets.token_hex(32), secrets.token_hex(32)
    common: dict[str, Any] = {"token_secret": secret, "ticket_secret": ticket_secret, "drain_seconds": 1.0}
    registry, telemetry = MemoryRegistry(), Telemetry("test")
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.close)
        quick: dict[str, Any] = {"port": 0, "drain_seconds": 1.0}
        database = StoreSettings(database=f"sqlite:///{folder}/mesh.sqlite", **quick)
        await stack.enter_async_context(store.serve.serve(database, registry, telemetry))
        for _ in range(routers):
            settings = RouterSettings(**quick)
            await stack.enter_async_context(router.serve.serve(settings, registry, telemetry))
        door = BalancerSettings(port=0, grpc_port=0, **common)
        instance = await stack.enter_async_context(balancer.serve.serve(door, registry, telemetry))
        del common["drain_seconds"]
        mesh = Mesh(instance.public_url, secret, common, registry, telemetry)
        await mesh.start_edge()
        await _ready(mesh.url)
        try:
            yield mesh
        finally:
            while mesh.edges:
                await mesh.stop_edge()


async def _ready(url: str) -> None:
    """An edge has reported to the balancer."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(10):
        while (await http.get(url + "/readyz")).status != 200:  # noqa: ASYNC110  (another service's word, not an event of ours)
            await asyncio.sleep(0.01)

"""The whole mesh in one process on one loop, each service with a life of its own: it can be stopped and started again.

The registry lives in memory, the store on SQLite in a folder of the test. Clients reach the edge through a proxy (see `proxy.py`),
whose port stays while edges come and go; a business reaches tagsvc and scheduler under ports that stay theirs. Each service runs in
a task of its own, so what fails in one is seen when it is stopped.
"""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

import balancer.serve
import edge.serve
import router.serve
import scheduler.serve
import store.serve
import tagsvc.serve
from balancer.settings import BalancerSettings
from edge.settings import EdgeSettings
from mesh.credentials import mint_token
from mesh.local_server import LocalServers
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from router.settings import RouterSettings
from scheduler.settings import SchedulerSettings
from store.settings import StoreSettings
from tagsvc.settings import TagsvcSettings
from tests.system.fences import SqliteFences
from tests.system.ports import lasting_port
from tests.system.proxy import Proxy, open_proxy
from tidings.common.v1.instance_pb2 import Instance
from tidings_client.business import Business

Serve = Callable[[], AbstractAsyncContextManager[Instance]]
_START_SECONDS = 15.0
_DRAIN_SECONDS = 0.5
_RESEND_SECONDS = 1.0  # what a cut socket lost comes again within the test
_HEARTBEAT_SECONDS = 1.0  # a black hole is then noticed within the test


class Service:
    """One service, running in a task of its own."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Instance:
        """Start it; gives its record once it serves."""
        self._stop.clear()
        ready: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(ready))
        self._task.add_done_callback(lambda task: None if ready.done() else ready.set_exception(_why(task)))
        return await asyncio.wait_for(ready, _START_SECONDS)

    async def stop(self) -> None:
        """Stop it in order; raises what went wrong in it meanwhile."""
        self._stop.set()
        if self._task is not None:
            task, self._task = self._task, None
            await task

    async def _run(self, ready: asyncio.Future[Instance]) -> None:
        async with self._serve() as instance:
            ready.set_result(instance)
            await self._stop.wait()


class Mesh:
    """A running mesh.

    Attributes:
        url: the balancer's.
        proxy: between the clients and the edge.
        services: by name; stop and start them with `stop` and `start`.
        fences: look into the store's file.
    """

    def __init__(self, folder: Path, proxy: Proxy) -> None:
        self.url = ""
        self.token_secret, self.proxy = secrets.token_hex(32), proxy
        self.telemetry = Telemetry("tests")
        self.fences = SqliteFences(folder / "tidings.sqlite")
        registry = MemoryRegistry(LocalServers())  # as `tidings up` has it in one process
        keys: dict[str, Any] = {"token_secret": self.token_secret, "ticket_secret": secrets.token_hex(32)}
        common: dict[str, Any] = {"port": 0, "drain_seconds": _DRAIN_SECONDS, "reflection": False}
        store_settings = StoreSettings(**common, database=f"sqlite:///{folder / 'tidings.sqlite'}")
        self._tagsvc_port, self._scheduler_port = lasting_port(), lasting_port()
        tagsvc_settings = TagsvcSettings(**{**common, "port": self._tagsvc_port})
        router_settings = RouterSettings(**common, resend_seconds=_RESEND_SECONDS)
        scheduler_settings = SchedulerSettings(**{**common, "port": self._scheduler_port})
        balancer_settings = BalancerSettings(**common, **keys, grpc_port=0, backoff_base_seconds=0.05, backoff_max_seconds=0.5)
        self._edge_port = lasting_port()
        edge_settings = EdgeSettings(**{**common, "port": self._edge_port}, **keys, **_edge(proxy))
        self.services = {
            "store": Service(lambda: store.serve.serve(store_settings, registry, self.telemetry)),
            "tagsvc": Service(lambda: tagsvc.serve.serve(tagsvc_settings, registry, self.telemetry)),
            "router": Service(lambda: router.serve.serve(router_settings, registry, self.telemetry)),
            "scheduler": Service(lambda: scheduler.serve.serve(scheduler_settings, registry, self.telemetry)),
            "balancer": Service(lambda: balancer.serve.serve(balancer_settings, registry, self.telemetry)),
            "edge": Service(lambda: edge.serve.serve(edge_settings, registry, self.telemetry)),
        }

    async def start(self, name: str) -> None:
        """Start one service."""
        instance = await self.services[name].start()
        if name == "balancer":
            self.url = instance.public_url
        if name == "edge":
            self.proxy.target = self._edge_port
            await self._ready()

    async def stop(self, name: str) -> None:
        """Stop one service."""
        if name == "edge":
            self.proxy.target = 0
        await self.services[name].stop()

    async def _ready(self) -> None:
        """Wait until the balancer knows an edge: what would be a client's first attempts."""
        async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{self.url}/readyz") as answer:
                    if answer.status == 200:
                        return
                await asyncio.sleep(0.01)

    def token(self, user_id: str) -> str:
        """A token for a user, good for an hour."""
        return mint_token(self.token_secret, user_id, time.time(), 3600.0)

    def business(self) -> Business:
        """The way of a business to tagsvc and scheduler; it outlives their restarts."""
        return Business.connect(f"127.0.0.1:{self._scheduler_port}", f"127.0.0.1:{self._tagsvc_port}")


def _why(task: asyncio.Task[None]) -> BaseException:
    return (None if task.cancelled() else task.exception()) or RuntimeError("the service ended before it served")


def _edge(proxy: Proxy) -> dict[str, Any]:
    return {
        "public_url": f"ws://{proxy.host}:{proxy.port}",
        "heartbeat_seconds": _HEARTBEAT_SECONDS,
        "heartbeat_limit_seconds": 2.5 * _HEARTBEAT_SECONDS,
        "acknowledge_seconds": 2.0,
    }


@asynccontextmanager
async def run_mesh(folder: Path, rng: random.Random) -> AsyncIterator[Mesh]:
    """A mesh that serves until the context ends.

    Args:
        folder: where the store keeps its file.
        rng: of the proxy's faults.
    """
    async with open_proxy(rng) as proxy:
        mesh, started = Mesh(folder, proxy), list[str]()
        try:
            for name in mesh.services:
                await mesh.start(name)
                started.append(name)
            yield mesh
        finally:
            for name in reversed(started):
                await mesh.stop(name)
            mesh.fences.close()
            mesh.telemetry.close()

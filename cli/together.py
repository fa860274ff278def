"""The whole mesh in this process, on one event loop: the same `serve` of each service that its own process would run, on the same
ports, with real WebSockets. Only what the services say to each other goes without a socket, and the registry is in memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import balancer.serve
import edge.serve
import router.serve
import scheduler.serve
import store.serve
import tagsvc.serve
from balancer.settings import BalancerSettings
from cli.plan import BALANCER_DEFAULTS, Plan
from edge.settings import EdgeSettings
from mesh.local_server import LocalServers
from mesh.registry import MemoryRegistry
from mesh.settings import ServiceSettings
from mesh.telemetry import Telemetry, settle_memory
from router.settings import RouterSettings
from scheduler.settings import SchedulerSettings
from store.settings import StoreSettings
from tagsvc.settings import TagsvcSettings
from tidings.common.v1.instance_pb2 import Instance


class Together:
    """The mesh in this process: ready as soon as it exists, and nothing of it dies alone.

    Attributes:
        instances: who serves.
        nodes: none: there is no process but this.
    """

    nodes: Mapping[str, str] = {}

    def __init__(self, instances: Sequence[Instance]) -> None:
        self.instances = instances

    async def ready(self) -> None:
        """Returns at once."""

    async def death(self) -> str:
        """Never returns."""
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


@asynccontextmanager
async def serve(plan: Plan) -> AsyncIterator[Together]:
    """Start all services, each when those it dials are there; stop them in reverse."""
    telemetry = Telemetry("tidings")
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.close)
        registry = MemoryRegistry(LocalServers())
        instances = [await stack.enter_async_context(start(settings, registry, telemetry)) for start, settings in _services(plan)]
        settle_memory()
        yield Together(instances)


def _services(plan: Plan) -> Iterator[tuple[Callable[..., AbstractAsyncContextManager[Instance]], ServiceSettings]]:
    common: dict[str, Any] = {"host": plan.host, "advertise": plan.advertise, "drain_seconds": plan.drain_seconds}
    if not plan.cache.startswith("memory:"):
        common["cache"] = plan.cache
    keys: dict[str, Any] = {"token_secret": plan.secrets.token_secret, "ticket_secret": plan.secrets.ticket_secret}
    yield store.serve.serve, StoreSettings(**common, port=0, database=plan.store)
    for port in plan.tagsvc_ports:
        yield tagsvc.serve.serve, TagsvcSettings(**common, port=port, mesh_port=0)
    for _ in range(plan.routers):
        yield router.serve.serve, RouterSettings(**common, port=0)
    for port in plan.scheduler_ports:
        yield scheduler.serve.serve, SchedulerSettings(**common, port=port)
    yield balancer.serve.serve, at_home(BalancerSettings(**common, **keys, port=plan.balancer_ports[0], grpc_port=0))
    for port in plan.edge_ports:
        yield edge.serve.serve, EdgeSettings(**common, **keys, port=port)


def at_home(settings: BalancerSettings) -> BalancerSettings:
    """With the defaults of a developer's machine where the environment says nothing."""
    unset = {name: value for name, value in BALANCER_DEFAULTS.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=unset)

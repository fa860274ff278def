"""`python -m cli.router_with_store`: a router, and a store for it in the same process.

What the two say to each other then wakes no other process (docs/adr/0018). All the others find the store in the registry, as any
store. The flags are the router's; the store takes from them where the process is and how it runs, and the rest, `database` first of
all, from its own part of the environment, `TIDINGS_STORE_<SETTING>`.
"""

import mesh.engine  # noqa: F401  isort: skip  first: it chooses gRPC's engine

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import router.serve
import store.serve
from mesh import process
from mesh.local_server import LocalServers
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from router.settings import RouterSettings
from store.settings import StoreSettings
from tidings.common.v1.instance_pb2 import Instance

SHARED = {"host", "advertise", "registry", "cache", "zone", "admin_url", "drain_seconds", "reflection"}
"""Settings that are of the process, not of the one service or the other."""


@asynccontextmanager
async def serve(
    of_store: StoreSettings, settings: RouterSettings, registry: Registry, telemetry: Telemetry
) -> AsyncIterator[Instance]:
    """Serve both until the context ends, the router first; gives the router as registered."""
    registry.local = LocalServers()
    shared = settings.model_dump(include=SHARED)
    async with (
        store.serve.serve(of_store.model_copy(update=shared), registry, telemetry),
        router.serve.serve(settings, registry, telemetry) as instance,
    ):
        yield instance


if __name__ == "__main__":
    process.run("router", RouterSettings.from_command_line(), partial(serve, StoreSettings.from_command_line([])))

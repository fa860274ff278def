"""`python -m cli.router_with_store`: a router, and a store for it in the same process.

What the two say to each other then wakes no other process (docs/adr/0018). All the others find the store in the registry, as any
store. The flags are the router's; the store is told by its own part of the environment, `TIDINGS_STORE_<SETTING>`, `database` first
of all, and where that says nothing, where the process is and how it runs by the router's.
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

SHARED = ("host", "advertise", "registry", "cache", "zone", "drain_seconds", "reflection")
"""Settings that the store takes from the router's where its own part of the environment says nothing."""


@asynccontextmanager
async def serve(
    of_store: StoreSettings, settings: RouterSettings, registry: Registry, telemetry: Telemetry
) -> AsyncIterator[Instance]:
    """Serve both until the context ends, the router first; gives the router as registered."""
    registry.local = LocalServers()
    shared = {name: getattr(settings, name) for name in SHARED if name not in of_store.model_fields_set}
    beside = of_store.model_copy(update=shared | {"admin_url": settings.admin_url})
    async with (
        store.serve.serve(beside, registry, telemetry),
        router.serve.serve(settings, registry, telemetry) as instance,
    ):
        yield instance


def check(of_store: StoreSettings, settings: RouterSettings) -> None:
    """Refuse what the two can't be told together.

    Raises:
        ValueError: says what, and which setting to change.
    """
    if of_store.mesh_ca != settings.mesh_ca:
        raise ValueError(
            f"the router's mesh_ca is {settings.mesh_ca!r} and the store's {of_store.mesh_ca!r}: one would let in whom the other "
            "doesn't. Tell the store by TIDINGS_STORE_MESH_CA, TIDINGS_STORE_MESH_CERTIFICATE and TIDINGS_STORE_MESH_KEY"
        )
    if settings.registry.startswith("etcd:") and not of_store.database.startswith("postgresql:"):
        raise ValueError("routers that share a registry need stores that share a database: TIDINGS_STORE_DATABASE=postgresql://…")


def main() -> None:
    """Read both settings and serve until SIGTERM or SIGINT."""
    settings, of_store = RouterSettings.from_command_line(), StoreSettings.from_command_line([])
    try:
        check(of_store, settings)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    process.run("router", settings, partial(serve, of_store))


if __name__ == "__main__":
    main()

"""A service behind a mapped port tells the registry the port that others reach, of the server that the mesh calls."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import balancer.serve
import store.serve
import tagsvc.serve
from balancer.settings import BalancerSettings
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from store.settings import StoreSettings
from tagsvc.settings import TagsvcSettings


async def test_the_mapped_port_is_that_of_the_server_which_the_mesh_calls(tmp_path: Path) -> None:
    common: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "drain_seconds": 0.0, "reflection": False}
    mapped = {**common, "advertise": "node-7.example", "advertise_port": 7000}
    settings = BalancerSettings(**mapped, grpc_port=0, ticket_secret="s" * 32, public_url="https://chat.example")
    telemetry, registry = Telemetry("tests"), MemoryRegistry()
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.close)
        database = StoreSettings(**common, database=f"sqlite:///{tmp_path / 'tidings.sqlite'}")
        await stack.enter_async_context(store.serve.serve(database, registry, telemetry))
        door = await stack.enter_async_context(balancer.serve.serve(settings, registry, telemetry))
        tags = await stack.enter_async_context(tagsvc.serve.serve(TagsvcSettings(**mapped), registry, telemetry))
    assert (door.grpc_address, door.public_url) == ("node-7.example:7000", "https://chat.example")
    host, _, port = tags.public_url.partition(":")
    assert (tags.grpc_address, host, door.admin_url) == ("node-7.example:7000", "node-7.example", "")
    assert port not in {"", "0", "7000"}, "businesses reach the port of their own"

"""A router with a store in its process: both are registered, the one calls the other without a socket, and what they are told must
go together."""

from pathlib import Path
from typing import Any

import pytest

from cli.router_with_store import check, serve
from mesh import rpc
from mesh.local_channel import LocalChannel
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from router.settings import RouterSettings
from store.settings import StoreSettings
from tidings.store.v1.user_pb2 import EnsureUsersRequest
from tidings.store.v1.user_pb2_grpc import UserServiceStub


async def test_both_serve_the_store_as_its_process_is_told(tmp_path: Path) -> None:
    registry, telemetry = MemoryRegistry(), Telemetry("test")
    of_store = StoreSettings(database=f"sqlite:///{tmp_path / 'store.sqlite'}", port=0, drain_seconds=0)
    settings = RouterSettings(port=0, zone="here", advertise="localhost", admin_url="http://localhost:1", drain_seconds=0)
    async with serve(of_store, settings, registry, telemetry) as router:
        [store] = (await anext(registry.watch("store"))).values()
        [listed] = (await anext(registry.watch("router"))).values()
        assert listed == router
        assert (store.zone, store.admin_url) == (router.zone, router.admin_url) == ("here", "http://localhost:1")
        assert store.grpc_address.startswith("localhost:")
        async with rpc.channel(store.grpc_address, telemetry, "store", local=registry.local) as channel:
            assert isinstance(channel, LocalChannel)
            answer = await UserServiceStub(channel).EnsureUsers(EnsureUsersRequest(user_ids=["alice"]), timeout=5)
            assert len(answer.users) == 1
    telemetry.close()


async def test_what_the_store_was_told_itself_stays(tmp_path: Path) -> None:
    registry, telemetry = MemoryRegistry(), Telemetry("test")
    of_store = StoreSettings(database=f"sqlite:///{tmp_path / 'store.sqlite'}", port=0, zone="there", drain_seconds=0)
    async with serve(of_store, RouterSettings(port=0, zone="here", drain_seconds=0), registry, telemetry) as router:
        [store] = (await anext(registry.watch("store"))).values()
        assert (store.zone, router.zone) == ("there", "here")
    telemetry.close()


def test_a_store_without_a_door_beside_a_router_with_one_is_refused(tmp_path: Path) -> None:
    files: dict[str, Any] = {f"mesh_{name}": str(tmp_path / name) for name in ("ca", "certificate", "key")}
    for path in files.values():
        Path(path).touch()
    database = "postgresql://db/tidings"
    secured, plain = RouterSettings(**files), RouterSettings()
    for settings, of_store in ((secured, StoreSettings(database=database)), (plain, StoreSettings(database=database, **files))):
        with pytest.raises(ValueError, match="TIDINGS_STORE_MESH_CA"):
            check(of_store, settings)
    check(StoreSettings(database=database, **files), secured)


def test_routers_that_share_a_registry_are_not_given_a_file_each() -> None:
    with pytest.raises(ValueError, match="TIDINGS_STORE_DATABASE=postgresql"):
        check(StoreSettings(database="sqlite:///store.sqlite"), RouterSettings(registry="etcd://127.0.0.1:2379"))
    check(StoreSettings(database="sqlite:///store.sqlite"), RouterSettings())

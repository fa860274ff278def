"""A router with a store in its process: both are registered, and the one is called by the other without a socket."""

from pathlib import Path

from cli.router_with_store import serve
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
    of_store = StoreSettings(database=f"sqlite:///{tmp_path / 'store.sqlite'}", port=0, zone="elsewhere", drain_seconds=0)
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

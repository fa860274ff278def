"""When a call stays in the process, and who may make one. How such calls behave: test_transports.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh import errors, rpc
from mesh.business import BusinessDoor, BusinessSettings
from mesh.local_channel import LocalChannel
from mesh.local_exchange import Exchange
from mesh.local_server import LocalServer, LocalServers
from mesh.mutual_tls import MeshDoor, MutualTls
from mesh.node import Node
from mesh.nodes import NodePool
from mesh.registry import MemoryRegistry
from mesh.settings import ServiceSettings
from mesh.telemetry import Telemetry
from tests.certificates import make_certificates
from tidings.common.v1.instance_pb2 import Instance

SERVICE = "tidings.test.Local"


async def echo(request: bytes, _: Any) -> bytes:
    """What was asked."""
    return request


@asynccontextmanager
async def serving(telemetry: Telemetry, local: LocalServers, door: BusinessDoor | MeshDoor | None = None) -> AsyncIterator[str]:
    """A server that can be called both ways; gives its address."""
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Echo": grpc.unary_unary_rpc_method_handler(echo)})
    add = {SERVICE: lambda server: server.add_generic_rpc_handlers((handler,))}
    async with rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=0, door=door, local=local) as port:
        yield f"127.0.0.1:{port}"


async def ask(channel: grpc.aio.Channel) -> bytes:
    """What it answers."""
    method: Any = channel.unary_unary(f"/{SERVICE}/Echo")
    with rpc.named_errors():
        return bytes(await method(b"hello", timeout=5.0))


def first(pool: NodePool) -> Node | None:
    """An instance that the pool knows."""
    try:
        return pool.pick()
    except errors.TidingsError:
        return None


async def test_there_is_one_servicer_whichever_way_a_call_comes(telemetry: Telemetry) -> None:
    added = list[grpc.aio.Server]()
    async with rpc.serve("127.0.0.1:0", {SERVICE: added.append}, telemetry, reflect=False, drain_seconds=0, local=LocalServers()):
        assert len(added) == 1


async def test_a_server_of_this_process_is_called_in_it_and_dialled_by_others(telemetry: Telemetry) -> None:
    local = LocalServers()
    async with serving(telemetry, local) as address:
        near, far = rpc.channel(address, telemetry, local=local), rpc.channel(address, telemetry)
        async with near, far:
            assert (isinstance(near, LocalChannel), isinstance(far, LocalChannel)) == (True, False)
            assert [await ask(near), await ask(far)] == [b"hello", b"hello"]


async def test_what_is_not_of_this_process_is_dialled(telemetry: Telemetry) -> None:
    local = LocalServers()
    async with serving(telemetry, LocalServers()) as address, rpc.channel(address, telemetry, local=local) as channel:
        assert not isinstance(channel, LocalChannel)
        assert await ask(channel) == b"hello"
    assert local.find("127.0.0.1:1") is local.find("[::1]:x") is local.find("") is None


async def test_another_machines_server_on_the_same_port_is_dialled(telemetry: Telemetry) -> None:
    local = LocalServers()
    async with serving(telemetry, local) as address:
        other = address.replace("127.0.0.1", "127.0.0.2")
        async with rpc.channel(other, telemetry, local=local) as channel:
            assert not isinstance(channel, LocalChannel)


async def test_a_server_is_found_by_the_address_that_others_know(telemetry: Telemetry) -> None:
    settings = ServiceSettings(advertise="tidings.example", advertise_port=7000)
    local, known = LocalServers(), settings.grpc_address
    async with rpc.serve("127.0.0.1:0", {}, telemetry, reflect=False, drain_seconds=0, local=local, known_as=known) as port:
        assert local.find("tidings.example:7000") is not None
        assert local.find(f"127.0.0.1:{port}") is None


async def test_two_servers_are_not_known_by_one_address(telemetry: Telemetry) -> None:
    local, known = LocalServers(), ServiceSettings(advertise_port=7000).grpc_address
    options: dict[str, Any] = {"reflect": False, "drain_seconds": 0, "local": local, "known_as": known}
    async with rpc.serve("127.0.0.1:0", {}, telemetry, **options):
        with pytest.raises(ValueError, match=r"two servers .* 127.0.0.1:7000: give each an advertised port"):
            async with rpc.serve("127.0.0.1:0", {}, telemetry, **options):
                pass
        assert local.find("127.0.0.1:7000") is not None


async def test_a_server_that_has_stopped_is_not_found(telemetry: Telemetry) -> None:
    local = LocalServers()
    async with serving(telemetry, local) as address:
        assert local.find(address) is not None
    assert local.find(address) is None


async def test_a_pool_calls_the_registrys_local_servers_without_dialling(telemetry: Telemetry) -> None:
    local = LocalServers()
    registry = MemoryRegistry(local)
    async with serving(telemetry, local) as address:
        instance = Instance(service="echo", instance_id="echo-1", grpc_address=address)
        async with registry.register(instance), NodePool.open(registry, "echo", telemetry) as pool:
            async with asyncio.timeout(10):
                while not (node := first(pool)):  # noqa: ASYNC110  (a pool doesn't say when it has heard)
                    await asyncio.sleep(0)
            assert isinstance(node.channel, LocalChannel)
            assert await ask(node.channel) == b"hello"


async def test_a_business_has_no_way_in_within_the_process(telemetry: Telemetry) -> None:
    local = LocalServers()
    async with (
        serving(telemetry, local, BusinessDoor(BusinessSettings())) as address,
        rpc.channel(address, telemetry, local=local) as near,
        rpc.channel(address, telemetry) as far,
    ):
        with pytest.raises(errors.TidingsError) as raised:
            await ask(near)
        assert raised.value.reason == "NETWORK_REFUSED"
        assert await ask(far) == b"hello"


async def test_with_certificates_nobody_is_let_in_without_showing_one(telemetry: Telemetry, tmp_path: Path) -> None:
    local, folder = LocalServers(), make_certificates(tmp_path, ("store", "router"))
    async with serving(telemetry, local, MeshDoor(MutualTls.in_folder(folder, "store"))) as address:
        async with rpc.channel(address, telemetry, "store", local=local) as near:
            with pytest.raises(errors.TidingsError) as raised:
                await ask(near)
        assert raised.value.reason == "PERMISSION_DENIED"


async def test_with_certificates_a_caller_may_here_what_its_role_may_on_the_wire(telemetry: Telemetry, tmp_path: Path) -> None:
    local, folder = LocalServers(), make_certificates(tmp_path, ("store", "router", "edge"))
    store, router, edge = (MutualTls.in_folder(folder, role) for role in ("store", "router", "edge"))
    async with serving(telemetry, local, MeshDoor(store)) as address:
        for caller, role in ((router, "router"), (edge, "edge")):
            for way in (local, None):
                async with rpc.channel(address, telemetry, "store", caller, way) as channel:
                    assert isinstance(channel, LocalChannel) == (way is local)
                    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
                    with pytest.raises(errors.TidingsError, match=f"{role} may not call /{SERVICE}/Echo"):
                        await ask(channel)


async def test_a_call_that_is_dropped_is_cancelled() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(_: bytes, __: Any) -> bytes:
        begun.set()
        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        finally:
            ended.set()

    server = LocalServer((), 1)
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Endless": grpc.unary_unary_rpc_method_handler(endless)})
    server.add_generic_rpc_handlers((handler,))
    await server.start()
    call = LocalChannel(server).unary_unary(f"/{SERVICE}/Endless")(b"")
    await asyncio.wait_for(begun.wait(), 10)
    del call
    await asyncio.wait_for(ended.wait(), 10)
    await server.stop(0)


def test_a_deadline_finer_than_the_loops_clock_is_known() -> None:
    async def remaining() -> float | None:
        return Exchange("/m", (), 0.0003, 1024, {}).time_remaining()

    left = uvloop.run(remaining())
    assert left is not None
    assert 0.0 <= left <= 0.0003


def test_an_interceptor_that_would_be_skipped_is_refused() -> None:
    class Streams(grpc.aio.UnaryStreamClientInterceptor):
        """Of a kind that a local channel doesn't know."""

        async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any: ...

    with pytest.raises(TypeError, match="Streams"):
        LocalChannel(LocalServer((), 1), [Streams()])

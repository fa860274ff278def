"""A balancer to talk to, and what plays an edge."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
import pytest
from pydantic import SecretStr

from balancer.serve import serve
from balancer.settings import BalancerSettings
from mesh import rpc
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from tidings.balancer.v1 import balancer_pb2 as pb
from tidings.balancer.v1 import balancer_pb2_grpc
from tidings.common.v1.instance_pb2 import Instance

SECRET = "t" * 32
TICKET_SECRET = "k" * 32


class ScriptedEdge:
    """An edge that says what the test tells it to, and keeps nothing."""

    def __init__(self, stub: "balancer_pb2_grpc.BalancerServiceAsyncStub", edge_id: str, **instance: Any) -> None:
        self.edge_id = edge_id
        self.instance = Instance(service="edge", instance_id=edge_id, public_url=f"ws://{edge_id}:8081", **instance)
        self._stub = stub
        self.call = stub.ReportLoad()

    async def hello(self, *connections: tuple[str, str]) -> None:
        """Introduce the edge and wait until the balancer knows it."""
        hello = pb.EdgeHello(instance=self.instance, connections=[pb.Connection(ip=ip, user_id=user) for ip, user in connections])
        await self.call.write(pb.ReportLoadRequest(hello=hello))
        await self.seen(lambda edge: edge.connections == len(connections))

    async def load(self, **load: Any) -> None:
        """Report, and wait until the balancer has it."""
        self._lag = getattr(self, "_lag", 0) + 1
        await self.call.write(pb.ReportLoadRequest(load=pb.EdgeLoad(**load, loop_lag_us=self._lag)))
        await self.seen(lambda edge: edge.loop_lag_us == self._lag)

    async def seen(self, condition: Callable[[pb.Edge], bool]) -> None:
        """Ask the balancer until it sees this edge so; each question is a round trip, and the test's own limit ends it."""
        while True:
            listed = await self._stub.ListEdges(pb.ListEdgesRequest())
            if any(edge.instance.instance_id == self.edge_id and condition(edge) for edge in listed.edges):
                return

    async def leave(self) -> None:
        """End the stream as an edge that stops does."""
        await self.call.done_writing()
        while await self.call.read() is not grpc.aio.EOF:
            pass


@dataclass(frozen=True)
class Running:
    """A balancer that serves."""

    instance: Instance
    registry: MemoryRegistry
    stub: "balancer_pb2_grpc.BalancerServiceAsyncStub"
    http: aiohttp.ClientSession

    def edge(self, edge_id: str, **instance: Any) -> ScriptedEdge:
        """An edge whose stream is open and has said nothing."""
        return ScriptedEdge(self.stub, edge_id, **instance)

    def url(self, path: str = "/v1/connect") -> str:
        """A path's URL at the public face."""
        return self.instance.public_url + path


Start = Callable[..., AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Running]:
    """A balancer with these settings."""
    defaults = {
        "port": 0,
        "grpc_port": 0,
        "token_secret": SecretStr(SECRET),
        "ticket_secret": SecretStr(TICKET_SECRET),
        "drain_seconds": 2,
    }
    telemetry, registry = Telemetry("test"), MemoryRegistry()
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.close)
        instance = await stack.enter_async_context(serve(BalancerSettings.model_validate(defaults | settings), registry, telemetry))
        channel = await stack.enter_async_context(rpc.channel(instance.grpc_address, telemetry))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Running(instance, registry, balancer_pb2_grpc.BalancerServiceStub(channel), http)


@pytest.fixture
def start() -> Start:
    """Starts a balancer with given settings."""
    return running

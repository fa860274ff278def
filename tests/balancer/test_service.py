"""The gRPC contract with a scripted edge: reports in, orders out."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from balancer.fleet import Fleet
from balancer.service import ORDERS, BalancerServicer
from balancer.sessions import Sessions
from mesh import errors
from mesh.memory_cache import MemoryCache
from tests.balancer.conftest import Running, Start
from tidings.balancer.v1 import balancer_pb2 as pb
from tidings.common.v1 import error_pb2
from tidings.common.v1.instance_pb2 import Instance


async def listed(balancer: Running) -> list[pb.Edge]:
    return list((await balancer.stub.ListEdges(pb.ListEdgesRequest())).edges)


async def read(call: Any) -> pb.ReportLoadResponse:
    """The next order on an edge's stream."""
    order = await asyncio.wait_for(call.read(), 10)
    assert isinstance(order, pb.ReportLoadResponse)
    return order


async def ended_with(call: Any) -> errors.TidingsError:
    """What the balancer said when it ended a stream."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asyncio.wait_for(call.read(), 10)
    return errors.from_rpc_error(raised.value)


async def test_an_edge_is_listed_with_its_load_for_as_long_as_its_stream(start: Start) -> None:
    async with start() as balancer:
        edge, other = balancer.edge("edge-2", capacity=7, zone="z"), balancer.edge("edge-1")
        await edge.hello(("10.0.0.1", "alice"))
        await other.hello()
        await edge.load(connections=5, draining=True)
        first, second = await listed(balancer)
        assert first.instance.instance_id == "edge-1"
        assert not first.instance.draining
        assert second.instance == Instance(
            service="edge", instance_id="edge-2", public_url="ws://edge-2:8081", capacity=7, zone="z", draining=True
        )
        assert (second.connections, second.assignments_under_way, second.loop_lag_us) == (5, 0, 1)
        await edge.leave()
        assert [one.instance.instance_id for one in await listed(balancer)] == ["edge-1"]


async def test_a_second_stream_of_an_edge_replaces_the_first(start: Start) -> None:
    async with start() as balancer:
        older, newer = balancer.edge("edge-1"), balancer.edge("edge-1")
        await older.hello(("10.0.0.1", "alice"))
        await newer.hello(("10.0.0.1", "alice"), ("10.0.0.2", "bob"))
        assert await asyncio.wait_for(older.call.read(), 10) is grpc.aio.EOF
        (known,) = await listed(balancer)
        assert known.connections == 2
        await newer.load(connections=3)


async def test_a_drained_edge_is_told_and_gets_nothing_more(start: Start) -> None:
    async with start() as balancer:
        edge = balancer.edge("edge-1")
        await edge.hello(("10.0.0.1", "alice"))
        answer = await balancer.stub.DrainEdge(pb.DrainEdgeRequest(instance_id="edge-1"))
        assert answer.connections == 1
        assert (await read(edge.call)).drain.over == Duration(seconds=30)
        await edge.load(connections=1, draining=False)  # a report sent before the order arrived
        assert (await listed(balancer))[0].instance.draining
        over = Duration(seconds=1)
        await balancer.stub.DrainEdge(pb.DrainEdgeRequest(instance_id="edge-1", over=over))
        assert (await read(edge.call)).drain.over == over


async def test_rebalance_sheds_only_above_the_average_at_the_rate_and_once(start: Start) -> None:
    async with start() as balancer:
        full, fair, empty = (balancer.edge(f"edge-{number}", capacity=100) for number in range(3))
        for edge, connections in ((full, 50), (fair, 20), (empty, 5)):
            await edge.hello()
            await edge.load(connections=connections)
        answer = await balancer.stub.Rebalance(pb.RebalanceRequest(connections_per_second=10))
        assert answer.connections == 25
        order = (await read(full.call)).shed
        assert order.connections == 25
        assert order.over.ToTimedelta().total_seconds() == 2.5
        again = await balancer.stub.Rebalance(pb.RebalanceRequest(connections_per_second=10))
        assert again.connections == 0
        for edge in (fair, empty):  # nothing came before this drain
            await balancer.stub.DrainEdge(pb.DrainEdgeRequest(instance_id=edge.edge_id))
            assert (await read(edge.call)).HasField("drain")


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("DrainEdge", pb.DrainEdgeRequest(instance_id="edge-9"), "instance_id"),
        ("DrainEdge", pb.DrainEdgeRequest(instance_id="edge-1", over=Duration(seconds=-1)), "over"),
        ("DrainEdge", pb.DrainEdgeRequest(instance_id="edge-1", over=Duration(seconds=86_400)), "over"),
        ("Rebalance", pb.RebalanceRequest(connections_per_second=4_000_000_000), "connections_per_second"),
    ],
)
async def test_orders_out_of_bounds_are_refused_by_name(start: Start, method: str, request_: Any, field: str) -> None:
    async with start() as balancer:
        await balancer.edge("edge-1").hello()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await getattr(balancer.stub, method)(request_)
        error = errors.from_rpc_error(raised.value)
        assert (error.code, error.field) == (error_pb2.ERROR_CODE_INVALID_FIELD, field)


async def test_an_edge_that_takes_no_orders_is_not_told_more_than_the_queue_holds() -> None:
    sessions, placing = Sessions(Fleet(), MemoryCache().directory), cast(Any, None)
    servicer, context = BalancerServicer(Fleet(), 100, lambda: 0.0, sessions, placing), cast(Any, None)
    entered, over = asyncio.Event(), asyncio.Event()

    async def reports() -> AsyncIterator[pb.ReportLoadRequest]:
        instance = Instance(service="edge", instance_id="edge-1", public_url="ws://edge-1:8081")
        yield pb.ReportLoadRequest(hello=pb.EdgeHello(instance=instance))
        entered.set()
        await over.wait()

    stream = cast(AsyncGenerator[pb.ReportLoadResponse, None], servicer.ReportLoad(reports(), context))
    first = asyncio.ensure_future(anext(stream))
    await entered.wait()
    order = pb.DrainEdgeRequest(instance_id="edge-1")
    await servicer.DrainEdge(order, context)
    await first
    for _ in range(ORDERS):
        await servicer.DrainEdge(order, context)
    with pytest.raises(errors.TidingsError) as refused:
        await servicer.DrainEdge(order, context)
    assert refused.value.code == error_pb2.ERROR_CODE_OVERLOADED
    await stream.aclose()


@pytest.mark.parametrize(
    ("first", "field"),
    [
        (pb.ReportLoadRequest(load=pb.EdgeLoad(connections=1)), "hello"),
        (pb.ReportLoadRequest(), "hello"),
        (pb.ReportLoadRequest(hello=pb.EdgeHello()), "hello.instance"),
        (pb.ReportLoadRequest(hello=pb.EdgeHello(instance=Instance(service="router", instance_id="r"))), "hello.instance"),
        (
            pb.ReportLoadRequest(hello=pb.EdgeHello(instance=Instance(service="edge", instance_id="e", public_url="gopher://x"))),
            "hello.instance.public_url",
        ),
    ],
)
async def test_a_stream_that_does_not_introduce_an_edge_is_ended_by_name(
    start: Start, first: pb.ReportLoadRequest, field: str
) -> None:
    async with start() as balancer:
        call = balancer.stub.ReportLoad()
        await call.write(first)
        error = await ended_with(call)
        assert (error.code, error.field) == (error_pb2.ERROR_CODE_INVALID_FIELD, field)
        assert await listed(balancer) == []


async def test_a_second_hello_ends_the_stream_and_forgets_the_edge(start: Start) -> None:
    async with start() as balancer:
        edge = balancer.edge("edge-1")
        await edge.hello()
        await edge.call.write(pb.ReportLoadRequest(hello=pb.EdgeHello(instance=edge.instance)))
        assert (await ended_with(edge.call)).field == "hello"
        assert await listed(balancer) == []


async def test_an_edge_that_breaks_off_is_forgotten(start: Start) -> None:
    async with start() as balancer:
        edge, witness = balancer.edge("edge-1"), balancer.edge("edge-2")
        await edge.hello()
        await witness.hello()
        edge.call.cancel()
        while len(await listed(balancer)) > 1:
            pass
        assert (await listed(balancer))[0].instance.instance_id == "edge-2"


async def test_it_registers_and_stops_without_waiting_for_streams(start: Start) -> None:
    async with asyncio.timeout(5):
        async with start(drain_seconds=60) as balancer:
            registry, edge = balancer.registry, balancer.edge("edge-1")
            await edge.hello()
            nodes = await anext(registry.watch("balancer"))
            assert list(nodes.values()) == [balancer.instance]
            assert balancer.instance.grpc_address
    assert await anext(registry.watch("balancer")) == {}

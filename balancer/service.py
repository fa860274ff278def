"""gRPC in, one call of the fleet, gRPC out.

An edge's ReportLoad stream carries its reports in and its orders out. Orders queue per edge: at most ORDERS of them, past which
the caller is refused, because an edge that takes none is better looked at than told more.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import structlog

from balancer.fleet import Connection, Edge, Fleet, Load, Profile
from balancer.placing import Placing
from balancer.rebalance import Rebalance
from balancer.sessions import Sessions
from mesh import errors, naming
from mesh.batching import Batcher, Closed
from mesh.cache import SessionRecord
from tidings.balancer.v1 import balancer_pb2 as pb
from tidings.balancer.v1 import balancer_pb2_grpc
from tidings.common.v1.instance_pb2 import Instance

HELLO_SECONDS = 10.0  # a stream that says nothing is no edge
ORDERS = 16
DEFAULT_DRAIN = timedelta(seconds=30)
MAX_DRAIN = timedelta(hours=1)
DEFAULT_MOVES_PER_SECOND = 100
MAX_MOVES_PER_SECOND = 10_000  # more would be the storm that the bound is there to prevent

_log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True, eq=False)
class _Stream:
    edge: Edge
    instance: Instance
    orders: Batcher[pb.ReportLoadResponse]


class BalancerServicer(balancer_pb2_grpc.BalancerServiceServicer):
    """See proto/tidings/balancer/v1.

    Args:
        fleet: told what edges report.
        default_capacity: connections of an edge that names none.
        clock: seconds, never going back.
        sessions: looks up where users are.
        placing: answers edges that ask where their clients shall go.
    """

    def __init__(
        self, fleet: Fleet, default_capacity: int, clock: Callable[[], float], sessions: Sessions, placing: Placing
    ) -> None:
        self._fleet = fleet
        self._placing = placing
        self._sessions = sessions
        self._default_capacity = default_capacity
        self._clock = clock
        self._rebalance = Rebalance()
        self._streams: dict[str, _Stream] = {}
        self._closed = False

    def close(self) -> None:
        """End every stream, so that the server needn't wait for them; edges go to another balancer, or come back."""
        self._closed = True
        for stream in self._streams.values():
            stream.orders.close()

    async def ReportLoad(
        self, request_iterator: AsyncIterator[pb.ReportLoadRequest], context: Context
    ) -> AsyncIterator[pb.ReportLoadResponse]:
        """Hold an edge's stream: reports in, orders out."""
        try:
            stream = self._enter(await _hello(request_iterator))
        except errors.TidingsError as error:
            await context.abort_with_status(error.to_status())
        reader = asyncio.create_task(self._follow(stream, request_iterator))
        try:
            with contextlib.suppress(Closed):
                while True:
                    for order in await stream.orders.take():
                        yield order
        finally:
            reader.cancel()
            self._leave(stream)
        await _end(reader, context)

    async def ListEdges(self, request: pb.ListEdgesRequest, context: Context) -> pb.ListEdgesResponse:
        """The edges, with their load."""
        self._fleet.expire(self._clock())
        return pb.ListEdgesResponse(edges=[_edge(self._streams[edge.profile.edge_id]) for edge in self._fleet.edges()])

    async def DrainEdge(self, request: pb.DrainEdgeRequest, context: Context) -> pb.DrainEdgeResponse:
        """Give the edge nothing more, and tell it to leave."""
        stream = self._streams.get(request.instance_id)
        if stream is None:
            raise errors.invalid_field(
                "instance_id", f"no edge {request.instance_id!r} reports here: ListEdges names those that do"
            )
        over = request.over.ToTimedelta() if request.HasField("over") else DEFAULT_DRAIN
        if not timedelta(0) <= over <= MAX_DRAIN:
            raise errors.invalid_field("over", f"0 s to {MAX_DRAIN.total_seconds():.0f} s are allowed")
        order = pb.ReportLoadResponse(drain=pb.Drain())
        order.drain.over.FromTimedelta(over)
        _send(stream, order)
        self._fleet.drain(stream.edge)
        _log.info("draining", edge=request.instance_id, over=over.total_seconds())
        return pb.DrainEdgeResponse(connections=stream.edge.connections)

    async def Rebalance(self, request: pb.RebalanceRequest, context: Context) -> pb.RebalanceResponse:
        """Order those above the average to shed."""
        per_second = request.connections_per_second or DEFAULT_MOVES_PER_SECOND
        if per_second > MAX_MOVES_PER_SECOND:
            raise errors.invalid_field("connections_per_second", f"at most {MAX_MOVES_PER_SECOND} are allowed")
        return pb.RebalanceResponse(connections=self.level(per_second, 0.0))

    def level(self, per_second: int, tolerance: float) -> int:
        """Begin a round of rebalancing, as `Rebalance.round` does; gives the connections ordered away.

        Raises:
            TidingsError: OVERLOADED or UNAVAILABLE, an edge takes no orders.
        """
        now = self._clock()
        orders, seconds = self._rebalance.round(self._fleet.nodes(now), per_second, now, tolerance)
        for edge_id, connections in orders.items():
            order = pb.ReportLoadResponse(shed=pb.Shed(connections=connections))
            order.shed.over.FromTimedelta(timedelta(seconds=seconds))
            _send(self._streams[edge_id], order)
        if orders:
            _log.info("rebalancing", orders=orders, seconds=seconds)
        return sum(orders.values())

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """Where a user is."""
        if not naming.USER_ID.fullmatch(request.user_id):
            raise errors.invalid_field("user_id", "a user's id is needed")
        found = await self._sessions.of_user(request.user_id)
        return pb.ListSessionsResponse(sessions=map(_session, found))

    def _enter(self, hello: pb.EdgeHello) -> _Stream:
        if self._closed:
            raise errors.unavailable("this balancer is stopping: report to another")
        profile = _profile(hello.instance, self._default_capacity)
        older = self._streams.get(profile.edge_id)
        if older is not None:
            older.orders.close()
        edge = self._fleet.enter(profile, map(_connection, hello.connections), self._clock())
        stream = _Stream(edge, hello.instance, Batcher(ORDERS, ORDERS))
        self._streams[profile.edge_id] = stream
        if hello.instance.draining:
            self._fleet.drain(edge)
        _log.info("edge entered", edge=profile.edge_id, url=profile.url, connections=edge.connections)
        return stream

    async def _follow(self, stream: _Stream, requests: AsyncIterator[pb.ReportLoadRequest]) -> None:
        try:
            async for request in requests:
                if request.HasField("hello"):
                    raise errors.invalid_field("hello", "it comes once, first on the stream")
                if request.HasField("load"):
                    self._fleet.report(stream.edge, _load(request.load), self._clock())
                if request.HasField("place"):
                    await self._place(stream, request.place)
        finally:
            stream.orders.close()

    async def _place(self, stream: _Stream, asked: pb.PlaceConnections) -> None:
        """Answer each question, in order; an edge that takes no answers is read from no more."""
        answer = await self._placing.answer(asked, stream.edge)
        with contextlib.suppress(Closed):
            await stream.orders.put(pb.ReportLoadResponse(placements=answer))

    def _leave(self, stream: _Stream) -> None:
        self._fleet.leave(stream.edge)
        edge_id = stream.edge.profile.edge_id
        if self._streams.get(edge_id) is stream:
            del self._streams[edge_id]
            _log.info("edge left", edge=edge_id)


async def _hello(requests: AsyncIterator[pb.ReportLoadRequest]) -> pb.EdgeHello:
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            first = await anext(requests)
    except (TimeoutError, StopAsyncIteration):
        raise errors.invalid_field("hello", f"the stream must begin with it, within {HELLO_SECONDS:.0f} s") from None
    if not first.HasField("hello"):
        raise errors.invalid_field("hello", "the stream must begin with it")
    return first.hello


async def _end(reader: asyncio.Task[None], context: Context) -> None:
    """Say why the edge's side ended, when that was a fault of its."""
    result = (await asyncio.gather(reader, return_exceptions=True))[0]
    if isinstance(result, errors.TidingsError):
        await context.abort_with_status(result.to_status())


def _profile(instance: Instance, default_capacity: int) -> Profile:
    if instance.service != "edge" or not instance.instance_id:
        raise errors.invalid_field("hello.instance", "service must be edge, and instance_id must be set")
    if not instance.public_url.startswith(("ws://", "wss://")):
        raise errors.invalid_field("hello.instance.public_url", "a ws:// or wss:// URL is needed: clients are told it")
    capacity = instance.capacity or default_capacity
    return Profile(instance.instance_id, instance.public_url.rstrip("/"), instance.zone, capacity)


def _connection(connection: pb.Connection) -> Connection:
    return Connection.of(connection.ip, connection.user_id)


def _load(load: pb.EdgeLoad) -> Load:
    return Load(
        connections=load.connections,
        opened=tuple(map(_connection, load.opened)),
        closed=tuple(map(_connection, load.closed)),
        arrived=tuple(load.arrived_ticket_ids),
        draining=load.draining,
        loop_lag_us=load.loop_lag_us,
    )


def _edge(stream: _Stream) -> pb.Edge:
    edge, instance = stream.edge, Instance()
    instance.CopyFrom(stream.instance)
    instance.draining = edge.draining
    return pb.Edge(
        instance=instance,
        connections=edge.connections,
        assignments_under_way=len(edge.under_way),
        loop_lag_us=edge.loop_lag_us,
    )


def _session(session: SessionRecord) -> pb.UserSession:
    return pb.UserSession(edge_id=session.edge_id, device_id=session.device_id, connected_time_ms=session.connected_ms)


def _send(stream: _Stream, order: pb.ReportLoadResponse) -> None:
    try:
        taken = stream.orders.offer(order)
    except Closed:
        raise errors.unavailable("the edge has just left") from None
    if not taken:
        raise errors.overloaded(1.0, f"the stream of {stream.edge.profile.edge_id}")

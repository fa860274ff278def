"""Clients that move: places for those who must leave, and rebalancing by itself."""

import asyncio
import time
from collections import Counter
from random import Random
from typing import Any

import grpc
import pytest

from balancer.door import Caps, Door, Mover
from balancer.fleet import Connection, Edge, Fleet, Load, Profile
from balancer.leveller import Leveller
from balancer.placing import MAX_CONNECTIONS
from balancer.policies.two_choices import two_choices
from balancer.service import BalancerServicer
from mesh import errors
from mesh.credentials import TICKET_SECONDS, Identity, TicketIssuer, TicketVerifier
from tests.balancer.conftest import TICKET_SECRET, Running, Start
from tidings.balancer.v1 import balancer_pb2 as pb
from tidings.common.v1 import error_pb2
from tidings.common.v1.instance_pb2 import Instance

WALL = 1_000_000.0
HERE = "10.0.0.1"


def door(fleet: Fleet, per_network: int = 0, per_user: int = 0) -> Door:
    return Door(fleet, two_choices, TicketIssuer(TICKET_SECRET), Caps(per_network, per_user, 2.0), Random(0))


def mover(user_id: str = "alice", wait: float = 0.0) -> Mover:
    return Mover(Identity(user_id, WALL + 3600), HERE, wait)


def entered(fleet: Fleet, edge_id: str, connections: int = 0, user_id: str = "", zone: str = "") -> Edge:
    there = [Connection.of(HERE if user_id else "", user_id or str(number)) for number in range(connections)]
    return fleet.enter(Profile(edge_id, f"ws://{edge_id}", zone, 100), there, 0.0)


def test_who_leaves_is_not_refused_for_being_counted_where_they_leave() -> None:
    fleet = Fleet()
    old, new = entered(fleet, "edge-1", 2, "alice"), entered(fleet, "edge-2")
    asked = door(fleet, per_user=2, per_network=2)
    for _ in range(2):
        assert asked.move(mover(), old, 0.0, WALL).url == "ws://edge-2"
    with pytest.raises(errors.TidingsError):
        asked.admit(Identity("alice", WALL), HERE, "", 0.0, WALL)
    assert len(new.under_way) == 2
    fleet.report(new, Load(1, opened=(Connection.of(HERE, "alice"),)), 0.0)  # arrived, and not yet reported gone there
    with pytest.raises(errors.TidingsError) as refused:
        asked.move(mover(), old, 0.0, WALL)
    assert refused.value.code == error_pb2.ERROR_CODE_TOO_MANY_CONNECTIONS


def test_a_ticket_holds_until_half_a_minute_after_the_appointment_and_counts_as_load_so_long() -> None:
    fleet = Fleet()
    old, new = entered(fleet, "edge-1", 1), entered(fleet, "edge-2")
    fleet.drain(old)
    place = door(fleet).move(mover(wait=4.0), old, 0.0, WALL)
    door(fleet).admit(Identity("bob", WALL), HERE, "", 1.0, WALL)  # its ticket runs out before
    door(fleet).move(mover(wait=9.0), old, 2.0, WALL)
    late = TICKET_SECONDS + 4.0
    assert place.ticket.expires == WALL + late
    identity, ticket_id = TicketVerifier(TICKET_SECRET, "edge-2").verify(place.ticket.text, WALL + late - 1)
    assert (identity, ticket_id) == (Identity("alice", WALL + 3600), place.ticket.ticket_id)
    assert ticket_id in new.under_way
    under_way = []
    for now in (TICKET_SECONDS + 1.0, late, TICKET_SECONDS + 11.0):
        fleet.expire(now)
        under_way.append(fleet.assignments_under_way)
    assert under_way == [2, 1, 0]
    assert ticket_id not in new.under_way


def test_nobody_is_sent_where_they_come_from_nor_where_others_leave() -> None:
    fleet = Fleet()
    old, leaving, new = entered(fleet, "edge-1"), entered(fleet, "edge-2"), entered(fleet, "edge-3", 90)
    for edge in (old, leaving):
        fleet.drain(edge)
    assert {door(fleet).move(mover(), old, 0.0, WALL).url for _ in range(10)} == {"ws://edge-3"}
    fleet.drain(new)
    with pytest.raises(errors.TidingsError) as refused:
        door(fleet).move(mover(), old, 0.0, WALL)
    assert refused.value.code == error_pb2.ERROR_CODE_NO_CAPACITY


def test_an_edge_that_stays_sheds_to_those_less_full_than_itself_only() -> None:
    fleet = Fleet()
    full, fuller, empty = entered(fleet, "edge-1", 50), entered(fleet, "edge-2", 60), entered(fleet, "edge-3")
    chosen = Counter(door(fleet).move(mover(), full, 0.0, WALL).url for _ in range(50))
    assert chosen == {"ws://edge-3": 50}
    with pytest.raises(errors.TidingsError):
        door(fleet).move(mover(), full, 0.0, WALL)
    fleet.drain(full)
    assert door(fleet).move(mover(), full, 0.0, WALL)
    assert fuller.node.under_way + empty.node.under_way == 51


def test_the_zone_of_the_edge_that_is_left_comes_first() -> None:
    fleet = Fleet()
    old = entered(fleet, "edge-1", zone="east")
    entered(fleet, "edge-2", 90, zone="east")
    entered(fleet, "edge-3", zone="west")
    fleet.drain(old)
    assert door(fleet).move(mover(), old, 0.0, WALL).url == "ws://edge-2"


def question(*users: str, wait_ms: int = 0) -> pb.ReportLoadRequest:
    connections = [
        pb.PlaceConnection(connection=number, user_id=user, ip=HERE, session_expires=int(WALL), leaves_in_ms=wait_ms)
        for number, user in enumerate(users, 7)
    ]
    return pb.ReportLoadRequest(place=pb.PlaceConnections(connections=connections))


async def ordered(call: Any) -> pb.ReportLoadResponse:
    """What comes next on an edge's stream."""
    order = await asyncio.wait_for(call.read(), 10)
    assert isinstance(order, pb.ReportLoadResponse)
    return order


async def placements(call: Any) -> pb.Placements:
    order = await ordered(call)
    assert order.HasField("placements"), order
    return order.placements


async def under_way(balancer: Running, edge_id: str) -> int:
    listed = (await balancer.stub.ListEdges(pb.ListEdgesRequest())).edges
    return next(edge.assignments_under_way for edge in listed if edge.instance.instance_id == edge_id)


async def test_an_edge_is_told_where_its_clients_can_go_and_who_has_no_place_is_left_out(start: Start) -> None:
    async with start(connections_per_user=1) as balancer:
        old, new = balancer.edge("edge-1"), balancer.edge("edge-2", capacity=3)
        await old.hello(*((HERE, user) for user in ("alice", "bob", "carol", "carol", "dave", "eve")))
        await old.call.write(question("alice"))
        assert not (await placements(old.call)).placements, "there is no other edge: an answer comes all the same"
        await new.hello()
        await old.load(connections=6, draining=True)
        await old.call.write(question("alice", "carol", "bob", "dave", "eve", wait_ms=3000))
        found = {one.connection: one for one in (await placements(old.call)).placements}
        assert list(found) == [7, 9, 10], "carol is above her cap, and for eve there is no room"
        assert {one.url for one in found.values()} == {"ws://edge-2:8081"}
        assert await under_way(balancer, "edge-2") == 3

        identity, ticket_id = TicketVerifier(TICKET_SECRET, "edge-2").verify(found[9].ticket, time.time())
        assert identity == Identity("bob", WALL)
        await new.load(connections=1, arrived_ticket_ids=[ticket_id])
        assert await under_way(balancer, "edge-2") == 2


async def test_too_many_at_once_are_refused_by_name(start: Start) -> None:
    async with start() as balancer:
        edge = balancer.edge("edge-1")
        await edge.hello()
        await edge.call.write(question(*["alice"] * (MAX_CONNECTIONS + 1)))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await asyncio.wait_for(edge.call.read(), 10)
        error = errors.from_rpc_error(raised.value)
        assert (error.code, error.field) == (error_pb2.ERROR_CODE_INVALID_FIELD, "place.connections")


class Orders:
    """In the place of a servicer: notes what is ordered."""

    def __init__(self) -> None:
        self.given: list[tuple[int, float]] = []

    def level(self, per_second: int, tolerance: float) -> int:
        self.given.append((per_second, tolerance))
        return 1


def test_of_several_balancers_the_first_that_stays_orders() -> None:
    orders: Any = Orders()
    first, second = (Leveller(orders, name, 30.0, 100, 0.1) for name in ("balancer-a", "balancer-b"))
    nodes = {name: Instance(instance_id=name) for name in ("balancer-b", "balancer-a")}
    assert first.look() == second.look() == 0, "before the registry has told who is there, nobody orders"
    for leveller in (first, second):
        leveller.on_balancers(nodes)
    assert (first.look(), second.look()) == (1, 0)
    nodes["balancer-a"].draining = True
    for leveller in (first, second):
        leveller.on_balancers(nodes)
    assert (first.look(), second.look()) == (0, 1)
    assert orders.given == [(100, 0.1)] * 2


def test_an_edge_that_takes_no_orders_does_not_end_the_leveller() -> None:
    class Full(BalancerServicer):
        def __init__(self) -> None:
            pass

        def level(self, per_second: int, tolerance: float) -> int:
            raise errors.overloaded(1.0, "the stream")

    leveller = Leveller(Full(), "balancer-a", 30.0, 100, 0.1)
    leveller.on_balancers({"balancer-a": Instance()})
    assert leveller.look() == 0


async def test_it_rebalances_by_itself(start: Start) -> None:
    async with start(rebalance_seconds=0.05, rebalance_per_second=10, rebalance_tolerance=0.2) as balancer:
        full, fair, empty = (balancer.edge(f"edge-{number}", capacity=100) for number in range(3))
        for edge, connections in ((full, 40), (fair, 28), (empty, 7)):
            await edge.hello()
            await edge.load(connections=connections)
        order = (await ordered(full.call)).shed
        assert (order.connections, order.over.ToTimedelta().total_seconds()) == (15, 1.5)
        await balancer.stub.DrainEdge(pb.DrainEdgeRequest(instance_id="edge-1"))
        assert (await ordered(fair.call)).HasField("drain"), "12 % above the average is within the tolerance"

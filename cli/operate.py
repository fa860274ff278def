"""`tidings drain`, `rebalance` and `sessions`: what operators do to edges, and ask about sessions, through a balancer."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.edges import find, name
from cli.inside import Certificates, Gate, Inside, RegistryUrl
from cli.lines import clock, utc
from cli.options import DEFAULT_DATA, Data, Json, say, say_json
from tidings.balancer.v1 import balancer_pb2 as pb
from tidings.balancer.v1.balancer_pb2_grpc import BalancerServiceStub

WATCH_SECONDS = 1.0

app = typer.Typer(rich_markup_mode="rich")

EdgeArgument = Annotated[
    str, typer.Argument(help="Its id or a part of it, its name in `tidings up` (edge-2), or its port.", metavar="EDGE")
]
Over = Annotated[
    float, typer.Option("--over", help="Spread the clients' leaving over so many seconds.", min=0, max=3600, metavar="SECONDS")
]
Watch = Annotated[bool, typer.Option("--watch", help="Follow until it is empty.")]
PerSecond = Annotated[
    int, typer.Option("--per-second", help="Connections sent away per second, over all edges.", min=1, max=10_000, metavar="N")
]


@app.command(epilog="Example: [bold]tidings drain edge-2 --over 60 --watch[/bold]")
def drain(
    edge: EdgeArgument,
    over: Over = 30.0,
    watch: Watch = False,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    registry: RegistryUrl = None,
    certs: Certificates = None,
) -> None:
    """Take an edge out of service: it gets no new clients, and those it has are sent to others, spread over time."""
    gate = Gate(data, registry, certs)
    running = gate.running

    async def work(inside: Inside) -> None:
        chosen = find(await list_edges(inside), edge, running.edges if running else ())
        instance_id = chosen.instance.instance_id
        connections, until = await _order_drain(inside, instance_id, over), datetime.now(UTC).timestamp() + over
        _tell_drain(instance_id, connections, datetime.fromtimestamp(until, UTC), as_json=as_json)
        if watch:
            await _follow(inside, instance_id, as_json=as_json)

    gate.run(work)


async def _order_drain(inside: Inside, instance_id: str, over: float) -> int:
    request = pb.DrainEdgeRequest(instance_id=instance_id)
    request.over.FromNanoseconds(int(over * 1e9))
    answer: pb.DrainEdgeResponse = await inside.call("balancer", BalancerServiceStub, lambda stub: stub.DrainEdge(request))
    return answer.connections


def _tell_drain(instance_id: str, connections: int, until: datetime, *, as_json: bool) -> None:
    if as_json:
        say_json({"instance_id": instance_id, "connections": connections, "until": utc(until)})
    else:
        say(f"{instance_id} drains: {connections:,} connections leave until {clock(until, datetime.now(UTC))}")


async def _follow(inside: Inside, instance_id: str, *, as_json: bool) -> None:
    """Say how many are left whenever that changes, until none is, or the edge itself has gone."""
    began, last = time.monotonic(), -1
    while last != 0:
        edges = {edge.instance.instance_id: edge.connections for edge in await list_edges(inside)}
        left = edges.get(instance_id, 0)
        if left != last:
            last = left
            _tell_left(instance_id, left, time.monotonic() - began, gone=instance_id not in edges, as_json=as_json)
        if left:
            await asyncio.sleep(WATCH_SECONDS)


def _tell_left(instance_id: str, left: int, seconds: float, *, gone: bool, as_json: bool) -> None:
    if as_json:
        say_json({"instance_id": instance_id, "connections": left, "gone": gone, "seconds": round(seconds, 1)})
    else:
        told = "it has gone" if gone else f"{left:,} left" if left else "it is empty, and its process may be stopped"
        say(f"after {seconds:.0f} s: {told}")


@app.command(epilog="Example: [bold]tidings rebalance --per-second 50[/bold]")
def rebalance(
    per_second: PerSecond = 100,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    registry: RegistryUrl = None,
    certs: Certificates = None,
) -> None:
    """Send clients away from edges that have more than their share, so that a new edge fills; never more per second than said."""
    request = pb.RebalanceRequest(connections_per_second=per_second)

    async def work(inside: Inside) -> int:
        answer: pb.RebalanceResponse = await inside.call("balancer", BalancerServiceStub, lambda stub: stub.Rebalance(request))
        return answer.connections

    moved = Gate(data, registry, certs).run(work)
    if as_json:
        say_json({"connections": moved, "per_second": per_second})
    elif moved:
        say(f"{moved:,} connections move, at most {per_second:,} a second; again when these have moved, should some be left")
    else:
        say("no edge has more than its share")


@app.command(epilog="Example: [bold]tidings sessions alice[/bold]")
def sessions(
    user: Annotated[str, typer.Argument(help="A user id.", metavar="USER")],
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    registry: RegistryUrl = None,
    certs: Certificates = None,
) -> None:
    """List where a user is connected now."""
    gate = Gate(data, registry, certs)
    running = gate.running

    async def work(inside: Inside) -> tuple[list[pb.UserSession], dict[str, str]]:
        request = pb.ListSessionsRequest(user_id=user)
        found = await inside.call("balancer", BalancerServiceStub, lambda stub: stub.ListSessions(request))
        return list(found.sessions), {one.instance_id: one.public_url for one in await inside.instances("edge")}

    found, urls = gate.run(work)
    for session in found:
        url = urls.get(session.edge_id, "")
        if as_json:
            say_json(_session_json(session, url))
        else:
            say(_session_line(session, url, name(url, running.edges if running else ())))
    if not found and not as_json:
        say(f"{user} is not connected")


def _session_json(session: pb.UserSession, url: str) -> dict[str, Any]:
    since = utc(_since(session)) if session.connected_time_ms else None
    return {"edge_id": session.edge_id, "edge_url": url, "device_id": session.device_id, "connected_time": since}


def _session_line(session: pb.UserSession, url: str, called: str) -> str:
    since = f"since {clock(_since(session), datetime.now(UTC))}" if session.connected_time_ms else ""
    return "  ".join(word for word in (called or session.edge_id, url, session.device_id or "(some device)", since) if word)


def _since(session: pb.UserSession) -> datetime:
    return datetime.fromtimestamp(session.connected_time_ms / 1000, UTC)


async def list_edges(inside: Inside) -> list[pb.Edge]:
    """The edges as a balancer knows them, by instance id."""
    found = await inside.call("balancer", BalancerServiceStub, lambda stub: stub.ListEdges(pb.ListEdgesRequest()))
    return list(found.edges)

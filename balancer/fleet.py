"""What is known of every edge: sans-IO, time passed in.

An edge is here for exactly as long as its ReportLoad stream: when the stream ends, its load, its connections and the assignments
on their way to it are forgotten at once. A second stream of the same edge replaces the first, so a connection that broke unseen
doesn't count twice.

Counted for the caps, per network and per user: connections that edges reported, and assignments under way (tickets handed out
that have neither arrived nor run out). A client that moves from one edge to another is counted at the one it leaves until that
reports it gone, so the assignment that moves it counts as load, but not for the caps. Every operation costs the same however many
edges and connections there are (the order of expiries: its logarithm). `nodes` is a view: only what is looked at is made.

Several balancers know the same reports, but each only its own assignments. So one sees an edge emptier than it is by what the
others have assigned to it and it has not yet reported: what they assign in the time from a ticket to its arrival's report, some
0.2 s. That is the most by which a herd can overshoot at an edge that has just come; the edge's own capacity is never exceeded.

This module must not know streams, tickets' texts, tokens, or HTTP.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import overload

from balancer.policies.node import Node
from mesh.addresses import network

SILENCE_SECONDS = 6.0  # an edge reports at least every 2 s; one that missed three is stuck, though its stream still stands


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection for the caps; `network` is the client's address as `address.network` gives it, "" when unknown."""

    network: str
    user_id: str

    @classmethod
    def of(cls, ip: str, user_id: str) -> "Connection":
        """From a client's address."""
        return cls(network(ip), user_id)


@dataclass(frozen=True, slots=True)
class Profile:
    """What an edge says of itself once; capacity in connections, at least 1."""

    edge_id: str
    url: str
    zone: str
    capacity: int


@dataclass(frozen=True, slots=True)
class Load:
    """What an edge reports; see EdgeLoad in the contract."""

    connections: int
    opened: tuple[Connection, ...] = ()
    closed: tuple[Connection, ...] = ()
    arrived: tuple[str, ...] = ()
    draining: bool = False
    loop_lag_us: int = 0


@dataclass(slots=True, eq=False)
class Edge:
    """One edge under one stream. Others read it; only `Fleet` changes it."""

    profile: Profile
    heard: float
    connections: int = 0
    draining: bool = False
    loop_lag_us: int = 0
    open: Counter[Connection] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)  # of `open`, by user
    under_way: set[str] = field(default_factory=set)

    @property
    def node(self) -> Node:
        """The edge as a policy sees it."""
        return self.node_at(self.heard)

    def node_at(self, now: float) -> Node:
        """The same at that time: one that is silent takes nobody."""
        profile, leaves = self.profile, self.draining or now - self.heard >= SILENCE_SECONDS
        return Node(profile.edge_id, profile.zone, self.connections, len(self.under_way), profile.capacity, leaves)


class _Nodes(Sequence[Node]):
    """Edges as policies see them, each made when it is looked at: who places one client looks at a few of a thousand."""

    def __init__(self, edges: Sequence[Edge], now: float) -> None:
        self._edges = edges
        self._now = now

    def __len__(self) -> int:
        return len(self._edges)

    @overload
    def __getitem__(self, at: int) -> Node: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Node]: ...
    def __getitem__(self, at: int | slice) -> Node | Sequence[Node]:
        return _Nodes(self._edges[at], self._now) if isinstance(at, slice) else self._edges[at].node_at(self._now)


@dataclass(frozen=True, slots=True)
class _Assignment:
    ticket_id: str
    edge: Edge
    connection: Connection | None  # None: counted elsewhere, where the client is still


class Fleet:
    """All edges of one balancer. Times are seconds of any clock that doesn't go back."""

    def __init__(self) -> None:
        self._edges: dict[str, Edge] = {}
        self._listed: list[Edge] = []  # the same, to be picked from
        self._assignments: dict[str, _Assignment] = {}
        self._expiries: list[tuple[float, str]] = []  # a heap of (when, ticket id), for lives differ
        self._by_network: Counter[str] = Counter()
        self._by_user: Counter[str] = Counter()

    def enter(self, profile: Profile, connections: Iterable[Connection], now: float) -> Edge:
        """An edge opened its stream. An older stream of the same edge is forgotten; `holds` tells its holder."""
        older = self._edges.get(profile.edge_id)
        if older is not None:
            self.leave(older)
        edge = self._edges[profile.edge_id] = Edge(profile, now)
        self._listed.append(edge)
        for connection in connections:
            self._open(edge, connection)
        edge.connections = edge.open.total()
        return edge

    def leave(self, edge: Edge) -> None:
        """The edge's stream ended. Does nothing for one already forgotten."""
        if not self.holds(edge):
            return
        del self._edges[edge.profile.edge_id]
        self._listed.remove(edge)
        for connection, count in edge.open.items():
            self._count(connection, -count)
        for ticket_id in list(edge.under_way):
            self._forget(ticket_id)

    def holds(self, edge: Edge) -> bool:
        """Whether this stream's edge is still the one known under its id."""
        return self._edges.get(edge.profile.edge_id) is edge

    def report(self, edge: Edge, load: Load, now: float) -> None:
        """Take in a report. One of a forgotten stream changes nothing; neither does the closing of what never opened."""
        if not self.holds(edge):
            return
        edge.heard = now
        edge.connections, edge.loop_lag_us = load.connections, load.loop_lag_us
        edge.draining = edge.draining or load.draining  # nobody comes back from draining
        for connection in load.opened:
            self._open(edge, connection)
        for connection in load.closed:
            self._close(edge, connection)
        for ticket_id in load.arrived:
            if ticket_id in edge.under_way:
                self._forget(ticket_id)

    def drain(self, edge: Edge) -> None:
        """Give the edge nothing more."""
        edge.draining = True

    def assign(self, edge_id: str, ticket_id: str, connection: Connection | None, expires: float) -> None:
        """A ticket for this edge was handed out.

        Args:
            connection: what it will be; None for a client that moves, which is counted where it is.
            expires: when the ticket runs out: what has not arrived by then never will.

        Raises:
            KeyError: no such edge.
        """
        edge = self._edges[edge_id]
        self._assignments[ticket_id] = _Assignment(ticket_id, edge, connection)
        heapq.heappush(self._expiries, (expires, ticket_id))
        edge.under_way.add(ticket_id)
        if connection is not None:
            self._count(connection, 1)

    def expire(self, now: float) -> None:
        """Forget assignments that have run out. Call it before reading what follows."""
        while self._expiries and self._expiries[0][0] <= now:
            self._forget(heapq.heappop(self._expiries)[1])

    def count(self, connection: Connection) -> tuple[int, int]:
        """Connections and assignments of this connection's network and of its user; an unknown network counts none."""
        return self._by_network[connection.network] if connection.network else 0, self._by_user[connection.user_id]

    def nodes(self, now: float) -> Sequence[Node]:
        """Every edge, as policies see it; of use until something changes."""
        return _Nodes(self._listed, now)

    def connections_of(self, user_id: str) -> dict[str, int]:
        """How many connections of a user each edge reported, by edge id; edges without any are left out."""
        return {edge_id: edge.users[user_id] for edge_id, edge in sorted(self._edges.items()) if edge.users[user_id]}

    def edges(self) -> list[Edge]:
        """Every edge, by id."""
        return [edge for _, edge in sorted(self._edges.items())]

    def edge(self, edge_id: str) -> Edge | None:
        """One edge."""
        return self._edges.get(edge_id)

    @property
    def assignments_under_way(self) -> int:
        """Tickets on their way, in all."""
        return len(self._assignments)

    def _open(self, edge: Edge, connection: Connection) -> None:
        edge.open[connection] += 1
        edge.users[connection.user_id] += 1
        self._count(connection, 1)

    def _close(self, edge: Edge, connection: Connection) -> None:
        if edge.open[connection] > 1:
            edge.open[connection] -= 1
        elif edge.open.pop(connection, 0) == 0:
            return
        edge.users[connection.user_id] -= 1
        if not edge.users[connection.user_id]:
            del edge.users[connection.user_id]
        self._count(connection, -1)

    def _forget(self, ticket_id: str) -> None:
        assignment = self._assignments.pop(ticket_id, None)
        if assignment is None:
            return
        assignment.edge.under_way.discard(ticket_id)
        if assignment.connection is not None:
            self._count(assignment.connection, -1)

    def _count(self, connection: Connection, change: int) -> None:
        for counts, key in ((self._by_network, connection.network), (self._by_user, connection.user_id)):
            counts[key] += change
            if counts[key] <= 0:
                del counts[key]

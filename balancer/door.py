"""Who may come in, and where: sans-IO, time passed in.

Caps first, then the policy, then the ticket. The assignment counts from the moment its ticket exists. Who moves from one edge to
another goes through the same, but isn't refused for still being counted where they leave.

This module must not know HTTP, gRPC, or how an edge reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from balancer.fleet import Connection, Edge, Fleet
from balancer.policies.node import Asker, Node, Policy
from mesh import errors
from mesh.credentials import TICKET_SECONDS, Identity, Ticket, TicketIssuer

ALTERNATIVES = 2  # enough to get past one dead edge without asking again
SOME = 8  # nodes among which they are looked for


@dataclass(frozen=True, slots=True)
class Caps:
    """Most connections, open or about to open; 0 is no cap. `retry_after` is in seconds, at least so long and at most twice."""

    per_network: int
    per_user: int
    retry_after: float


@dataclass(frozen=True, slots=True)
class Admission:
    """Where a client goes; URLs are the edges' public ones."""

    url: str
    ticket: Ticket
    alternatives: list[str]


@dataclass(frozen=True, slots=True)
class Mover:
    """A client that leaves an edge in `wait` seconds."""

    identity: Identity
    ip: str
    wait: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mover goes; the URL is the edge's public one."""

    url: str
    ticket: Ticket


class Door:
    """Assigns clients to edges."""

    def __init__(self, fleet: Fleet, policy: Policy, issuer: TicketIssuer, caps: Caps, random: Random) -> None:
        self._fleet = fleet
        self._policy = policy
        self._issuer = issuer
        self._caps = caps
        self._random = random

    def admit(self, identity: Identity, ip: str, zone: str, now: float, wall: float) -> Admission:
        """Give an authenticated user an edge and a ticket.

        Args:
            identity: who.
            ip: the client's address.
            zone: where the client is, or "".
            now: seconds of the fleet's clock.
            wall: Unix seconds, for the ticket.

        Raises:
            TidingsError: TOO_MANY_CONNECTIONS or NO_CAPACITY, both with `retry_after`.
        """
        self._fleet.expire(now)
        connection = Connection.of(ip, identity.user_id)
        self._check_caps(connection, 0)
        asker = Asker(identity.user_id, zone)
        nodes = self._fleet.nodes(now)
        chosen = self._policy(nodes, asker, self._random)
        if chosen is None:
            raise errors.no_capacity(self._retry_after())
        ticket = self._issuer.issue(identity, chosen.node_id, wall)
        self._fleet.assign(chosen.node_id, ticket.ticket_id, connection, now + TICKET_SECONDS)
        return Admission(self._url(chosen), ticket, self._alternatives(nodes, chosen, asker))

    def move(self, mover: Mover, origin: Edge, now: float, wall: float) -> Place:
        """Give a client that is to leave an edge another one, near it, and a ticket good until TICKET_SECONDS after it leaves.

        An edge that stays, and only sheds, gives to those less full than itself; one that leaves is no choice of the policy's.

        Raises:
            TidingsError: as `admit`.
        """
        self._fleet.expire(now)
        self._check_caps(Connection.of(mover.ip, mover.identity.user_id), 1)
        left, nodes = origin.node, self._fleet.nodes(now)
        if not left.draining:
            nodes = [node for node in nodes if node.fullness < left.fullness]
        chosen = self._policy(nodes, Asker(mover.identity.user_id, left.zone), self._random)
        if chosen is None:
            raise errors.no_capacity(self._retry_after())
        ticket = self._issuer.issue(mover.identity, chosen.node_id, wall, mover.wait)
        self._fleet.assign(chosen.node_id, ticket.ticket_id, None, now + mover.wait + TICKET_SECONDS)
        return Place(self._url(chosen), ticket)

    def _check_caps(self, connection: Connection, counted: int) -> None:
        """Refuse what is above a cap; `counted` of the connections there are is this one itself."""
        of_network, of_user = self._fleet.count(connection)
        if 0 < self._caps.per_network <= of_network - counted:
            raise errors.too_many_connections("your address", self._caps.per_network, self._retry_after())
        if 0 < self._caps.per_user <= of_user - counted:
            raise errors.too_many_connections("this user", self._caps.per_user, self._retry_after())

    def _alternatives(self, nodes: Sequence[Node], chosen: Node, asker: Asker) -> list[str]:
        """The policy's choice among a few other nodes: which of a thousand it would be makes no odds."""
        some = self._random.sample(nodes, min(len(nodes), SOME))
        others = [node for node in some if node.node_id != chosen.node_id]
        urls: list[str] = []
        while len(urls) < ALTERNATIVES and (node := self._policy(others, asker, self._random)) is not None:
            urls.append(self._url(node))
            others.remove(node)
        return urls

    def _url(self, node: Node) -> str:
        edge = self._fleet.edge(node.node_id)
        assert edge is not None, "nodes come from the fleet, and nothing has awaited since"  # noqa: S101
        return edge.profile.url

    def _retry_after(self) -> float:
        """Spread, so that those refused together don't come back together."""
        return self._caps.retry_after * (1 + self._random.random())

"""Everybody of the lost edges comes back: virtual time, seeded, on the cores that decide it in earnest.

Real: the SDK's `Reconnect` for every client, each balancer's `Fleet` and `Door` with its policy, tickets under way, what edges
report and when. Measured elsewhere and given: sessions a second of an edge, clients a second of a balancer. Assumed: the network
takes no time, clients reach balancers evenly (by DNS or a load balancer in front), and wait as long as the SDK does (10 s for each
answer).

One simulated client stands for `unit` people: the paces of edges and balancers, and the sessions that edges hold, are divided by
it. Edges and balancers may themselves be a share of a larger fleet, for all that happens is between one client, one balancer and
one edge.
"""

import contextlib
import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from balancer import policies
from balancer.door import Caps, Door
from balancer.fleet import Connection, Fleet, Load, Profile
from bench.simulation.desk import AppointedError, Desk
from mesh import errors
from mesh.credentials import TICKET_SECONDS, Identity, Ticket, TicketIssuer
from tidings_client.reconnect import Again, Ended, Reconnect

REPORT_SECONDS = 0.1  # between an edge's reports, when something changed
QUIET_SECONDS = 2.0  # between them when nothing did
PATIENCE_SECONDS = 10.0  # of the SDK: for a balancer's answer, and for the WebSocket to open
BACKOFF_BASE, BACKOFF_MAX, RETRY_AFTER = 0.5, 30.0, 2.0  # BalancerSettings' defaults


@dataclass(frozen=True, slots=True)
class StormOptions:
    """What happens.

    Attributes:
        edges: simulated, before any is lost.
        users: people online at them.
        lost: share of the edges that is gone at time 0.
        capacity: sessions a second that an edge lets in.
        balancers: simulated.
        admits: clients a second that a balancer places.
        wasted: share of the work that balancers and edges do for clients that have gone away.
        bound: seconds of waiting above which balancers and edges give appointments; 0 never: as they are.
        notice: the first and the last second at which clients notice that they are cut off.
        unit: people for whom a simulated client stands.
        limit: seconds after which the simulation ends, whoever is back.
    """

    edges: int = 100
    users: int = 10_000_000
    lost: float = 0.1
    capacity: float = 500.0
    balancers: int = 2
    admits: float = 1_400.0
    wasted: float = 1.0
    bound: float = 0.0
    notice: tuple[float, float] = (0.0, 0.0)
    unit: int = 100
    seed: int = 1
    limit: float = 1_800.0


@dataclass(slots=True)
class Storm:
    """How it went; people, not simulated clients. `back` and `attempts` are by second.

    Attributes:
        appointed: answers that asked to come again at a time.
        waited: attempts given up for want of an answer, by whom.
        polling: of those who are back, who took to long polling because two WebSockets in a row did not open.
        astray: people who are at the end neither back nor waiting, or both.
        most, average: sessions of the fullest surviving edge at the end, and of all.
    """

    cut_off: int = 0
    back: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    appointed: int = 0
    waited: Counter[str] = field(default_factory=Counter)
    polling: int = 0
    astray: int = 0
    most: int = 0
    average: float = 0.0

    def seconds_until(self, share: float) -> float:
        """Until so many of those cut off are back; infinite when they are not."""
        wanted, total = share * self.cut_off, 0
        for second, count in enumerate(self.back):
            total += count
            if total >= wanted:
                return second + 1.0
        return math.inf


class _Issuer(TicketIssuer):
    """Tickets that nobody reads: what signing takes is part of a balancer's pace."""

    def __init__(self) -> None:
        self._count = 0

    def issue(self, identity: Identity, edge_id: str, now: float, wait: float = 0.0) -> Ticket:
        """See TicketIssuer."""
        self._count += 1
        return Ticket("", f"t{self._count}", now + wait + TICKET_SECONDS)


class _Balancer:
    """A balancer with its own view of the edges."""

    def __init__(self, options: StormOptions, edges: Iterable["_Edge"], random: Random) -> None:
        self.fleet, caps = Fleet(), Caps(0, 0, RETRY_AFTER)
        self.door = Door(self.fleet, policies.named("two_choices"), _Issuer(), caps, random)
        self.desk = _desk(options, options.admits)
        self._entered = {edge: self.fleet.enter(edge.profile, (), 0.0) for edge in edges}

    def hear(self, edge: "_Edge", load: Load, now: float) -> None:
        """An edge reports."""
        self.fleet.report(self._entered[edge], load, now)


class _Edge:
    """An edge that survives."""

    def __init__(self, number: int, sessions: int, options: StormOptions) -> None:
        self.profile = Profile(f"e{number}", f"ws://{number}", "", 2 * sessions + 1)
        self.sessions = sessions
        self.desk = _desk(options, options.capacity)
        self.opened: list[Connection] = []
        self.arrived: list[str] = []
        self.reported = -math.inf

    def report(self) -> Load:
        """What changed."""
        load = Load(self.sessions, tuple(self.opened), (), tuple(self.arrived))
        self.opened, self.arrived = [], []
        return load


def _desk(options: StormOptions, pace: float) -> Desk:
    return Desk(pace / options.unit, PATIENCE_SECONDS, options.wasted, options.bound)


class _Client:
    """One who was cut off."""

    __slots__ = ("identity", "reconnect")

    def __init__(self, number: int, random: Random) -> None:
        self.identity = Identity(f"u{number}", math.inf)
        self.reconnect = Reconnect(lambda limit: random.random() * limit, can_renew=True)


class Simulation:
    """One storm."""

    def __init__(self, options: StormOptions) -> None:
        self._options = options
        self._random = Random(options.seed)
        sessions = options.users // options.edges // options.unit
        lost = round(options.edges * options.lost)
        self._edges = {edge.profile.url: edge for edge in (_Edge(n, sessions, options) for n in range(options.edges - lost))}
        self._balancers = [_Balancer(options, self._edges.values(), Random(options.seed + n)) for n in range(options.balancers)]
        self._clients = [_Client(number, self._random) for number in range(sessions * lost)]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._returned = 0
        self._before = self.sessions
        self.found = Storm(cut_off=len(self._clients) * options.unit)

    @property
    def sessions(self) -> int:
        """Simulated sessions at the edges now."""
        return sum(edge.sessions for edge in self._edges.values())

    def run(self) -> Storm:
        """Until all are back, or the limit."""
        first, last = self._options.notice
        for client in self._clients:
            at = first + self._random.random() * (last - first)
            self._at(at, lambda now, client=client: self._after(client, Ended("session", 0, "lost"), now))  # type: ignore[misc]
        self._at(0.0, self._report)
        while self._events and self._returned < len(self._clients):
            now, _, event = heapq.heappop(self._events)
            if now > self._options.limit:
                break
            event(now)
        self.found.astray = abs(self.sessions - self._before - sum(self.found.back) // self._options.unit) * self._options.unit
        loads = [edge.sessions for edge in self._edges.values()]
        self.found.most, self.found.average = max(loads) * self._options.unit, sum(loads) / len(loads) * self._options.unit
        return self.found

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, event))

    def _after(self, client: _Client, ended: Ended, now: float) -> None:
        """What the SDK does about an end."""
        decision = client.reconnect.decide(ended)
        if isinstance(decision, Again):
            self._at(now + decision.wait, lambda now: self._knock(client, now))

    def _knock(self, client: _Client, now: float) -> None:
        """Ask a balancer."""
        self._tally(self.found.attempts, now)
        balancer = self._balancers[self._random.randrange(len(self._balancers))]
        answered = self._served(balancer.desk, "connect", client, now)
        if answered is not None and answered - now <= PATIENCE_SECONDS:
            self._at(answered, lambda now: self._placed(client, balancer, now))
        elif answered is not None and self._options.wasted:
            self._at(answered, lambda now: self._placed_in_vain(client, balancer, now))

    def _served(self, desk: Desk, stage: str, client: _Client, now: float) -> float | None:
        """When a desk will have served a client; None when it refused. Who will have left by then goes on from there."""
        try:
            done = desk.take(now)
        except AppointedError as later:
            self.found.appointed += self._options.unit
            self._after(client, Ended(stage, 503, "", math.ceil(later.retry_after)), now)
            return None
        if done - now > PATIENCE_SECONDS:
            self.found.waited[stage] += self._options.unit
            left = now + PATIENCE_SECONDS
            self._at(left, lambda now: self._after(client, Ended(stage, 0, "no answer"), now))
        return done

    def _placed(self, client: _Client, balancer: _Balancer, now: float) -> None:
        """A balancer gives a ticket; a WebSocket is opened with it."""
        try:
            admission = balancer.door.admit(client.identity, "", "", now, now)
        except errors.TidingsError as error:
            wait = math.ceil(error.retry_after or 0.0)
            self._after(client, Ended("connect", error.http_status, error.message, wait), now)
            return
        client.reconnect.on_hints(BACKOFF_BASE, BACKOFF_MAX)
        edge = self._edges[admission.url]
        opened = self._served(edge.desk, "open", client, now)
        if opened is not None and opened - now <= PATIENCE_SECONDS:
            self._at(opened, lambda now: self._opened(client, edge, admission.ticket.ticket_id, now))

    def _placed_in_vain(self, client: _Client, balancer: _Balancer, now: float) -> None:
        """A balancer gives a ticket to a client that has gone: it counts as under way until it runs out."""
        with contextlib.suppress(errors.TidingsError):
            balancer.door.admit(client.identity, "", "", now, now)

    def _opened(self, client: _Client, edge: _Edge, ticket_id: str, now: float) -> None:
        """A session has caught up."""
        polls = client.reconnect.prefers_poll
        client.reconnect.on_opened(websocket=not polls)
        client.reconnect.on_caught_up()
        edge.sessions += 1
        edge.opened.append(Connection.of("", client.identity.user_id))
        edge.arrived.append(ticket_id)
        self._returned += 1
        self.found.polling += polls * self._options.unit
        self._tally(self.found.back, now)

    def _report(self, now: float) -> None:
        """Edges tell every balancer."""
        for edge in self._edges.values():
            if edge.opened or now - edge.reported >= QUIET_SECONDS:
                load, edge.reported = edge.report(), now
                for balancer in self._balancers:
                    balancer.hear(edge, load, now)
        self._at(now + REPORT_SECONDS, self._report)

    def _tally(self, counts: list[int], now: float) -> None:
        second = int(now)
        counts.extend([0] * (second + 1 - len(counts)))
        counts[second] += self._options.unit


def run(options: StormOptions) -> Storm:
    """Simulate."""
    return Simulation(options).run()

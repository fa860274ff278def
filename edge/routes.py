"""Which router gets what, and what no router has answered yet. Pure: what is to be sent goes out through one function.

A request leaves only when a reply names it. When a link is lost, its requests go again, in order and with the same ids, to the
owner now. A conversation (or user) changes its router only while nothing of it is under way, so that nothing overtakes: what comes
meanwhile waits here. Bounded by number and bytes; `has_room` says so before anything is accepted.
"""

from collections.abc import Callable, Iterable

from edge.ports import Expects
from mesh import naming
from tidings.router.v1 import link_pb2

MAX_IDLE_ROUTES = 100_000  # remembered owners; past it the cache starts anew, for asking again costs only a few hashes

SendTo = Callable[[str, link_pb2.ClientEnvelope], None]


class Route:
    """Where the requests under one key go."""

    __slots__ = ("epoch", "link", "under_way", "waiting")

    def __init__(self) -> None:
        self.link: str | None = None
        self.epoch = -1
        self.under_way = 0
        self.waiting: list[Pending] = []


class Pending:
    """A request without an answer."""

    __slots__ = ("asked_at", "envelope", "expects", "key", "route", "session", "size")

    def __init__(
        self, session: int, key: str, route: Route, envelope: link_pb2.ClientEnvelope, expects: Expects, asked_at: float
    ) -> None:
        self.session = session
        self.key = key
        self.route = route
        self.envelope = envelope
        self.expects = expects
        self.asked_at = asked_at
        self.size = 128 + envelope.ByteSize()


class Routes:
    """Requests under way and their owners.

    Args:
        send: hands an envelope to the link of a router.
        max_pending, max_bytes: bounds of what is not answered.
    """

    def __init__(self, send: SendTo, max_pending: int, max_bytes: int) -> None:
        self._send = send
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._links: frozenset[str] = frozenset()
        self._epoch = 0
        self._routes: dict[str, Route] = {}
        self._pending: dict[int, Pending] = {}
        self._bytes = 0
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def has_room(self) -> bool:
        """Whether one more request should be accepted."""
        return len(self._pending) < self._max_pending and self._bytes < self._max_bytes

    def ask(self, session: int, key: str, envelope: link_pb2.ClientEnvelope, expects: Expects, now: float) -> None:
        """Put a request to the owner of `key`."""
        self._last_id += 1
        envelope.envelope_id = self._last_id
        route = self._route(key)
        pending = Pending(session, key, route, envelope, expects, now)
        self._pending[self._last_id] = pending
        self._bytes += pending.size
        if route.link is None or route.waiting or route.epoch != self._epoch:
            route.waiting.append(pending)
        else:
            route.under_way += 1
            self._send(route.link, envelope)

    def tell(self, key: str, envelope: link_pb2.ClientEnvelope) -> None:
        """Say something that is not answered; lost when no router is there for it."""
        route = self._route(key)
        if route.link is not None and route.epoch == self._epoch:
            self._last_id += 1
            envelope.envelope_id = self._last_id
            self._send(route.link, envelope)

    def owner(self, key: str) -> str | None:
        """The router that is to get what is new under `key`; None while there is none."""
        route = self._route(key)
        return route.link if route.epoch == self._epoch else naming.owner(key, self._links)

    def on_reply(self, envelope_id: int) -> Pending | None:
        """A reply came; gives what it answers, or None for one that was answered before."""
        pending = self._pending.pop(envelope_id, None)
        if pending is None:
            return None
        self._bytes -= pending.size
        route = pending.route
        route.under_way -= 1
        if route.epoch != self._epoch and not route.under_way:
            self._settle(pending.key, route)
        return pending

    def on_links(self, links: Iterable[str]) -> None:
        """These routers take new requests from now on. What is under way at others stays there until answered."""
        self._links = frozenset(links)
        self._epoch += 1
        busy = {id(pending.route): pending for pending in self._pending.values()}
        self._routes = {pending.key: pending.route for pending in busy.values()}
        for pending in busy.values():
            if not pending.route.under_way:
                self._settle(pending.key, pending.route)

    def on_lost(self, link: str) -> None:
        """A link is gone: what was under way on it waits, in order, and goes to the owners now. Call `on_links` before."""
        lost: dict[int, list[Pending]] = {}
        for pending in self._pending.values():
            if pending.route.link == link:
                lost.setdefault(id(pending.route), []).append(pending)
        for requests in lost.values():
            route = requests[0].route
            route.waiting = requests
            route.under_way = 0
            route.link = None
            self._settle(requests[0].key, route)

    def _route(self, key: str) -> Route:
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= MAX_IDLE_ROUTES:
                self._routes = {pending.key: pending.route for pending in self._pending.values()}
            route = self._routes[key] = Route()
        if route.epoch != self._epoch and not route.under_way:
            self._settle(key, route)
        return route

    def _settle(self, key: str, route: Route) -> None:
        """Nothing is under way: let the owner now have the route, and what waits."""
        route.link = naming.owner(key, self._links)
        route.epoch = self._epoch
        if route.link is None:
            return
        waiting, route.waiting = route.waiting, []
        route.under_way = len(waiting)
        for pending in waiting:
            self._send(route.link, pending.envelope)

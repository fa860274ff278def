"""What changed at this edge since a balancer last heard of it. Pure."""

from collections.abc import Callable

from edge.connection import Connection
from tidings.balancer.v1 import balancer_pb2

MAX_CHANGES = 100_000  # past it the stream begins anew with everything, for the balancer doesn't read


class LoadTally:
    """An observer of the population, for one balancer.

    Args:
        changed: called at each change.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._opened: list[balancer_pb2.Connection] = []
        self._closed: list[balancer_pb2.Connection] = []
        self._arrived: list[str] = []

    @property
    def overflown(self) -> bool:
        """Whether more changed than is worth telling one by one."""
        return len(self._opened) + len(self._closed) > MAX_CHANGES

    def opened(self, connection: Connection, ticket_id: str) -> None:
        """See Observer."""
        self._opened.append(describe(connection))
        if ticket_id:
            self._arrived.append(ticket_id)
        self._changed()

    def closed(self, connection: Connection) -> None:
        """See Observer."""
        self._closed.append(describe(connection))
        self._changed()

    def draining(self) -> None:
        """See Observer."""
        self._changed()

    def take(self, connections: int, draining: bool, loop_lag_seconds: float) -> balancer_pb2.ReportLoadRequest:
        """The report of what changed since the last one."""
        load = balancer_pb2.EdgeLoad(
            opened=self._opened,
            closed=self._closed,
            arrived_ticket_ids=self._arrived,
            connections=connections,
            draining=draining,
            loop_lag_us=int(loop_lag_seconds * 1e6),
        )
        self._opened, self._closed, self._arrived = [], [], []
        return balancer_pb2.ReportLoadRequest(load=load)


def describe(connection: Connection) -> balancer_pb2.Connection:
    """A connection as balancers count it."""
    return balancer_pb2.Connection(ip=connection.ip, user_id=connection.session.user_id)

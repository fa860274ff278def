"""Every connection of this edge, and who wants to hear of their coming and going."""

import asyncio
from collections import Counter
from typing import Protocol

from edge import refusals
from edge.connection import Connection
from mesh import errors
from mesh.errors import TidingsError

TOO_MANY_SECONDS = 5.0  # when to ask again: half-open connections are found by their heartbeats


class Observer(Protocol):
    """Follows the population."""

    def opened(self, connection: Connection, ticket_id: str) -> None:
        """A client connected; `ticket_id` is empty when it came with a token."""

    def closed(self, connection: Connection) -> None:
        """A client's connection ended."""

    def draining(self) -> None:
        """The edge takes no newcomers any more."""


class Population:
    """Authenticated connections by session number.

    Args:
        capacity: most connections; newcomers past it are refused.
        per_user: most connections of one user, likewise; 0 is no cap. Balancers cap them over all edges, but a client with a token
            need not ask one.
    """

    def __init__(self, capacity: int, per_user: int) -> None:
        self._capacity = capacity
        self._per_user = per_user
        self._of_user: Counter[str] = Counter()
        self._connections: dict[int, Connection] = {}
        self._observers: set[Observer] = set()
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._connections)

    def refusal(self) -> TidingsError | None:
        """What newcomers are told; None when they may come in."""
        if self.draining:
            return refusals.going_away()
        return refusals.no_capacity() if len(self._connections) >= self._capacity else None

    def check_user(self, user_id: str) -> None:
        """Refuse one more connection of a user who has too many.

        Raises:
            TidingsError: TOO_MANY_CONNECTIONS.
        """
        if self._per_user and self._of_user[user_id] >= self._per_user:
            raise errors.too_many_connections(f"user {user_id}", self._per_user, TOO_MANY_SECONDS)

    def drain(self) -> None:
        """Take no newcomers any more."""
        if not self.draining:
            self.draining = True
            for observer in self._observers:
                observer.draining()

    def all(self) -> list[Connection]:
        """The connections, the oldest first."""
        return list(self._connections.values())

    def observe(self, observer: Observer) -> None:
        """Tell an observer from now on."""
        self._observers.add(observer)

    def ignore(self, observer: Observer) -> None:
        """Tell it no more."""
        self._observers.discard(observer)

    async def empty(self) -> None:
        """Wait until nobody is here."""
        await self._empty.wait()

    def enter(self, connection: Connection, ticket_id: str) -> None:
        """A client connected."""
        self._connections[connection.session.number] = connection
        self._of_user[connection.session.user_id] += 1
        self._empty.clear()
        for observer in self._observers:
            observer.opened(connection, ticket_id)

    def leave(self, connection: Connection) -> None:
        """Its connection ended."""
        if self._connections.pop(connection.session.number, None) is not None:
            self._forget_one(connection.session.user_id)
            for observer in self._observers:
                observer.closed(connection)
        if not self._connections:
            self._empty.set()

    def _forget_one(self, user_id: str) -> None:
        self._of_user[user_id] -= 1
        if not self._of_user[user_id]:
            del self._of_user[user_id]

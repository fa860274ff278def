"""Leaving one edge for another when asked to: the appointment, and the next edge's transport, opened while the old one serves.

A session begins with Hello, so a transport that is merely open disturbs nobody: the old session goes on until a new one can begin.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tidings.client.v1.frames_pb2 import GoAway
from tidings_client.transport import ConnectionEnded, Transport

TICKET_SECONDS = 30.0  # after the appointment, by the contract


@dataclass(frozen=True, slots=True)
class Appointment:
    """When to leave, and where to.

    Attributes:
        at: seconds of the event loop's clock.
        url: the next edge's base URL; empty when a balancer is to be asked.
        ticket: for that edge.
    """

    at: float
    url: str
    ticket: str

    @classmethod
    def of(cls, frame: GoAway, now: float) -> "Appointment":
        """As the edge gave it."""
        return cls(now + frame.reconnect_after.ToTimedelta().total_seconds(), frame.url.rstrip("/"), frame.ticket)

    def holds(self, now: float) -> bool:
        """Whether there is an edge that still expects us."""
        return bool(self.url and self.ticket) and now < self.at + TICKET_SECONDS

    @property
    def websocket_url(self) -> str:
        """Where to open the WebSocket."""
        return f"{self.url}/v1/ws"

    @property
    def api_url(self) -> str:
        """Base URL of the HTTP API and the long poll."""
        return "http" + self.url.removeprefix("ws")


class Move:
    """A transport being opened.

    Args:
        on_done: called when it is open, or won't be.
    """

    def __init__(self, opening: Coroutine[Any, Any, Transport], on_done: Callable[[], None]) -> None:
        self._task = asyncio.create_task(opening)
        self._task.add_done_callback(lambda _: on_done())

    @property
    def done(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self._task.done()

    async def transport(self) -> Transport:
        """The open transport.

        Raises:
            ConnectionEnded: it wasn't to be.
        """
        return await self._task

    async def give_up(self) -> None:
        """It isn't needed."""
        self._task.cancel()
        with contextlib.suppress(ConnectionEnded, asyncio.CancelledError):
            transport = await self._task
            await transport.close()

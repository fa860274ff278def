"""How frames travel: over a WebSocket, one binary message each. The long poll, for where WebSockets are blocked, is `poll.py`.

A transport is opened with a ticket, or with a token at an edge that we come straight back to, then sends and receives frames until
it ends; it knows no frame's meaning.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import aiohttp
from google.protobuf.message import DecodeError

from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.common.v1 import error_pb2
from tidings_client.reconnect import Ended

SUBPROTOCOL = "tidings.v1.proto"
OPEN_TIMEOUT = 10.0  # seconds; a reachable edge answers within a few round trips
RETURN_TIMEOUT = 2.0  # seconds; it may have been a dying host's last word, and a balancer is still to be asked
CLOSE_TIMEOUT = 2.0  # seconds to wait for the other side's goodbye
MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # a page of the largest messages; more is not ours to hold in memory


class ConnectionEnded(Exception):  # noqa: N818  (mostly no fault)
    """The connection, or the attempt at one, ended; `ended` says how."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(f"{ended.stage}: {ended.code} {ended.reason}")
        self.ended = ended


class Transport(Protocol):
    """One connection."""

    async def send(self, frames: Sequence[ClientFrame]) -> None:
        """Send frames in order.

        Raises:
            ConnectionEnded: it is over.
        """

    async def receive(self) -> list[ServerFrame]:
        """Wait for at least one frame.

        Raises:
            ConnectionEnded: it is over.
        """

    async def close(self) -> None:
        """Say goodbye and let go."""


class WebSocketTransport:
    """See `Transport`. Open one with `open_websocket` or `reopen_websocket`.

    Args:
        url: where it was opened.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, url: str) -> None:
        self._socket = socket
        self._url = url
        self._heard = False

    async def send(self, frames: Sequence[ClientFrame]) -> None:
        """See `Transport`."""
        try:
            for frame in frames:
                await self._socket.send_bytes(frame.SerializeToString())
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ConnectionEnded(self._end(str(error), cut=True)) from error

    async def receive(self) -> list[ServerFrame]:
        """See `Transport`."""
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            fault = message.type is aiohttp.WSMsgType.TEXT or isinstance(message.data, aiohttp.WebSocketError)
            raise ConnectionEnded(self._end(message.extra or str(message.data or ""), cut=not fault))
        try:
            frames = [ServerFrame.FromString(message.data)]
        except DecodeError as error:
            await self.close()
            raise ConnectionEnded(Ended("session", 0, "the server sent bytes that are not a frame")) from error
        self._heard = True
        return frames

    async def close(self) -> None:
        """See `Transport`."""
        await self._socket.close()

    def _end(self, why: str, *, cut: bool) -> Ended:
        code = self._socket.close_code or 0
        ours = code if code >= 4000 else 0
        url = self._url if cut and self._heard and not ours else ""
        return Ended("session", ours, why or f"the connection was lost ({code or 'no close code'})", cut=url)


async def open_websocket(http: aiohttp.ClientSession, url: str, ticket: str) -> WebSocketTransport:
    """Open a WebSocket with a ticket.

    Raises:
        ConnectionEnded: it wasn't to be.
    """
    return await _open(http, url, OPEN_TIMEOUT, params={"ticket": ticket})


async def reopen_websocket(http: aiohttp.ClientSession, url: str, token: str) -> WebSocketTransport:
    """Open a WebSocket, with the bearer token, where one was open a moment ago.

    Raises:
        ConnectionEnded: it wasn't to be.
    """
    return await _open(http, url, RETURN_TIMEOUT, headers={"Authorization": f"Bearer {token}"})


async def _open(http: aiohttp.ClientSession, url: str, seconds: float, **credential: Any) -> WebSocketTransport:
    timeout = aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT)
    try:
        async with asyncio.timeout(seconds):
            socket = await http.ws_connect(
                url, protocols=[SUBPROTOCOL], compress=0, max_msg_size=MAX_MESSAGE_BYTES, timeout=timeout, **credential
            )
    except aiohttp.WSServerHandshakeError as error:
        retry_after = seconds_of(error.headers.get("Retry-After") if error.headers else None)
        raise ConnectionEnded(Ended("open", error.status, error.message, retry_after)) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ConnectionEnded(Ended("open", 0, str(error) or type(error).__name__)) from error
    if socket.protocol != SUBPROTOCOL:
        await socket.close()
        raise ConnectionEnded(Ended("open", error_pb2.ERROR_CODE_UNKNOWN_SUBPROTOCOL, f"the server doesn't speak {SUBPROTOCOL}"))
    return WebSocketTransport(socket, url)


def seconds_of(header: str | None) -> float | None:
    """A Retry-After header in seconds; None when absent or given as a date."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None

"""Asking the balancer for a place the way a client that just lost its connection does: a new connection, one request, one answer.

Bare HTTP/1.1 over asyncio, so that the generator is not what is measured.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit


class NoTicketError(Exception):
    """The balancer gave none.

    Attributes:
        status: of its answer; 0 when it gave none.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class _Request(asyncio.Protocol):
    """One request; the answer ends with the connection."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._answer = bytearray()
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._answer += data

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if not self.answered.done():
            self.answered.set_result(bytes(self._answer))


async def ticket(url: str, token: str) -> str:
    """The WebSocket URL, with its ticket, that the balancer at `url` answers.

    Raises:
        NoTicketError: it refused, or went away.
        OSError: nobody listens there.
    """
    parts = urlsplit(url)
    head = f"POST /v1/connect HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    request = (head + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}").encode()
    loop = asyncio.get_running_loop()
    transport, asking = await loop.create_connection(lambda: _Request(request), parts.hostname or "", parts.port or 80)
    try:
        status, body = _parse(await asking.answered)
    finally:
        transport.abort()
    if status != 200:
        raise NoTicketError(status, json.dumps(body)[:200])
    return f"{body['url']}?ticket={body['ticket']}"


def _parse(answer: bytes) -> tuple[int, Mapping[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    line = head.split(b"\r\n", 1)[0].split(b" ")
    try:
        return int(line[1]), json.loads(body)
    except (IndexError, ValueError):
        return 0, {"answer": answer[:100].decode(errors="replace")}

"""From HTTP to WebSocket (RFC 6455 section 4.2): the answer, and taking the connection from aiohttp.

aiohttp would hold an upgraded connection by two tasks, eleven coroutines, the request with its headers and its parser: 11 KB that
an idle session has no use for. So once the upgrade is answered, aiohttp's protocol is told that the connection is lost, and the
transport is given one of ours, as asyncio provides for (`Transport.set_protocol`).
"""

import asyncio
import base64
import hashlib
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.http import WS_KEY


async def answer(request: web.Request, subprotocol: str) -> web.StreamResponse:
    """Answer 101.

    Raises:
        HTTPBadRequest: it is no opening handshake.
        ConnectionError: the client is gone.
    """
    if not web.WebSocketResponse(protocols=(subprotocol,)).can_prepare(request).ok:
        raise web.HTTPBadRequest
    headers = {hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "upgrade", hdrs.SEC_WEBSOCKET_ACCEPT: _accept(request)}
    if hdrs.SEC_WEBSOCKET_PROTOCOL in request.headers:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = subprotocol
    response = web.StreamResponse(status=101, headers=headers)
    response.force_close()
    await response.prepare(request)
    return response


def transport(request: web.Request) -> asyncio.Transport:
    """What the client is connected by.

    Raises:
        ConnectionResetError: the client is gone.
    """
    if request.transport is None:
        raise ConnectionResetError("the client left during the upgrade")
    return request.transport


def take_over(request: web.Request, protocol: asyncio.Protocol) -> bytes:
    """Make `protocol` the connection's; gives what came from the client already. aiohttp knows nothing of the connection then."""
    early, served = _Early(), request.protocol
    served.set_parser(cast(Any, early))
    transport(request).set_protocol(protocol)
    served.transport = None  # or it would close it
    served.connection_lost(None)
    return early.data


class _Early:
    """Where aiohttp puts what came behind the request."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        pass


def _accept(request: web.Request) -> str:
    key = request.headers[hdrs.SEC_WEBSOCKET_KEY].encode()
    return base64.b64encode(hashlib.sha1(key + WS_KEY, usedforsecurity=False).digest()).decode()

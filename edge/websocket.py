"""WebSockets: the upgrade, and the connection's writing and closing.

Frames are written straight to the transport, joined, when it takes them; a task exists only while it does not (then it waits for
the transport to drain). So a client that reads costs no task, and one that doesn't costs nobody else anything.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from edge import wire
from edge.connection import Connection, Services
from edge.door import Door
from edge.encoding import Encoding
from edge.packet import Packet
from edge.population import Population
from mesh import errors
from mesh.credentials import Identity
from tidings.common.v1 import error_pb2

CLOSE_SECONDS = 5.0  # how long a client may take to read what was written before the close, and to answer it
WRITE_BYTES = 262_144  # joined into one write at most

# What aiohttp's reader finds wrong, in our codes.
_CODES: dict[int, int] = {
    WSCloseCode.MESSAGE_TOO_BIG: error_pb2.ERROR_CODE_FRAME_TOO_LARGE,
    WSCloseCode.PROTOCOL_ERROR: error_pb2.ERROR_CODE_PROTOCOL_ERROR,
    WSCloseCode.INVALID_TEXT: error_pb2.ERROR_CODE_PROTOCOL_ERROR,
    WSCloseCode.UNSUPPORTED_DATA: error_pb2.ERROR_CODE_PROTOCOL_ERROR,
}


class ClientSocket(web.WebSocketResponse):
    """aiohttp's WebSocket, closing with the codes of our table.

    Attributes:
        said_farewell: a close frame was written past this object; what is left is to hear the client's.
    """

    def __init__(self, refused: Callable[[int], None], **options: Any) -> None:
        # Without autoclose the client's answer to our close frame isn't answered by another one.
        super().__init__(autoclose=False, compress=False, **options)
        self._refused = refused
        self.said_farewell = False

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """See WebSocketResponse.close."""
        if self.said_farewell:
            return False
        if code in _CODES and not self.closed:
            code = _CODES[code]
            message = errors.reason(code).encode()
            self._refused(code)
        return await super().close(code=code, message=message, drain=drain)


class WebSocketConnection(Connection):
    """One WebSocket, upgraded and authenticated."""

    __slots__ = ("_draining", "_ended", "_request", "_socket")

    def __init__(
        self, services: Services, identity: Identity, ip: str, encoding: Encoding, socket: ClientSocket, request: web.BaseRequest
    ) -> None:
        super().__init__(services, identity, encoding, ip)
        self._socket = socket
        self._request = request
        self._draining = False
        self._ended = False

    @property
    def drained(self) -> bool:
        """See ClientPort."""
        return not len(self._outbox) and not self._request.protocol.writing_paused

    def write_packet(self, packet: Packet) -> None:
        """See ClientPort. What waits already goes before it."""
        transport, protocol = self._request.transport, self._request.protocol
        if self._dirty or self._closing is not None or len(self._outbox) or protocol.writing_paused or transport is None:
            super().write_packet(packet)
        elif not transport.is_closing():
            transport.write(packet.packed(self.encoding))

    def _hand_on(self) -> None:
        transport, protocol = self._request.transport, self._request.protocol
        if transport is None or transport.is_closing() or self._ended:
            return
        while len(self._outbox) and not protocol.writing_paused:
            transport.write(wire.pack(self._outbox.take(WRITE_BYTES), self.encoding.opcode))
        if protocol.writing_paused and not self._draining:
            self._draining = True
            self._run(self._drain())

    def _end(self, code: int) -> None:
        transport = self._request.transport
        if self._ended or transport is None or transport.is_closing():
            return
        self._ended = True
        # aiohttp's close would cut the connection before the client has answered, and take the code with it.
        self._socket.said_farewell = True
        transport.write(wire.close_frame(code, errors.reason(code)))
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, transport.abort)

    async def _drain(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._request.writer.drain()
        self._draining = False
        self.flush()
        self._services.switchboard.flush()


class WebSocketHandler:
    """GET /v1/ws and /chat."""

    def __init__(self, services: Services, door: Door, population: Population, max_frame_bytes: int) -> None:
        self._services = services
        self._door = door
        self._population = population
        self._max_frame_bytes = max_frame_bytes

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Upgrade, then hold the connection until it ends."""
        self._door.check_newcomer(request)
        encoding = self._door.encoding(request)
        identity, ticket_id = await self._door.identify(request)
        self._population.check_user(identity.user_id)
        socket = self._socket(encoding)
        await socket.prepare(request)
        connection = WebSocketConnection(self._services, identity, self._door.address(request), encoding, socket, request)
        self._population.enter(connection, ticket_id)
        self._services.metrics.opened()
        try:
            await _receive(socket, connection)
        finally:
            self._services.metrics.closed()
            self._population.leave(connection)
            connection.session.on_lost()
            self._services.switchboard.flush()
        return socket

    def _socket(self, encoding: Encoding) -> ClientSocket:
        return ClientSocket(
            self._services.switchboard.refused,
            protocols=(encoding.name,),
            timeout=CLOSE_SECONDS,
            max_msg_size=self._max_frame_bytes + 1,  # aiohttp refuses a message of exactly this size
        )


async def _receive(socket: ClientSocket, connection: WebSocketConnection) -> None:
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            return
        connection.on_message(message.data)

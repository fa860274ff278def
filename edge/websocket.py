"""WebSockets: the upgrade, and the connection's reading, writing and closing.

Frames are written straight to the transport, joined, when it takes them, and read straight from it: a connection costs no task, one
that doesn't read costs nobody else anything, and one at rest is a transport and a session.
"""

import asyncio
from collections.abc import Callable

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from edge import upgrade, wire
from edge.connection import Connection, Services
from edge.door import Door
from edge.encoding import Encoding
from edge.frame_reader import FrameReader
from edge.packet import Packet
from edge.population import Population
from mesh import errors
from mesh.credentials import Identity
from tidings.common.v1 import error_pb2

CLOSE_SECONDS = 5.0  # how long a client may take to read what was written before the close, and to answer it
WRITE_BYTES = 262_144  # joined into one write at most

# What the reader finds wrong, in our codes; anything else is a protocol error too.
_CODES: dict[int, int] = {WSCloseCode.MESSAGE_TOO_BIG: error_pb2.ERROR_CODE_FRAME_TOO_LARGE}


class WebSocketConnection(Connection, asyncio.Protocol):
    """One WebSocket, upgraded and authenticated; the protocol of its transport.

    Args:
        transport: already upgraded.
        reader: shared by all connections, as is `on_end`, which is told when this one is gone.
    """

    __slots__ = ("_ended", "_on_end", "_parser", "_paused", "_reader", "_transport")

    def __init__(
        self,
        services: Services,
        identity: Identity,
        ip: str,
        encoding: Encoding,
        transport: asyncio.Transport,
        reader: FrameReader,
        on_end: Callable[["WebSocketConnection"], None],
    ) -> None:
        super().__init__(services, identity, encoding, ip)
        self._transport = transport
        self._reader = reader
        self._parser = reader.parser()
        self._on_end = on_end
        self._paused = False  # the transport takes no more just now
        self._ended = False  # our close frame was written

    # ClientPort

    @property
    def drained(self) -> bool:
        """See ClientPort."""
        return not len(self._outbox) and not self._paused

    def write_packet(self, packet: Packet) -> None:
        """See ClientPort. What waits already goes before it."""
        if self._dirty or self._closing is not None or len(self._outbox) or self._paused:
            super().write_packet(packet)
        elif not self._transport.is_closing():
            self._transport.write(packet.packed(self.encoding))

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """The client said something, or part of it."""
        messages, failure = self._reader.read(self._parser, data)
        for message in messages:
            self._take(message)
        if failure is not None:
            self.session.close(_CODES.get(failure, error_pb2.ERROR_CODE_PROTOCOL_ERROR))
            self._services.switchboard.flush()
            if self._ended and self._transport.can_write_eof() and not self._transport.is_closing():
                self._transport.write_eof()  # the parser hears no answer to our close any more: the client is to hang up

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol: the client reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol: what waited goes now."""
        self._paused = False
        self.flush()
        self._services.switchboard.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._on_end(self)

    # For the edge

    def abort(self) -> None:
        """See Connection."""
        self._transport.abort()

    def _take(self, message: WSMessage) -> None:
        if self._transport.is_closing():
            return
        if message.type is WSMsgType.BINARY or message.type is WSMsgType.TEXT:
            if self._closing is None:
                self.on_message(message.data)
        elif message.type is WSMsgType.CLOSE:
            self._on_close()
        elif message.type is WSMsgType.PING and not self._ended and not self._paused:
            self._transport.write(wire.pong_frame(message.data))

    def _on_close(self) -> None:
        """The client is done: so is its session, though the transport may still wait for it to read."""
        if not self._ended:
            self._ended = True
            self._transport.write(wire.close_frame(WSCloseCode.OK, ""))
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)
        self._transport.close()
        self.session.on_lost()

    def _hand_on(self) -> None:
        if self._ended or self._transport.is_closing():
            return
        while len(self._outbox) and not self._paused:
            self._transport.write(wire.pack(self._outbox.take(WRITE_BYTES), self.encoding.opcode))

    def _end(self, code: int) -> None:
        if self._ended:
            return
        self._ended = True
        if self._transport.is_closing():  # it waits for a client that doesn't read
            self._transport.abort()
            return
        # The client's answer closes it; closing at once would cut the connection before that, and take the code with it.
        self._transport.write(wire.close_frame(code, errors.reason(code)))
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)


class WebSocketHandler:
    """GET /v1/ws and /chat."""

    def __init__(self, services: Services, door: Door, population: Population, max_frame_bytes: int) -> None:
        self._services = services
        self._door = door
        self._population = population
        self._reader = FrameReader(max_frame_bytes)
        self._ended = self._on_end  # one for all connections, for a bound method of its own would cost each of them

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Upgrade; then the connection is no more of the HTTP server's, which may finish with the request."""
        self._door.check_newcomer(request)
        encoding = self._door.encoding(request)
        identity, ticket_id = await self._door.identify(request)
        self._population.check_user(identity.user_id)
        ip, response = self._door.address(request), await upgrade.answer(request, encoding.name)
        transport = upgrade.transport(request)
        connection = WebSocketConnection(self._services, identity, ip, encoding, transport, self._reader, self._ended)
        early = upgrade.take_over(request, connection)
        self._population.enter(connection, ticket_id)
        self._services.metrics.opened()
        if early:
            connection.data_received(early)
        return response

    def _on_end(self, connection: WebSocketConnection) -> None:
        self._services.metrics.closed()
        self._population.leave(connection)
        connection.session.on_lost()
        self._services.switchboard.flush()

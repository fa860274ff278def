"""A WebSocket client that costs next to nothing, so that the generator is not what is measured.

It knows just enough of RFC 6455: the opening handshake, masked frames out, whole frames in, ping and close. The masking key is
zero, which is allowed and leaves the payload as it is. Frames are given to one callback, synchronously; there is no queue to fill.
"""

import asyncio
import base64
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

SUBPROTOCOL = "tidings.v1.proto"
_BINARY, _CLOSE, _PING, _PONG = 0x2, 0x8, 0x9, 0xA
_NO_MASK = b"\0\0\0\0"


class HandshakeRefusedError(Exception):
    """The server did not upgrade the connection; the text is its status line."""


def client_frame(payload: bytes, opcode: int = _BINARY) -> bytes:
    """One whole masked frame."""
    return frame_header(len(payload), opcode) + payload


def frame_header(length: int, opcode: int = _BINARY) -> bytes:
    """What goes before a payload of so many bytes."""
    first = bytes([0x80 | opcode])
    if length < 126:
        return first + bytes([0x80 | length]) + _NO_MASK
    if length < 1 << 16:
        return first + b"\xfe" + length.to_bytes(2, "big") + _NO_MASK
    return first + b"\xff" + length.to_bytes(8, "big") + _NO_MASK


class WireConnection(asyncio.Protocol):
    """One connection.

    Args:
        request: the opening handshake's bytes.
        on_frame: given each binary message.
        on_close: given the close code, 1006 when the server just went away.
    """

    def __init__(self, request: bytes, on_frame: Callable[[bytes], None], on_close: Callable[[int], None]) -> None:
        self._request = request
        self._on_frame = on_frame
        self._on_close = on_close
        self._tail = b""
        self._close_code = 1006
        self._transport: asyncio.Transport | None = None
        self._open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if not self.opened.done():
            self.opened.set_exception(HandshakeRefusedError(f"the connection ended during the handshake: {exc}"))
        self._on_close(self._close_code)

    def data_received(self, data: bytes) -> None:
        """Take whole frames out of what came; keep the rest."""
        if self._tail:
            data = self._tail + data
        if not self._open:
            data = self._handshake(data)
            if not self._open:
                self._tail = data
                return
        position, end = 0, len(data)
        while end - position >= 2:
            length, start = data[position + 1], position + 2
            if length >= 126:
                width = 2 if length == 126 else 8
                if end - start < width:
                    break
                length, start = int.from_bytes(data[start : start + width], "big"), start + width
            if end - start < length:
                break
            self._take(data[position] & 0xF, data[start : start + length])
            position = start + length
        self._tail = data[position:]

    def send(self, frames: bytes) -> None:
        """Send whole frames, made by `client_frame`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames)

    def pause(self) -> None:
        """Read nothing more."""
        if self._transport is not None:
            self._transport.pause_reading()

    def abort(self) -> None:
        """Leave without a word."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Say goodbye and leave."""
        if self._transport is not None:
            self.send(client_frame((1000).to_bytes(2, "big"), _CLOSE))
            self._transport.close()

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _BINARY:
            self._on_frame(payload)
        elif opcode == _PING:
            self.send(client_frame(payload, _PONG))
        elif opcode == _CLOSE:
            self._close_code = int.from_bytes(payload[:2], "big") or 1005
            self.close()

    def _handshake(self, data: bytes) -> bytes:
        head, ended, rest = data.partition(b"\r\n\r\n")
        if not ended:
            return data
        status = head.split(b"\r\n", 1)[0]
        if b" 101 " not in status and not self.opened.done():
            self.opened.set_exception(HandshakeRefusedError(status.decode(errors="replace")))
            return b""
        self._open = True
        if not self.opened.done():  # nobody waits any more
            self.opened.set_result(None)
        return rest


async def connect(
    url: str,
    on_frame: Callable[[bytes], None],
    on_close: Callable[[int], None],
    receive_buffer: int = 0,
    tls: ssl.SSLContext | None = None,
    token: str = "",
) -> WireConnection:
    """Open a connection.

    Args:
        url: ws://host:port/path?query, or with `tls` wss://…
        on_frame: given each binary message.
        on_close: given the close code.
        receive_buffer: bytes that the kernel may hold for us; 0 leaves that to the kernel.
        tls: whom to trust.
        token: the bearer token to come with; empty when the URL has a ticket, or nobody asks.

    Raises:
        HandshakeRefusedError: the server did not upgrade.
        ValueError: not such a URL.
        OSError: nobody listens there.
    """
    parts = urlsplit(url)
    if parts.scheme != ("wss" if tls else "ws") or not parts.hostname:
        raise ValueError(f"{url}: the generator was told to speak {'wss' if tls else 'plain ws'}:// only")
    request = _request(parts.netloc, parts.path + ("?" + parts.query if parts.query else ""), token)
    address, name = (parts.hostname, parts.port or 80), parts.hostname if tls else None
    connection = await _open(
        address, lambda: WireConnection(request, on_frame, on_close), receive_buffer, ssl=tls, server_hostname=name
    )
    try:
        await connection.opened
    except asyncio.CancelledError:
        connection.abort()
        raise
    return connection


async def _open(
    address: tuple[str, int], make: Callable[[], WireConnection], receive_buffer: int, **options: Any
) -> WireConnection:
    loop = asyncio.get_running_loop()
    if not receive_buffer:
        return (await loop.create_connection(make, *address, **options))[1]
    sock = socket.socket()  # before it connects, for then the window is agreed
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        await loop.sock_connect(sock, address)
        return (await loop.create_connection(make, sock=sock, **options))[1]
    except BaseException:
        sock.close()
        raise


def _request(host: str, path: str, token: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        *([f"Authorization: Bearer {token}"] if token else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()

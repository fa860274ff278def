"""What `bench.sink` speaks: just enough HTTP and WebSocket for the bench's own clients, whom it trusts to mask with zeros."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from typing import Protocol, cast
from urllib.parse import parse_qs, urlsplit

from bench.wire import SUBPROTOCOL
from tidings.client.v1.frames_pb2 import ServerFrame

Write = Callable[[bytes], None]
_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_BINARY = 0x2


class Party(Protocol):
    """Whom the connections serve; users are known by name."""

    def post(self, path: str, user: str, body: bytes) -> dict[str, object]:
        """Answer a request; an answer with a ticket is given the address it is for."""

    def join(self, user: str, write: Write) -> None:
        """A user's WebSocket is open."""

    def leave(self, user: str, write: Write) -> None:
        """It ended."""

    def on_frame(self, user: str, payload: bytes) -> None:
        """It brought a message."""


class Connection(asyncio.Protocol):
    """HTTP requests one after the other, or after an upgrade WebSocket frames."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._user = ""
        self._tail = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._user:
            self._party.leave(self._user, self.write)

    def data_received(self, data: bytes) -> None:
        """Take whole requests or frames out of what came; keep the rest."""
        data = self._tail + data if self._tail else data
        self._tail = b""
        while data and not self._user:
            head, ended, rest = data.partition(b"\r\n\r\n")
            size = int(_header(head, b"content-length") or 0)
            if not ended or len(rest) < size:
                self._tail = data
                return
            self._answer(head, rest[:size])
            data = rest[size:]
        if data:
            self._take_frames(data)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None:
            self._transport.write(data)

    def _answer(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        user = _header(head, b"authorization").decode().removeprefix("Bearer ")
        if method == "GET":
            self._upgrade(head, parse_qs(urlsplit(target).query).get("ticket", [user])[0])
            return
        answer = self._party.post(target, user, body)
        if "ticket" in answer:
            host = _header(head, b"host").decode()
            answer |= {"url": f"ws://{host}/v1/ws", "api_url": f"http://{host}"}
        text = json.dumps(answer).encode()
        self.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        if self._transport is not None and _header(head, b"connection").lower() == b"close":
            self._transport.close()

    def _upgrade(self, head: bytes, name: str) -> None:
        key = base64.b64encode(hashlib.sha1(_header(head, b"sec-websocket-key") + _KEY).digest())  # noqa: S324  (as RFC 6455 has it)
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + key,
        ]
        self.write(b"\r\n".join([*lines, b"Sec-WebSocket-Protocol: " + SUBPROTOCOL.encode(), b"", b""]))
        self._user = name
        self._party.join(name, self.write)

    def _take_frames(self, data: bytes) -> None:
        position, end = 0, len(data)
        while end - position >= 2:
            length, start = data[position + 1] & 0x7F, position + 2
            if length >= 126:
                width = 2 if length == 126 else 8
                length, start = int.from_bytes(data[start : start + width], "big"), start + width
            start += 4
            if end - start < length:
                break
            if data[position] & 0xF == _BINARY:
                self._party.on_frame(self._user, data[start : start + length])
            position = start + length
        self._tail = data[position:]


def server_frame(frame: ServerFrame) -> bytes:
    """One whole unmasked binary frame."""
    payload = frame.SerializeToString()
    length = len(payload)
    if length < 126:
        return bytes([0x80 | _BINARY, length]) + payload
    return bytes([0x80 | _BINARY, 126]) + length.to_bytes(2, "big") + payload


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""

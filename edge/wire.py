"""WebSocket frames as bytes (RFC 6455 section 5.2), so that several go out in one write: one system call instead of one each."""

_FIN = 0x80
_CLOSE, _PONG = 0x8, 0xA
_MEDIUM, _LONG = 126, 127  # what stands in place of a length that needs two or eight bytes more
_HEADERS = {opcode: tuple(bytes((_FIN | opcode, size)) for size in range(_MEDIUM)) for opcode in (1, 2)}


def pack(payloads: list[bytes], opcode: int) -> bytes:
    """Unmasked single-frame messages, as a server sends them, joined."""
    headers = _HEADERS[opcode]
    parts: list[bytes] = []
    for payload in payloads:
        size = len(payload)
        parts.append(headers[size] if size < _MEDIUM else _long_header(opcode, size))
        parts.append(payload)
    return b"".join(parts)


def close_frame(code: int, reason: str) -> bytes:
    """A close frame (section 5.5.1); the reason has at most 123 bytes."""
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes((_FIN | _CLOSE, len(payload))) + payload


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping (section 5.5.3), which has at most 125 bytes."""
    return bytes((_FIN | _PONG, len(payload))) + payload


def _long_header(opcode: int, size: int) -> bytes:
    if size < 1 << 16:
        return bytes((_FIN | opcode, _MEDIUM)) + size.to_bytes(2, "big")
    return bytes((_FIN | opcode, _LONG)) + size.to_bytes(8, "big")

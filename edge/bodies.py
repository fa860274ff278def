"""HTTP bodies: read within a deadline and a bound, in protobuf's JSON mapping or in binary, as the Content-Type says."""

import asyncio
from typing import TypeVar

from aiohttp import web
from google.protobuf.message import DecodeError, Message

from edge import refusals
from edge.encoding import UndecodableError, from_json, to_json

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
M = TypeVar("M", bound=Message)


async def read(request: web.Request, into: M, max_bytes: int, seconds: float) -> M:
    """The body as a message; an empty one leaves the message as it is.

    Raises:
        TidingsError: FRAME_TOO_LARGE, HANDSHAKE_TIMEOUT (too slow) or PROTOCOL_ERROR.
    """
    body = await _read_bytes(request, max_bytes, seconds)
    if not body:
        return into
    try:
        if request.content_type == PROTOBUF:
            into.MergeFromString(body)
            return into
        return from_json(body, into)
    except (UndecodableError, DecodeError) as error:
        raise refusals.undecodable(f"the body is not what {request.path} takes: {error}") from error


def answer(request: web.Request, message: Message, status: int = 200) -> web.Response:
    """A message in the form the request came in."""
    if request.content_type == PROTOBUF:
        return web.Response(body=message.SerializeToString(), content_type=PROTOBUF, status=status)
    return web.Response(text=to_json(message), content_type=JSON, status=status)


async def _read_bytes(request: web.Request, max_bytes: int, seconds: float) -> bytes:
    if (request.content_length or 0) > max_bytes:
        raise refusals.too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise refusals.too_large(max_bytes)
    except TimeoutError as error:
        raise refusals.too_slow(seconds) from error
    except web.RequestPayloadError as error:
        raise refusals.undecodable("the body is not what its Content-Encoding or Transfer-Encoding says") from error
    return bytes(body)

"""Refusals over HTTP: at the upgrade, in the API, in the long poll. Each is an Error body in JSON with a fitting status."""

from aiohttp import web

from edge.encoding import to_json
from mesh.errors import TidingsError
from tidings.common.v1 import error_pb2


def response(error: TidingsError, status: int | None = None) -> web.Response:
    """The error as an HTTP response."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.code == error_pb2.ERROR_CODE_UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    status = status or error.http_status
    return web.Response(status=status, text=to_json(error.to_frame()), content_type="application/json", headers=headers)


def unknown_subprotocol(offered: str, known: list[str]) -> TidingsError:
    """None of the offered subprotocols is known."""
    text = f"none of the subprotocols {offered[:200]!r} is known here: offer {' or '.join(known)}"
    return TidingsError(error_pb2.ERROR_CODE_UNKNOWN_SUBPROTOCOL, text)


def no_capacity() -> TidingsError:
    """The edge is full."""
    text = "this edge has no room: ask the balancer for another (POST /v1/connect)"
    return TidingsError(error_pb2.ERROR_CODE_NO_CAPACITY, text, retry_after=1.0)


def going_away() -> TidingsError:
    """The edge is leaving."""
    text = "this edge is stopping: ask the balancer for another (POST /v1/connect)"
    return TidingsError(error_pb2.ERROR_CODE_GOING_AWAY, text, retry_after=1.0)


def too_large(limit: int) -> TidingsError:
    """A body is larger than what is read; the limit in bytes."""
    return TidingsError(error_pb2.ERROR_CODE_FRAME_TOO_LARGE, f"the body is larger than {limit} bytes: send less")


def too_slow(seconds: float) -> TidingsError:
    """A body did not come in time."""
    return TidingsError(error_pb2.ERROR_CODE_HANDSHAKE_TIMEOUT, f"the body did not come within {seconds:g} s: send it at once")


def undecodable(why: str) -> TidingsError:
    """A body is not what it should be."""
    return TidingsError(error_pb2.ERROR_CODE_PROTOCOL_ERROR, why)


def no_such_poll() -> TidingsError:
    """The long-poll session is over or never was."""
    text = "no such poll session, or it ended: connect again, and resume"
    return TidingsError(error_pb2.ERROR_CODE_SESSION_FAILED, text)

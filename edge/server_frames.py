"""The frames an edge itself says; all others come encoded from the routers. Pure; times are Unix seconds."""

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from edge.rules import Rules
from mesh.errors import TidingsError
from tidings.client.v1.frames_pb2 import CaughtUp, Heartbeat, ServerFrame
from tidings.common.v1 import error_pb2

_REQUEST_ID = bytes([ServerFrame.REQUEST_ID_FIELD_NUMBER << 3])
_ERROR = bytes([ServerFrame.ERROR_FIELD_NUMBER << 3 | 2])
HEARTBEAT = ServerFrame(heartbeat=Heartbeat()).SerializeToString()
CAUGHT_UP = ServerFrame(caught_up=CaughtUp()).SerializeToString()


def welcome(request_id: int, session: int, user_id: str, rules: Rules, now: float, expires: float) -> bytes:
    """Answers hello."""
    frame = ServerFrame(request_id=request_id)
    frame.welcome.session_id = f"{rules.edge_id}/{session}"
    frame.welcome.user_id = user_id
    frame.welcome.heartbeat_interval.FromNanoseconds(int(rules.heartbeat * 1e9))
    frame.welcome.limits.CopyFrom(rules.limits)
    _set(frame.welcome.server_time, now)
    _set(frame.welcome.token_expire_time, expires)
    return frame.SerializeToString()


def heartbeat(request_id: int) -> bytes:
    """Answers a heartbeat."""
    if not request_id:
        return HEARTBEAT
    return ServerFrame(request_id=request_id, heartbeat=Heartbeat()).SerializeToString()


def token_expiring(expires: float) -> bytes:
    """The token runs out soon."""
    frame = ServerFrame()
    _set(frame.token_expiring.token_expire_time, expires)
    return frame.SerializeToString()


def token_refreshed(request_id: int, expires: float) -> bytes:
    """Answers refresh_token."""
    frame = ServerFrame(request_id=request_id)
    _set(frame.token_refreshed.token_expire_time, expires)
    return frame.SerializeToString()


def go_away(reconnect_after: float, url: str, ticket: str) -> bytes:
    """Asks the client to leave in so many seconds, for the edge at `url` if one expects it."""
    frame = ServerFrame()
    frame.go_away.code = error_pb2.ERROR_CODE_GOING_AWAY
    frame.go_away.reconnect_after.FromNanoseconds(int(reconnect_after * 1e9))
    frame.go_away.url = url
    frame.go_away.ticket = ticket
    return frame.SerializeToString()


def error(request_id: int, failure: TidingsError, client_msg_id: str) -> bytes:
    """A request failed."""
    return ServerFrame(request_id=request_id, error=failure.to_frame(client_msg_id)).SerializeToString()


def error_code(frame: bytes) -> int:
    """The code of an encoded error frame, found without decoding others; 0 when it is none.

    Fields are encoded in the order of their numbers, so the arm's tag is the first byte after the request_id.
    """
    start = 0
    if frame[:1] == _REQUEST_ID:
        start = 2
        while frame[start - 1] & 0x80:  # a varint goes on while the top bit is set
            start += 1
    return ServerFrame.FromString(frame).error.code if frame[start : start + 1] == _ERROR else 0


def notification_id(frame: bytes) -> str:
    """The id of an encoded notification; empty when the frame is none."""
    try:
        return ServerFrame.FromString(frame).notification.notification_id
    except DecodeError:
        return ""


def _set(field: Timestamp, unix_seconds: float) -> None:
    field.FromNanoseconds(int(unix_seconds * 1e9))

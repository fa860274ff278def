"""All errors of the mesh, one function a reason.

A `TidingsError` becomes a gRPC status with one ErrorInfo (reason, domain "tidings") and at most a RetryInfo and a BadRequest, or
an `Error` frame, or a WebSocket close code. The table is `ErrorCode` in proto/tidings/common/v1/error.proto.
"""

from collections.abc import Sequence
from datetime import timedelta

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tidings.common.v1 import error_pb2
from tidings.common.v1.error_pb2 import ErrorCode

DOMAIN = "tidings"

_STATUS: dict[int, int] = {
    error_pb2.ERROR_CODE_INVALID_CHAT_ID: code_pb2.NOT_FOUND,
    error_pb2.ERROR_CODE_INVALID_FIELD: code_pb2.INVALID_ARGUMENT,
    error_pb2.ERROR_CODE_NOT_A_MEMBER: code_pb2.PERMISSION_DENIED,
    error_pb2.ERROR_CODE_CONTENT_TOO_LARGE: code_pb2.INVALID_ARGUMENT,
    error_pb2.ERROR_CODE_RATE_LIMITED: code_pb2.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_CODE_OVERLOADED: code_pb2.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_CODE_UNAVAILABLE: code_pb2.UNAVAILABLE,
    error_pb2.ERROR_CODE_PERMISSION_DENIED: code_pb2.PERMISSION_DENIED,
    error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND: code_pb2.NOT_FOUND,
    error_pb2.ERROR_CODE_NOT_YOUR_MESSAGE: code_pb2.PERMISSION_DENIED,
    error_pb2.ERROR_CODE_INVALID_RECIPIENT: code_pb2.INVALID_ARGUMENT,
    error_pb2.ERROR_CODE_WRONG_CONVERSATION_KIND: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_CODE_GROUP_TOO_LARGE: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_CODE_TOO_MANY_WATCHED: code_pb2.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_CODE_REQUEST_ID_CONFLICT: code_pb2.ALREADY_EXISTS,
    error_pb2.ERROR_CODE_INTERNAL: code_pb2.INTERNAL,
    error_pb2.ERROR_CODE_LAST_OWNER: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_CODE_UNKNOWN_REQUEST: code_pb2.UNIMPLEMENTED,
    error_pb2.ERROR_CODE_FENCED: code_pb2.ABORTED,
    error_pb2.ERROR_CODE_INVALID_EXPRESSION: code_pb2.INVALID_ARGUMENT,
    error_pb2.ERROR_CODE_EXPRESSION_TOO_LARGE: code_pb2.INVALID_ARGUMENT,
    error_pb2.ERROR_CODE_UNKNOWN_TAG: code_pb2.NOT_FOUND,
    error_pb2.ERROR_CODE_UNKNOWN_USER: code_pb2.NOT_FOUND,
    error_pb2.ERROR_CODE_NAME_TAKEN: code_pb2.ALREADY_EXISTS,
    error_pb2.ERROR_CODE_COMBINATION_CYCLE: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_CODE_NAME_IN_USE: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_CODE_VERSION_CONFLICT: code_pb2.ABORTED,
    error_pb2.ERROR_CODE_SNAPSHOT_GONE: code_pb2.OUT_OF_RANGE,
    error_pb2.ERROR_CODE_EMPTY_AUDIENCE: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_CODE_NOTIFICATION_NOT_FOUND: code_pb2.NOT_FOUND,
    error_pb2.ERROR_CODE_NOTIFICATION_STATE_CONFLICT: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_CODE_REPORT_GONE: code_pb2.OUT_OF_RANGE,
    error_pb2.ERROR_CODE_PUSH_NOT_CONFIGURED: code_pb2.FAILED_PRECONDITION,
    error_pb2.ERROR_CODE_NETWORK_REFUSED: code_pb2.PERMISSION_DENIED,
    error_pb2.ERROR_CODE_UNAUTHENTICATED: code_pb2.UNAUTHENTICATED,
}

# What an HTTP interface answers; by the gRPC status where the code itself isn't named.
_HTTP_STATUS: dict[int, int] = {
    error_pb2.ERROR_CODE_CONTENT_TOO_LARGE: 413,
    error_pb2.ERROR_CODE_OVERLOADED: 503,
    error_pb2.ERROR_CODE_ORIGIN_REFUSED: 403,
    error_pb2.ERROR_CODE_TOO_MANY_CONNECTIONS: 429,
    error_pb2.ERROR_CODE_UNKNOWN_REQUEST: 404,
    error_pb2.ERROR_CODE_PROTOCOL_ERROR: 400,
    error_pb2.ERROR_CODE_UNKNOWN_SUBPROTOCOL: 400,
    error_pb2.ERROR_CODE_FRAME_TOO_LARGE: 413,
    error_pb2.ERROR_CODE_HANDSHAKE_TIMEOUT: 408,
    error_pb2.ERROR_CODE_SESSION_FAILED: 410,
    error_pb2.ERROR_CODE_GOING_AWAY: 503,
    error_pb2.ERROR_CODE_NO_CAPACITY: 503,
}
_HTTP_STATUS_OF: dict[int, int] = {
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.FAILED_PRECONDITION: 409,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 410,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.UNAVAILABLE: 503,
}
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
# A status travels in HTTP/2 headers, of which gRPC takes 8 KiB in all, and says its message up to three times: percent-encoded, and
# twice in base64. Messages quote what a client sent, which may be much longer, and each character may take 4 bytes.
_MAX_MESSAGE_CHARACTERS = 300


class TidingsError(Exception):
    """A named error.

    Attributes:
        code: which.
        message: one sentence for the developer: what was wrong, and what to do.
        retry_after: seconds after which the same request may be sent again; None when that won't help.
        field: path of the field at fault; empty when none.
    """

    def __init__(self, code: ErrorCode.ValueType, message: str, *, retry_after: float | None = None, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= _MAX_MESSAGE_CHARACTERS else message[: _MAX_MESSAGE_CHARACTERS - 1] + "…"
        self.retry_after = retry_after
        self.field = field

    @classmethod
    def from_frame(cls, frame: error_pb2.Error) -> "TidingsError":
        """The error that `to_frame` wrote."""
        retry_after = frame.retry_after.ToTimedelta().total_seconds() if frame.HasField("retry_after") else None
        return cls(frame.code, frame.message, retry_after=retry_after, field=frame.field)

    @property
    def reason(self) -> str:
        """The code's name without its prefix, as in ErrorInfo, metrics and docs/errors.md."""
        return reason(self.code)

    @property
    def http_status(self) -> int:
        """The status with which an HTTP interface answers; the body is `to_frame` in JSON."""
        return _HTTP_STATUS.get(self.code) or _HTTP_STATUS_OF.get(_STATUS.get(self.code, code_pb2.UNKNOWN), 500)

    def to_frame(self, client_msg_id: str = "") -> error_pb2.Error:
        """The error as clients see it."""
        frame = error_pb2.Error(code=self.code, message=self.message, field=self.field, client_msg_id=client_msg_id)
        if self.retry_after is not None:
            frame.retry_after.FromTimedelta(timedelta(seconds=self.retry_after))
        return frame

    def to_status(self) -> grpc.Status:
        """The error as gRPC callers see it."""
        details: list[any_pb2.Any] = [_pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))]
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromTimedelta(timedelta(seconds=self.retry_after))
            details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
        status = status_pb2.Status(code=_STATUS.get(self.code, code_pb2.UNKNOWN), message=self.message, details=details)
        converted: grpc.Status = rpc_status.to_status(status)
        return converted


def reason(code: int) -> str:
    """The reason of a code: its enum name without the prefix."""
    return ErrorCode.Name(code).removeprefix("ERROR_CODE_")  # type: ignore[arg-type]


def from_rpc_error(error: grpc.RpcError) -> TidingsError:
    """What a peer's status says. A status without our ErrorInfo is the transport's: the peer is away, or too slow."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return internal(f"the call failed: {error}")
    status = rpc_status.from_call(error)
    if status is None:
        return _from_transport(error)
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        _ = detail.Unpack(info) or detail.Unpack(retry) or detail.Unpack(bad)
    if info.domain != DOMAIN or f"ERROR_CODE_{info.reason}" not in ErrorCode.keys():  # noqa: SIM118  (an enum wrapper, not a dict)
        return _from_transport(error)
    return TidingsError(
        ErrorCode.Value(f"ERROR_CODE_{info.reason}"),
        status.message,
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
        field=bad.field_violations[0].field if bad.field_violations else "",
    )


def _from_transport(error: grpc.aio.AioRpcError) -> TidingsError:
    if error.code() in _PASSING:
        return unavailable(f"a service needed for this did not answer ({error.code().name}); send it again")
    return internal(f"{error.code().name}: {error.details()}")


def _pack(detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def invalid_chat_id(conversation_id: str) -> TidingsError:
    """No such conversation, or not an id at all."""
    text = f"no conversation {conversation_id!r}: check the id, or open the chat first"
    return TidingsError(error_pb2.ERROR_CODE_INVALID_CHAT_ID, text, field="conversation_id")


def invalid_field(field: str, allowed: str) -> TidingsError:
    """A field is out of bounds; `allowed` says what would be right."""
    return TidingsError(error_pb2.ERROR_CODE_INVALID_FIELD, f"{field}: {allowed}", field=field)


def not_a_member(conversation_id: str) -> TidingsError:
    """The user isn't in the conversation."""
    text = f"you are not a member of {conversation_id}: ask a member to add you"
    return TidingsError(error_pb2.ERROR_CODE_NOT_A_MEMBER, text, field="conversation_id")


def content_too_large(size: int, limit: int) -> TidingsError:
    """The content's encoded size is over the limit; both in bytes."""
    text = f"the content has {size} bytes, at most {limit} are allowed: send less, or split it"
    return TidingsError(error_pb2.ERROR_CODE_CONTENT_TOO_LARGE, text, field="content")


def rate_limited(retry_after: float) -> TidingsError:
    """Too many requests."""
    text = f"too many requests: send this one again in {retry_after:.1f} s"
    return TidingsError(error_pb2.ERROR_CODE_RATE_LIMITED, text, retry_after=retry_after)


def overloaded(retry_after: float, what: str = "the service") -> TidingsError:
    """No room just now; nothing was done."""
    text = f"{what} has no room just now and did nothing: send this again in {retry_after:.1f} s"
    return TidingsError(error_pb2.ERROR_CODE_OVERLOADED, text, retry_after=retry_after)


def unavailable(text: str, retry_after: float = 1.0) -> TidingsError:
    """A service needed for this is away."""
    return TidingsError(error_pb2.ERROR_CODE_UNAVAILABLE, text, retry_after=retry_after)


def permission_denied(needed: str) -> TidingsError:
    """The role doesn't allow it; `needed` says who may."""
    return TidingsError(error_pb2.ERROR_CODE_PERMISSION_DENIED, f"your role doesn't allow this: {needed}")


def message_not_found(conversation_id: str, seq: int) -> TidingsError:
    """No such message, or no longer kept."""
    text = f"{conversation_id} has no message {seq}, or no longer keeps it"
    return TidingsError(error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND, text, field="target_seq")


def not_your_message(conversation_id: str, seq: int) -> TidingsError:
    """Only one's own messages can be edited or deleted."""
    text = f"message {seq} of {conversation_id} isn't yours, or is an event: only its sender may edit or delete a message"
    return TidingsError(error_pb2.ERROR_CODE_NOT_YOUR_MESSAGE, text, field="target_seq")


def invalid_recipient(user_id: str) -> TidingsError:
    """Not a user id, or oneself."""
    text = f"{user_id!r} can't be the recipient: name another user by 1-128 characters of [A-Za-z0-9._@+-]"
    return TidingsError(error_pb2.ERROR_CODE_INVALID_RECIPIENT, text, field="recipient_id")


def wrong_conversation_kind(conversation_id: str) -> TidingsError:
    """Direct conversations have two members for ever."""
    text = f"{conversation_id} is direct: only groups can be renamed, joined or left"
    return TidingsError(error_pb2.ERROR_CODE_WRONG_CONVERSATION_KIND, text, field="conversation_id")


def group_too_large(limit: int) -> TidingsError:
    """The group has no room."""
    return TidingsError(error_pb2.ERROR_CODE_GROUP_TOO_LARGE, f"a group has at most {limit} members", field="member_ids")


def too_many_watched(limit: int) -> TidingsError:
    """More presences watched than allowed."""
    text = f"a session watches at most {limit} users: unwatch some first"
    return TidingsError(error_pb2.ERROR_CODE_TOO_MANY_WATCHED, text, field="watch_presence.user_ids")


def request_id_conflict(request_id: str) -> TidingsError:
    """Same request_id, another body."""
    text = f"request_id {request_id!r} was used before with another body: use a new one"
    return TidingsError(error_pb2.ERROR_CODE_REQUEST_ID_CONFLICT, text, field="request_id")


def internal(text: str) -> TidingsError:
    """A fault of ours."""
    return TidingsError(error_pb2.ERROR_CODE_INTERNAL, text, retry_after=1.0)


def last_owner() -> TidingsError:
    """A group keeps an owner."""
    return TidingsError(error_pb2.ERROR_CODE_LAST_OWNER, "the group's last owner can't go: make another member owner first")


def unknown_request(what: str) -> TidingsError:
    """A frame or field from a newer client."""
    return TidingsError(error_pb2.ERROR_CODE_UNKNOWN_REQUEST, f"this server doesn't know {what}: upgrade it")


def fenced(what: str) -> TidingsError:
    """Written under an older fence than the store has seen."""
    text = f"{what} is owned by another instance now: stop working on it, and ask the registry who it is"
    return TidingsError(error_pb2.ERROR_CODE_FENCED, text)


def invalid_expression(text: str, column: int, field: str = "expression") -> TidingsError:
    """An expression can't be read; `column` counts from 1."""
    return TidingsError(error_pb2.ERROR_CODE_INVALID_EXPRESSION, f"{field}: column {column}: {text}", field=field)


def expression_too_large(text: str, field: str = "expression") -> TidingsError:
    """More operands, depth or text than allowed; `text` says which, and the limit."""
    return TidingsError(
        error_pb2.ERROR_CODE_EXPRESSION_TOO_LARGE, f"{field}: {text}: save parts of it as combinations", field=field
    )


def unknown_tag(name: str, kind: str = "tag or combination", *, column: int = 0, field: str = "expression") -> TidingsError:
    """No tag, alias or combination of this name; `column` is where an expression names it, 0 outside one."""
    where = f"column {column}: " if column else ""
    text = f"{field}: {where}there is no {kind} {name!r}: check the spelling, or create it first"
    return TidingsError(error_pb2.ERROR_CODE_UNKNOWN_TAG, text, field=field)


def unknown_user(user_id: str, *, column: int = 0, field: str = "expression") -> TidingsError:
    """Nobody of this id was ever seen."""
    where = f"column {column}: " if column else ""
    text = f"{field}: {where}no user {user_id!r} was ever seen: check the id"
    return TidingsError(error_pb2.ERROR_CODE_UNKNOWN_USER, text, field=field)


def name_taken(name: str, kind: str) -> TidingsError:
    """A tag or combination of this name exists; `kind` says which."""
    text = f"a {kind} named {name!r} exists already: use another name, or update it"
    return TidingsError(error_pb2.ERROR_CODE_NAME_TAKEN, text, field="name")


def combination_cycle(path: Sequence[str], field: str = "expression") -> TidingsError:
    """A combination that would contain itself; `path` is the way round, beginning and ending with it."""
    text = f"the combination would contain itself ({' -> '.join(path)}): leave one of them out"
    return TidingsError(error_pb2.ERROR_CODE_COMBINATION_CYCLE, text, field=field)


def name_in_use(name: str, users: Sequence[str]) -> TidingsError:
    """Something still names it; `users` says what."""
    shown = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
    text = f"{name!r} is still named by {shown}: change that first, or force the deletion"
    return TidingsError(error_pb2.ERROR_CODE_NAME_IN_USE, text, field="name")


def version_conflict(what: str, expected: int, version: int) -> TidingsError:
    """It changed since the version that the caller names."""
    text = f"{what} is at version {version}, not {expected}: read it again, then repeat the change if it still makes sense"
    return TidingsError(error_pb2.ERROR_CODE_VERSION_CONFLICT, text, field="expected_revision")


def snapshot_gone(version: int, oldest: int, newest: int) -> TidingsError:
    """A version of the tags that isn't kept any more, or isn't there yet; those from `oldest` to `newest` are."""
    text = f"version {version} of the tags is not kept: {oldest} to {newest} are; begin again with what is kept"
    return TidingsError(error_pb2.ERROR_CODE_SNAPSHOT_GONE, text, field="version")


def empty_audience() -> TidingsError:
    """Nobody would get it."""
    text = "nobody is in this audience: change it, or set allow_empty_audience"
    return TidingsError(error_pb2.ERROR_CODE_EMPTY_AUDIENCE, text, field="spec.audience")


def notification_not_found(notification_id: str) -> TidingsError:
    """No such notification."""
    text = f"no notification {notification_id!r}: check the id"
    return TidingsError(error_pb2.ERROR_CODE_NOTIFICATION_NOT_FOUND, text, field="notification_id")


def notification_state_conflict(notification_id: str, state: str, needed: str) -> TidingsError:
    """Its state doesn't allow this; `needed` says what would."""
    text = f"{notification_id} is {state}: {needed}"
    return TidingsError(error_pb2.ERROR_CODE_NOTIFICATION_STATE_CONFLICT, text, field="notification_id")


def report_gone(notification_id: str) -> TidingsError:
    """Its recipients aren't kept any more."""
    text = f"of {notification_id} only the totals are kept, not its recipients"
    return TidingsError(error_pb2.ERROR_CODE_REPORT_GONE, text, field="notification_id")


def push_not_configured() -> TidingsError:
    """There is no provider to push with."""
    text = "no push provider is set up here: leave push_policy at NEVER; who is offline gets it on connecting"
    return TidingsError(error_pb2.ERROR_CODE_PUSH_NOT_CONFIGURED, text, field="spec.push_policy")


def network_refused(address: str) -> TidingsError:
    """A caller from elsewhere than the networks allowed."""
    text = f"callers from {address} are not allowed here: add their network to `allowed_networks` if they should be"
    return TidingsError(error_pb2.ERROR_CODE_NETWORK_REFUSED, text)


def unauthenticated(why: str, advice: str = "get a new token or ticket, then try again") -> TidingsError:
    """No valid token, ticket or key."""
    return TidingsError(error_pb2.ERROR_CODE_UNAUTHENTICATED, f"{why}: {advice}")


def origin_refused(origin: str, setting: str) -> TidingsError:
    """A browser's page that isn't on the allow-list; `setting` is the list's name in the service that refuses."""
    text = f"pages of {origin[:200]!r} may not connect here: add it to the `{setting}` setting if they should"
    return TidingsError(error_pb2.ERROR_CODE_ORIGIN_REFUSED, text)


def too_many_connections(whose: str, limit: int, retry_after: float) -> TidingsError:
    """The cap per address or user is reached."""
    text = f"{whose} has {limit} connections open or about to open, the most allowed: close one, or wait {retry_after:.1f} s"
    return TidingsError(error_pb2.ERROR_CODE_TOO_MANY_CONNECTIONS, text, retry_after=retry_after)


def no_capacity(retry_after: float) -> TidingsError:
    """No edge has room."""
    text = f"no edge has room just now: ask again in {retry_after:.1f} s"
    return TidingsError(error_pb2.ERROR_CODE_NO_CAPACITY, text, retry_after=retry_after)

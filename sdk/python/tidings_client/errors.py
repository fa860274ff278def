"""What can go wrong, as types whose text says what to do next."""

# ruff: noqa: N818  (they read as sentences where they are caught)

from tidings.common.v1 import error_pb2
from tidings.common.v1.error_pb2 import ErrorCode

RETRYABLE = frozenset(
    {
        error_pb2.ERROR_CODE_RATE_LIMITED,
        error_pb2.ERROR_CODE_OVERLOADED,
        error_pb2.ERROR_CODE_UNAVAILABLE,
        error_pb2.ERROR_CODE_INTERNAL,
    }
)  # what error.proto says to send again, even where the server gave no time
DEFAULT_RETRY_SECONDS = 1.0  # for a retryable error without a time


class TidingsClientError(Exception):
    """Any error of this package."""


class RequestFailed(TidingsClientError):
    """The server refused a request.

    Attributes:
        code: which error of error.proto; UNSPECIFIED when the answer wasn't one of ours.
        reason: its name, for example "NOT_A_MEMBER".
        retry_after: seconds after which the same request may succeed; None when that won't help.
        field: the field at fault, or empty.
    """

    def __init__(self, error: error_pb2.Error) -> None:
        super().__init__(f"{reason(error.code)}: {error.message}")
        self.code = error.code
        self.reason = reason(error.code)
        self.retry_after = retry_seconds(error)
        self.field = error.field


class SendFailed(RequestFailed):
    """A message was refused for good; nothing of it was stored.

    Attributes:
        client_msg_id: which message.
    """

    def __init__(self, client_msg_id: str, error: error_pb2.Error) -> None:
        super().__init__(error)
        self.client_msg_id = client_msg_id


class BusinessError(TidingsClientError):
    """A business' call failed.

    Attributes:
        reason: which error of error.proto, without its prefix, for example "UNKNOWN_TAG"; or a gRPC status' name.
        message: one sentence for the developer: what was wrong and what to do.
        field: the field at fault, as a path such as "spec.audience"; empty when none.
        retry_after: seconds after which the same call, with the same request_id, may succeed; None when that won't help.
    """

    def __init__(self, reason: str, message: str, field: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after = retry_after


class OutboxFull(TidingsClientError):
    """Too many messages wait to be sent: send this one again when some have gone."""


class RequestTimedOut(TidingsClientError):
    """The server didn't answer in time: ask again."""


class NotConnected(TidingsClientError):
    """This needs a connection, and there is none now: wait for `caught_up`, then ask again."""


class ClientStopped(TidingsClientError):
    """The client has stopped and won't reconnect by itself; the text says why. Unsent messages stay in the state file."""


class StateFileError(TidingsClientError):
    """The state file can't be used; the text says why and what to do."""


def reason(code: int) -> str:
    """An error's name without its prefix."""
    known = ErrorCode.DESCRIPTOR.values_by_number.get(code)
    return known.name.removeprefix("ERROR_CODE_") if known else f"ERROR_{code}"


def retry_seconds(error: error_pb2.Error) -> float | None:
    """When the same request may be sent again; None when that won't help."""
    if error.HasField("retry_after"):
        return max(0.0, error.retry_after.ToTimedelta().total_seconds())
    return DEFAULT_RETRY_SECONDS if error.code in RETRYABLE else None

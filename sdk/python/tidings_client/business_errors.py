"""What a failed gRPC call says, as a `BusinessError`. Pure.

The contract: a status has one ErrorInfo (reason, domain "tidings") and at most a RetryInfo and a BadRequest. A status without is
the network's, a proxy's, or gRPC's own.
"""

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tidings.common.v1.error_pb2 import ErrorCode
from tidings_client.errors import DEFAULT_RETRY_SECONDS, RETRYABLE, BusinessError

DOMAIN = "tidings"
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
_NAMES = {  # where one of our reasons says the same
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "PERMISSION_DENIED",
    grpc.StatusCode.UNIMPLEMENTED: "UNKNOWN_REQUEST",
    grpc.StatusCode.INTERNAL: "INTERNAL",
}


def from_status(error: grpc.aio.AioRpcError, where: str) -> BusinessError:
    """What a failed call says.

    Args:
        where: address and method.
    """
    try:
        return _from_service(error) or _from_transport(error, where)
    except (ValueError, DecodeError):  # details that are broken, or don't fit the status they come with
        return _from_transport(error, where)


def _from_service(error: grpc.aio.AioRpcError) -> BusinessError | None:
    status = rpc_status.from_call(error)
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    for detail in status.details if status is not None else ():
        _ = detail.Unpack(info) or detail.Unpack(retry) or detail.Unpack(bad)
    if status is None or info.domain != DOMAIN or not info.reason:
        return None
    delay = retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else _usual_delay(info.reason)
    field = bad.field_violations[0].field if bad.field_violations else ""
    return BusinessError(info.reason, status.message, field, delay)


def _from_transport(error: grpc.aio.AioRpcError, where: str) -> BusinessError:
    """A status that isn't Tidings' own: the network's, a proxy's, or gRPC's."""
    code, text = error.code(), error.details() or "no more is known"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        text = "no answer in time; it may have been carried out"
    if code in _AWAY:
        text = f"{where}: {text}: make the same call again, with the same request_id"
        return BusinessError("UNAVAILABLE", text, "", DEFAULT_RETRY_SECONDS)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        text = "not known there: is this the right address, and is that server new enough?"
    reason = _NAMES.get(code, code.name)
    return BusinessError(reason, f"{where}: {text}", "", _usual_delay(reason))


def _usual_delay(reason: str) -> float | None:
    number = ErrorCode.DESCRIPTOR.values_by_name.get(f"ERROR_CODE_{reason}")
    return DEFAULT_RETRY_SECONDS if number is not None and number.number in RETRYABLE else None

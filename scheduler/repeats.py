"""Requests that were made before: what they were answered. A refusal is an answer, too."""

from mesh.errors import TidingsError
from mesh.patience import PASSING
from scheduler.ports import NotificationStore
from scheduler.requests import RequestKey
from tidings.common.v1 import error_pb2
from tidings.store.v1.notification_pb2 import FindRequestRequest, RefuseRequestRequest, StoredNotification

# Not the request's fault, but the mesh's: they decide nothing, and the same request may be taken later. A snapshot is gone, or not
# there yet, at a tagsvc that is behind.
_UNDECIDED = PASSING | {
    error_pb2.ERROR_CODE_INTERNAL,
    error_pb2.ERROR_CODE_SNAPSHOT_GONE,
    error_pb2.ERROR_CODE_UNAUTHENTICATED,
    error_pb2.ERROR_CODE_PERMISSION_DENIED,
}


async def first_answer(store: NotificationStore, key: RequestKey) -> StoredNotification | None:
    """What this request was answered; None when it is new.

    Raises:
        TidingsError: REQUEST_ID_CONFLICT, another request has the same id; what it was refused for.
    """
    known = await store.find_request(FindRequestRequest(request_id=key.request_id, request_digest=key.digest))
    return known.notification if known.HasField("notification") else None


async def refuse(store: NotificationStore, key: RequestKey, error: TidingsError) -> StoredNotification:
    """Refuse a request for good, unless it was taken elsewhere: then this is what it was answered there. The store decides, for the
    same request may be under way at another scheduler or store.

    Raises:
        TidingsError: `error`, or what it was refused for first; UNAVAILABLE when that is not decided.
    """
    if error.code in _UNDECIDED:
        raise error
    refusal = RefuseRequestRequest(request_id=key.request_id, request_digest=key.digest, refusal=error.to_frame())
    known = await store.refuse_request(refusal)
    if not known.HasField("notification"):
        raise error
    return known.notification

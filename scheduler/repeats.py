"""Requests that were made before: what they were answered."""

from scheduler.ports import NotificationStore
from scheduler.requests import RequestKey
from tidings.store.v1.notification_pb2 import FindRequestRequest, StoredNotification


async def first_answer(store: NotificationStore, key: RequestKey) -> StoredNotification | None:
    """What this request was answered; None when it is new.

    Raises:
        TidingsError: REQUEST_ID_CONFLICT, another request has the same id.
    """
    known = await store.find_request(FindRequestRequest(request_id=key.request_id, request_digest=key.digest))
    return known.notification if known.HasField("notification") else None

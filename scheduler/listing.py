"""Reading notifications."""

from mesh import errors
from scheduler import checks
from scheduler.ports import NotificationStore
from tidings.common.v1.notification_pb2 import NotificationState
from tidings.scheduler.v1.scheduler_pb2 import ListNotificationsRequest
from tidings.store.v1 import notification_pb2 as store

_USUAL = 100
_MOST = 1_000


class Listing:
    """Finds notifications."""

    def __init__(self, store: NotificationStore) -> None:
        self._store = store

    async def get(self, notification_id: str) -> store.StoredNotification:
        """One of them.

        Raises:
            TidingsError: NOTIFICATION_NOT_FOUND.
        """
        found = await self._store.get(store.GetNotificationsRequest(notification_ids=[notification_id]))
        if not found.notifications:
            raise errors.notification_not_found(notification_id)
        return found.notifications[0]

    async def page(self, request: ListNotificationsRequest) -> store.ListNotificationsResponse:
        """A page, the newest first; it may be shorter than asked for when they are large.

        Raises:
            TidingsError: INVALID_FIELD.
        """
        states = set(request.states)  # a caller may name a million, of which all but a few are repetitions
        for state in states:
            checks.enumerated("states", state, NotificationState)
        question = store.ListNotificationsRequest(
            states=sorted(states),
            type=checks.type_name("type", request.type),
            series_id=checks.notification_id(request.series_id, "series_id") if request.series_id else "",
            page_size=checks.page_size(request.page_size, _USUAL, _MOST),
            page_token=checks.page_token(request.page_token),
        )
        for bound in ("send_after", "send_before"):
            if request.HasField(bound):
                checks.time(bound, getattr(request, bound))
                getattr(question, bound).CopyFrom(getattr(request, bound))
        return await self._store.list(question)

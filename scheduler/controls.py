"""Changing what was uploaded: cancel, pause, resume, reprioritise, reschedule.

Rules: the store decides, in one transaction; routers are told afterwards, which only makes it quick. Before an occurrence of a
series is held back or cancelled its next one is made, so that the series goes on.
"""

from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from mesh import errors
from mesh.times import timestamp
from scheduler import checks, repeats, timing
from scheduler.hints import RefreshHints
from scheduler.ports import NotificationStore
from scheduler.requests import RequestKey
from scheduler.series import Series
from scheduler.timing import Lifetimes
from tidings.store.v1 import notification_pb2 as store


class Controls:
    """What a business can do with its notifications. A repeated request gets the same answer.

    Args:
        clock: microseconds since 1970.
        on_changed: called when something may be due now that wasn't before.

    Raises:
        TidingsError: in all methods NOTIFICATION_NOT_FOUND, NOTIFICATION_STATE_CONFLICT, REQUEST_ID_CONFLICT, INVALID_FIELD.
    """

    def __init__(
        self,
        store: NotificationStore,
        series: Series,
        hints: RefreshHints,
        lifetimes: Lifetimes,
        clock: Callable[[], int],
        on_changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._series = series
        self._hints = hints
        self._lifetimes = lifetimes
        self._clock = clock
        self._on_changed = on_changed

    async def cancel(self, key: RequestKey, notification_id: str, *, whole_series: bool) -> store.StoredNotification:
        """End it, and its series if asked to."""
        request = _request(key, notification_id)
        request.cancel.whole_series = whole_series
        if not whole_series:
            await self._series.go_on(notification_id)
        return await self._control(request)

    async def pause(self, key: RequestKey, notification_id: str) -> store.StoredNotification:
        """Hold it back."""
        request = _request(key, notification_id)
        request.pause.SetInParent()
        await self._series.go_on(notification_id)
        return await self._control(request)

    async def resume(self, key: RequestKey, notification_id: str) -> store.StoredNotification:
        """Let it go on."""
        request = _request(key, notification_id)
        request.resume.SetInParent()
        return await self._control(request)

    async def prioritize(self, key: RequestKey, notification_id: str, priority: int) -> store.StoredNotification:
        """Set its priority, 0 to 9."""
        request = _request(key, notification_id)
        request.prioritize.priority = checks.priority("priority", priority)
        return await self._control(request)

    async def reschedule(
        self, key: RequestKey, notification_id: str, send_time: Timestamp | None, expire_time: Timestamp | None
    ) -> store.StoredNotification:
        """Move it; without a send time to now, without an expiry that moves as much."""
        came, request = self._clock(), _request(key, notification_id)
        if known := await repeats.first_answer(self._store, key):
            return known
        try:
            send_at = timing.send_time("send_time", send_time, came)
            expire_at = timing.expiry("expire_time", expire_time, send_at, self._lifetimes)
        except errors.TidingsError as error:
            return await repeats.refuse(self._store, key, error)
        request.reschedule.send_time.CopyFrom(timestamp(send_at))
        if expire_at is not None:
            request.reschedule.expire_time.CopyFrom(timestamp(expire_at))
        return await self._control(request)

    async def _control(self, request: store.ControlNotificationRequest) -> store.StoredNotification:
        notification = (await self._store.control(request)).notification
        self._hints.offer(request.notification_id)
        self._on_changed()
        return notification


def _request(key: RequestKey, notification_id: str) -> store.ControlNotificationRequest:
    return store.ControlNotificationRequest(
        request_id=checks.request_id(key.request_id),
        request_digest=key.digest,
        notification_id=checks.notification_id(notification_id),
    )

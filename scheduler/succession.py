"""The occurrence of a series that follows another. Pure; times are microseconds since 1970 and passed in."""

from mesh import naming
from mesh.times import microseconds, timestamp
from scheduler.recurrence import Calendar
from scheduler.requests import digest
from tidings.common.v1.notification_pb2 import NotificationSpec
from tidings.store.v1.notification_pb2 import Claim, CreateNotificationRequest, StoredNotification


def successor(current: StoredNotification, now: int, calendar: Calendar) -> CreateNotificationRequest | None:
    """The request that makes the next occurrence: at its next time from now on, for what was missed is left out.

    None when the series ends with this one. The request_id is the same whoever makes it, so that there is one next occurrence.

    Args:
        current: an occurrence in full, with the fence under which it was seen.
    """
    at = _next_time(current, now, calendar)
    if at is None:
        return None
    request_id = f" series/{current.series_id}/{current.occurrence + 1}"
    return CreateNotificationRequest(
        request_id=request_id,
        request_digest=digest(request_id.encode()),
        notification_id=naming.new_notification_id(),
        spec=_moved(current.spec, at),
        recipient_ordinals=current.recipient_ordinals,
        excluded_ordinals=current.excluded_ordinals,
        series_id=current.series_id,
        occurrence=current.occurrence + 1,
        estimated_audience=current.estimated_audience,
        predecessor=Claim(notification_id=current.notification_id, fence=current.fence),
    )


def _next_time(current: StoredNotification, now: int, calendar: Calendar) -> int | None:
    recurrence = current.spec.recurrence
    if recurrence.max_occurrences and current.occurrence >= recurrence.max_occurrences:
        return None
    at = calendar.next_time(recurrence, max(now, microseconds(current.spec.send_time)))
    if at is not None and recurrence.HasField("end_time") and at >= microseconds(recurrence.end_time):
        return None
    return at


def _moved(spec: NotificationSpec, send_at: int) -> NotificationSpec:
    """The same at another time; it lives as long."""
    moved = NotificationSpec()
    moved.CopyFrom(spec)
    lifetime = microseconds(spec.expire_time) - microseconds(spec.send_time)
    moved.send_time.CopyFrom(timestamp(send_at))
    moved.expire_time.CopyFrom(timestamp(send_at + lifetime))
    return moved

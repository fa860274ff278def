"""Between what the store keeps and what a business sees. Pure."""

from tidings.scheduler.v1.scheduler_pb2 import Notification
from tidings.store.v1.notification_pb2 import StoredNotification


def notification(stored: StoredNotification) -> Notification:
    """A notification as a business sees it."""
    return Notification(
        notification_id=stored.notification_id,
        spec=stored.spec,
        report=stored.report,
        series_id=stored.series_id,
        occurrence=stored.occurrence,
        create_time=stored.create_time,
    )

"""Between the store's notifications and the contract's messages."""

from mesh.times import timestamp
from store.notification import Notification
from store.notification_life import Part, remainder
from store.notification_uploads import Stored
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb


def report(one: Notification, now: int) -> common.NotificationReport:
    """What became of it so far. The parts sum up to the expansion because whoever isn't counted otherwise is in the remainder."""
    counts = one.counts
    parts = dict.fromkeys((Part.PENDING, Part.EXPIRED, Part.CANCELLED), 0) | {Part.FAILED: counts.failed}
    parts[remainder(one.state)] += counts.expansion - counts.delivered - counts.failed
    message = common.NotificationReport(
        notification_id=one.notification_id,
        state=common.NotificationState.ValueType(one.state),
        expansion=counts.expansion,
        sent=counts.sent,
        delivered=counts.delivered,
        pending=parts[Part.PENDING],
        failed=parts[Part.FAILED],
        expired=parts[Part.EXPIRED],
        cancelled=parts[Part.CANCELLED],
        channels=[_live(one)],
        snapshot_version=one.snapshot_version,
        reason=one.reason,
        read_time=timestamp(now),
    )
    return _with_optional(message, one)


def _with_optional(message: common.NotificationReport, one: Notification) -> common.NotificationReport:
    if one.counts.expansion:
        message.delivered_percent = 100 * one.counts.delivered / one.counts.expansion
    if one.started_at is not None:
        message.start_time.CopyFrom(timestamp(one.started_at))
    if one.finished_at is not None:
        message.finish_time.CopyFrom(timestamp(one.finished_at))
    return message


def _live(one: Notification) -> common.ChannelReport:
    """The only channel there is so far."""
    return common.ChannelReport(
        channel=common.NOTIFICATION_CHANNEL_LIVE, sent=one.counts.sent, delivered=one.counts.delivered, failed=one.counts.failed
    )


def stored(value: Stored, now: int) -> pb.StoredNotification:
    """A notification as kept."""
    one = value.notification
    message = pb.StoredNotification(
        notification_id=one.notification_id,
        recipient_ordinals=value.upload.recipient_ordinals,
        excluded_ordinals=value.upload.excluded_ordinals,
        report=report(one, now),
        fence=one.fence,
        series_id=one.series_id,
        occurrence=one.occurrence,
        create_time=timestamp(one.created_at),
        request_id=one.request_id,
        estimated_audience=one.estimated_audience,
    )
    message.spec.ParseFromString(value.upload.spec)
    message.spec.priority = one.priority
    message.spec.send_time.CopyFrom(timestamp(one.send_at))
    message.spec.expire_time.CopyFrom(timestamp(one.expire_at))
    return message


def answer(value: Stored, now: int) -> bytes:
    """A notification as a repeated request gets it again."""
    return stored(value, now).SerializeToString()

"""Notifications and their reports as text and as JSON. Pure."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict

from cli.times import local
from tidings.common.v1 import notification_pb2 as common
from tidings.scheduler.v1 import scheduler_pb2 as pb

PARTS = ("delivered", "pending", "failed", "expired", "cancelled")
_OVER = {
    common.NOTIFICATION_STATE_COMPLETED,
    common.NOTIFICATION_STATE_CANCELLED,
    common.NOTIFICATION_STATE_EXPIRED,
    common.NOTIFICATION_STATE_FAILED,
}


def over(report: common.NotificationReport) -> bool:
    """Whether nothing more will be sent."""
    return report.state in _OVER


def state(report: common.NotificationReport) -> str:
    """The state's name: "SENDING"."""
    return common.NotificationState.Name(report.state).removeprefix("NOTIFICATION_STATE_")


def summary(one: pb.Notification) -> str:
    """One line for a list."""
    said = one.spec.content.text.text.splitlines()[:1]
    text = f"{said[0][:40]!r}" if said else one.spec.type
    series = f"  occurrence {one.occurrence} of {one.series_id}" if one.series_id else ""
    what = f"{state(one.report):<9}  priority {one.spec.priority}  due {local(one.spec.send_time)}"
    return f"{one.notification_id}  {what}  {percentage(one.report)}  {text}{series}"


def percentage(report: common.NotificationReport) -> str:
    """The part that has it, with its denominator."""
    if not report.HasField("delivered_percent"):
        return "not expanded yet" if not over(report) else "for nobody"
    return f"{report.delivered_percent:.1f} % of {report.expansion:,} delivered"


def progress_line(report: common.NotificationReport) -> str:
    """How far it is, in one line."""
    return f"{state(report)}: {report.expansion:,} expanded, {report.sent:,} sent, {percentage(report)}"


def report_lines(report: common.NotificationReport) -> Iterator[str]:
    """A report in full."""
    yield f"{report.notification_id}  {state(report)}" + (f" ({report.reason})" if report.reason else "")
    yield f"  expansion {report.expansion:>12,}" + (f"  in snapshot {report.snapshot_version}" if report.snapshot_version else "")
    for name in PARTS:
        yield f"  {name:<9} {getattr(report, name):>12,}"
    for channel in report.channels:
        numbers = f"{channel.sent:,} sent, {channel.delivered:,} delivered, {channel.failed:,} failed"
        yield f"  by {_channel(channel)}: {numbers}"
    yield f"  {percentage(report)}"
    for name, stamp in (("began", report.start_time), ("over", report.finish_time)):
        if stamp.ByteSize():
            yield f"  {name} {local(stamp)}"


def report_json(report: common.NotificationReport) -> dict[str, Any]:
    """A report as `--json` prints it."""
    numbers = {name: getattr(report, name) for name in ("expansion", "sent", *PARTS)}
    channels = [
        {"channel": _channel(one), "sent": one.sent, "delivered": one.delivered, "failed": one.failed} for one in report.channels
    ]
    return {
        "notification_id": report.notification_id,
        "state": state(report),
        **numbers,
        "delivered_percent": report.delivered_percent if report.HasField("delivered_percent") else None,
        "snapshot_version": report.snapshot_version,
        "reason": report.reason,
        "channels": channels,
    }


def to_json(one: pb.Notification) -> dict[str, Any]:
    """A notification as `--json` prints it."""
    spec = MessageToDict(one.spec, preserving_proto_field_name=True)
    return {
        "notification_id": one.notification_id,
        "spec": spec,
        "report": report_json(one.report),
        "series_id": one.series_id,
        "occurrence": one.occurrence,
    }


def _channel(report: common.ChannelReport) -> str:
    return common.NotificationChannel.Name(report.channel).removeprefix("NOTIFICATION_CHANNEL_").lower()

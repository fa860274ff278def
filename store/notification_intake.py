"""From the contract's requests about notifications to the store's values, checked.

All functions raise TidingsError, mostly INVALID_FIELD: see `store.notification_checks`.
"""

from google.protobuf.timestamp_pb2 import Timestamp

from mesh import errors
from store import dead_letter_codec
from store import notification_checks as bounds
from store import notification_control as control
from store.notification import Notification
from store.notification_control import Change
from store.notification_creation import Expansion, NewNotification
from store.notification_failures import FailedRun
from store.notification_life import State
from store.notification_lists import Filter
from store.notification_progress import Delivery, Step
from store.notification_requests import Request, RequestKind
from store.notification_uploads import SpecParts
from store.recipient_blocks import Counts, split
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb


def new_notification(request: pb.CreateNotificationRequest, now: int) -> NewNotification:
    """An upload, SCHEDULED."""
    for field in ("recipient_ordinals", "excluded_ordinals"):
        bounds.bitmap(field, bounds.size(field, getattr(request, field), bounds.MAX_NAMED))
    return NewNotification(
        request=Request(bounds.request_id(request.request_id), RequestKind.CREATE, bounds.digest(request.request_digest)),
        notification=_scheduled(request, now),
        spec=_spec_parts(request.spec),
        recipient_ordinals=request.recipient_ordinals,
        excluded_ordinals=request.excluded_ordinals,
        names=bounds.names(request.names),
        expansion=expansion(request.expansion) if request.HasField("expansion") else None,
        predecessor=_predecessor(request) if request.HasField("predecessor") else None,
    )


def _spec_parts(spec: common.NotificationSpec) -> SpecParts:
    """The encoded spec in three."""
    brief, audience, named = common.NotificationSpec(), common.NotificationSpec(), common.NotificationSpec()
    brief.CopyFrom(spec)
    brief.ClearField("audience")
    if spec.HasField("audience"):
        audience.audience.CopyFrom(spec.audience)
        for field in ("recipient_ids", "excluded_ids"):
            getattr(named.audience, field).extend(getattr(spec.audience, field))
            audience.audience.ClearField(field)
    parts = SpecParts(*(part.SerializeToString() for part in (brief, audience, named)))
    bounds.size("spec", parts.whole, bounds.MAX_SPEC)
    return parts


def _scheduled(request: pb.CreateNotificationRequest, now: int) -> Notification:
    spec = request.spec
    send_at, expire_at = _required("spec.send_time", spec, "send_time"), _required("spec.expire_time", spec, "expire_time")
    if expire_at <= send_at:
        raise errors.invalid_field("spec.expire_time", "later than the send time")
    return Notification(
        notification_id=bounds.notification_id("notification_id", request.notification_id),
        state=State.SCHEDULED,
        priority=bounds.priority("spec.priority", spec.priority),
        send_at=send_at,
        expire_at=expire_at,
        type=bounds.kind("spec.type", spec.type),
        series_id=bounds.notification_id("series_id", request.series_id) if request.series_id else "",
        occurrence=request.occurrence,
        request_id=request.request_id,
        request_digest=request.request_digest,
        created_at=now,
        fence=0,
        lease_owner=None,
        lease_until=0,
        snapshot_version=0,
        counts=Counts(),
        reason="",
        started_at=None,
        finished_at=None,
        status_report=_status_report(spec.status_report),
        recipients_kept=True,
        failures=0,
        estimated_audience=bounds.number("estimated_audience", request.estimated_audience),
        settled=False,
        awaits_next=bool(request.series_id),
    )


def _predecessor(request: pb.CreateNotificationRequest) -> tuple[str, int]:
    if not request.series_id:
        raise errors.invalid_field("predecessor", "absent where there is no series_id")
    return bounds.existing_id(request.predecessor.notification_id), request.predecessor.fence


def _required(field: str, message: common.NotificationSpec | pb.RescheduleAction, name: str) -> int:
    if not message.HasField(name):  # type: ignore[arg-type]
        raise errors.invalid_field(field, "set: the store needs to know it")
    return bounds.instant(field, getattr(message, name))


def _status_report(number: int) -> int:
    if number not in common.StatusReport.values():
        raise errors.invalid_field("spec.status_report", "PER_RECIPIENT or TOTALS")
    return number or common.STATUS_REPORT_PER_RECIPIENT


def expansion(message: pb.Expansion) -> Expansion:
    """Whom a notification is for."""
    data = bounds.size("expansion.user_ordinals", message.user_ordinals, bounds.MAX_BITMAPS)
    ordinals = bounds.bitmap("expansion.user_ordinals", data)
    return Expansion(split(ordinals), bounds.number("expansion.snapshot_version", message.snapshot_version))


def narrowing(request: pb.ListNotificationsRequest) -> Filter:
    """What a listing is narrowed to."""
    return Filter(
        states=bounds.states(request.states),
        type=bounds.kind("type", request.type) if request.type else "",
        series_id=bounds.notification_id("series_id", request.series_id) if request.series_id else "",
        send_after=_bound("send_after", request, 0),
        send_before=_bound("send_before", request, bounds.LATEST + 1),
    )


def _bound(field: str, request: pb.ListNotificationsRequest, otherwise: int) -> int:
    time: Timestamp = getattr(request, field)
    return bounds.instant(field, time) if request.HasField(field) else otherwise  # type: ignore[arg-type]


def control_request(request: pb.ControlNotificationRequest) -> Request:
    """What makes a change idempotent."""
    return Request(bounds.request_id(request.request_id), RequestKind.CONTROL, bounds.digest(request.request_digest))


def refusal(request: pb.RefuseRequestRequest) -> tuple[Request, bytes]:
    """What is refused, and why: an encoded Error."""
    if not request.refusal.code:
        raise errors.invalid_field("refusal.code", "what is wrong with the request")
    refused = Request(bounds.request_id(request.request_id), RequestKind.REFUSED, bounds.digest(request.request_digest))
    return refused, request.refusal.SerializeToString()


def change(request: pb.ControlNotificationRequest) -> Change:
    """What to change."""
    match request.WhichOneof("action"):
        case "cancel":
            return control.cancel(whole_series=request.cancel.whole_series)
        case "pause":
            return control.pause()
        case "resume":
            return control.resume()
        case "prioritize":
            return control.prioritize(bounds.priority("prioritize.priority", request.prioritize.priority))
        case "reschedule":
            return _reschedule(request.reschedule)
        case _:
            raise errors.invalid_field("action", "exactly one")


def _reschedule(action: pb.RescheduleAction) -> Change:
    send_at = _required("reschedule.send_time", action, "send_time")
    expire_at = bounds.instant("reschedule.expire_time", action.expire_time) if action.HasField("expire_time") else None
    return control.reschedule(send_at, expire_at)


def step(message: pb.Progress) -> Step:
    """What an owner did."""
    return Step(
        notification_id=_askable(message.claim.notification_id),
        fence=message.claim.fence,
        sent=split(bounds.bitmap("progress.sent_ordinals", message.sent_ordinals)),
        failed=split(bounds.bitmap("progress.failed_ordinals", message.failed_ordinals)),
        finish=bounds.finish_state(message.finish_state),
        reason=bounds.reason(message.reason),
    )


def failed_run(message: pb.FailedRun) -> FailedRun:
    """What an owner could not do."""
    return FailedRun(
        notification_id=_askable(message.claim.notification_id),
        fence=message.claim.fence,
        reason=dead_letter_codec.reason(message.reason),
        detail=bounds.reason(message.detail),
    )


def delivery(message: pb.Delivered) -> Delivery:
    """Who has one."""
    delivered = split(bounds.bitmap("delivered.user_ordinals", message.user_ordinals))
    return Delivery(_askable(message.notification_id), delivered)


def _askable(notification_id: str) -> str:
    """The database can be asked for it; what can't be an id is like one that is unknown."""
    return notification_id if bounds.is_notification_id(notification_id) else ""

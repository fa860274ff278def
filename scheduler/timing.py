"""When a notification goes out and when it expires: what a business left out is filled in, what can't be is refused. Pure.

Times are microseconds since 1970; now is passed in.
"""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from mesh import errors
from mesh.times import DAY, SECOND, timestamp
from scheduler import checks
from scheduler.recurrence import Calendar
from scheduler.settings import SchedulerSettings
from tidings.common.v1 import notification_pb2 as common

PAST = 5 * SECOND  # between a business's clock and ours; a send time further back is a mistake
AHEAD = 366 * DAY
_TYPE = "notification"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long after its send time a notification expires; in microseconds.

    Attributes:
        usual: when it doesn't say.
        longest: at most.
    """

    usual: int
    longest: int

    @classmethod
    def of(cls, settings: SchedulerSettings) -> "Lifetimes":
        """As configured."""
        return cls(round(settings.expire_days * DAY), round(settings.max_expire_days * DAY))


def complete(spec: common.NotificationSpec, now: int, calendar: Calendar, lifetimes: Lifetimes) -> common.NotificationSpec:
    """A copy with everything set that an upload may leave out.

    Raises:
        TidingsError: INVALID_FIELD.
    """
    full = common.NotificationSpec()
    full.CopyFrom(spec)
    full.type = spec.type or _TYPE
    full.status_report = spec.status_report or common.STATUS_REPORT_PER_RECIPIENT
    full.push_policy = spec.push_policy or common.PUSH_POLICY_NEVER
    full.expand_at = spec.expand_at or common.EXPAND_AT_SEND
    send_at = _first_time(spec, now, calendar)
    full.send_time.CopyFrom(timestamp(send_at))
    expire_at = expiry("spec.expire_time", _given(spec, "expire_time"), send_at, lifetimes) or send_at + lifetimes.usual
    full.expire_time.CopyFrom(timestamp(expire_at))
    return full


def send_time(field: str, given: Timestamp | None, now: int) -> int:
    """The time to send something: now unless one is given.

    Raises:
        TidingsError: INVALID_FIELD, too far in the past or ahead.
    """
    if given is None:
        return now
    at = checks.time(field, given)
    if not now - PAST <= at <= now + AHEAD:
        raise errors.invalid_field(field, f"at most {PAST // SECOND} s in the past and {AHEAD // DAY} days ahead")
    return max(at, now)


def expiry(field: str, given: Timestamp | None, send_at: int, lifetimes: Lifetimes) -> int | None:
    """The time something expires; None unless one is given.

    Raises:
        TidingsError: INVALID_FIELD, not after the send time or too long after it.
    """
    if given is None:
        return None
    at = checks.time(field, given)
    if not send_at < at <= send_at + lifetimes.longest:
        raise errors.invalid_field(field, f"after the send time, by {lifetimes.longest / DAY:g} days at most")
    return at


def _first_time(spec: common.NotificationSpec, now: int, calendar: Calendar) -> int:
    given = send_time("spec.send_time", _given(spec, "send_time"), now)
    if not spec.HasField("recurrence"):
        return given
    field, recurrence = "spec.recurrence", spec.recurrence
    calendar.check(recurrence, field)
    after_now = calendar.next_time(recurrence, now)
    if after_now is None:
        raise errors.invalid_field(f"{field}.cron", "it never fires, at least not within 50 years")
    first = given if spec.HasField("send_time") else after_now
    if recurrence.HasField("end_time") and checks.time(f"{field}.end_time", recurrence.end_time) <= first:
        raise errors.invalid_field(f"{field}.end_time", "after the first occurrence")
    return first


def _given(spec: common.NotificationSpec, name: str) -> Timestamp | None:
    return getattr(spec, name) if spec.HasField(name) else None  # type: ignore[arg-type]

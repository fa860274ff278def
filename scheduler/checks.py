"""Bounds of what businesses send, apart from what the clock, the tags or the store decide. Pure.

Each check raises TidingsError, INVALID_FIELD unless its docstring names another; the field is the path in the request.
"""

import re
from collections.abc import Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from mesh import errors, naming
from mesh.times import MICROSECOND, SECOND, microseconds
from scheduler import fields
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content

MAX_USER_IDS = 10_000
MAX_PRIORITY = 9
MAX_RATE = 1_000_000  # recipients a second
_MAX_CUSTOM_TYPE = 128
_MAX_PAGE_TOKEN = 1_024  # characters; ours are far shorter
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")
_TYPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LAST_SECOND = 253_402_300_799  # of the year 9999, the last that protobuf allows


def request_id(text: str) -> str:
    """A request_id."""
    _check(_REQUEST_ID.fullmatch(text), "request_id", 'give 1-64 characters from "!" to "~", new for each request')
    return text


def notification_id(text: str, field: str = "notification_id") -> str:
    """A notification's id.

    Raises:
        TidingsError: NOTIFICATION_NOT_FOUND.
    """
    if not naming.NOTIFICATION_ID.fullmatch(text):
        raise fields.at(errors.notification_not_found(text), field)
    return text


def time(field: str, stamp: Timestamp) -> int:
    """A time, in microseconds since 1970."""
    fine = 0 <= stamp.seconds <= _LAST_SECOND and 0 <= stamp.nanos < SECOND * MICROSECOND
    _check(fine, field, "a time from 1970 to 9999, with 0 to 999,999,999 nanoseconds")
    return microseconds(stamp)


def priority(field: str, number: int) -> int:
    """A priority."""
    _check(number <= MAX_PRIORITY, field, f"0 to {MAX_PRIORITY}")
    return number


def page_size(number: int, usual: int, most: int) -> int:
    """A page size; 0 means the usual."""
    _check(number <= most, "page_size", f"at most {most:,}")
    return number or usual


def page_token(text: str) -> str:
    """A page token, as far as one can tell."""
    _check(len(text) <= _MAX_PAGE_TOKEN and "\0" not in text, "page_token", "the token of the last page, as it was given")
    return text


def enumerated(field: str, number: int, kind: Any) -> None:
    """A number that its enum knows."""
    if number not in kind.values():
        raise errors.invalid_field(field, f"one of {', '.join(kind.keys())}")


def outcome(number: common.Outcome.ValueType) -> common.Outcome.ValueType:
    """An outcome that recipients may have."""
    enumerated("outcome", number, common.Outcome)
    _check(number, "outcome", "say which recipients to list")
    return number


def type_name(field: str, text: str) -> str:
    """A notification's type; may be empty."""
    _check(not text or _TYPE.fullmatch(text), field, "1-64 characters of [A-Za-z0-9._-]")
    return text


def audience(field: str, whom: common.Audience) -> None:
    """Whom it is for, as far as the tags don't matter."""
    _user_ids(f"{field}.recipient_ids", whom.recipient_ids)
    _user_ids(f"{field}.excluded_ids", whom.excluded_ids)
    _check(whom.recipient_ids or whom.expression, field, "name somebody: recipient_ids, an expression, or both")


def spec(upload: common.NotificationSpec, max_content_bytes: int) -> None:
    """An upload, but for its times.

    Raises:
        TidingsError: INVALID_FIELD, CONTENT_TOO_LARGE, PUSH_NOT_CONFIGURED.
    """
    audience("spec.audience", upload.audience)
    type_name("spec.type", upload.type)
    _content(upload.content, max_content_bytes)
    priority("spec.priority", upload.priority)
    if upload.HasField("rate_per_second"):
        _check(1 <= upload.rate_per_second <= MAX_RATE, "spec.rate_per_second", f"1 to {MAX_RATE:,}; leave it out for no limit")
    enumerated("spec.status_report", upload.status_report, common.StatusReport)
    enumerated("spec.push_policy", upload.push_policy, common.PushPolicy)
    enumerated("spec.expand_at", upload.expand_at, common.ExpandAt)
    if upload.push_policy == common.PUSH_POLICY_WHEN_OFFLINE:
        raise errors.push_not_configured()


def _content(content: Content, most: int) -> None:
    field, size = "spec.content", content.ByteSize()
    if size > most:
        raise fields.at(errors.content_too_large(size, most), field)
    arm = content.WhichOneof("body")
    if arm == "text":
        _check(content.text.text, f"{field}.text.text", "say something: the text is empty")
    elif arm == "custom":
        _check(1 <= len(content.custom.type) <= _MAX_CUSTOM_TYPE, f"{field}.custom.type", f"1-{_MAX_CUSTOM_TYPE} characters")
    else:  # an arm newer than this scheduler has a size, and passes
        _check(size, field, "set exactly one arm")


def _user_ids(field: str, ids: Sequence[str]) -> None:
    _check(len(ids) <= MAX_USER_IDS, field, f"at most {MAX_USER_IDS:,}; name more by a tag")
    wrong = next((one for one in ids if not naming.USER_ID.fullmatch(one)), None)
    if wrong is not None:
        raise errors.invalid_field(field, f"{wrong!r} is not a user id: 1-128 characters of [A-Za-z0-9._@+-]")


def _check(fine: object, field: str, allowed: str) -> None:
    if not fine:
        raise errors.invalid_field(field, allowed)

"""Bounds of what callers send about notifications, and the store's values from it. As in `store.checks`, a breach is a bug of a
service of ours: it is named, and the whole request refused."""

import re
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from mesh import errors, naming
from mesh.times import microseconds
from store.checks import MAX_LIST, MAX_ORDINAL
from store.notification_life import Part, State
from store.notification_uploads import View

MAX_BITMAPS = 15 * 1024 * 1024  # bytes of bitmaps in one request
MAX_SPEC = 4 * 1024 * 1024  # bytes: 20,000 ids of 128 characters, and the content
MAX_NAMED = 1024 * 1024  # bytes of the bitmap of recipients named one by one: 10,000 need a tenth
MAX_OUTCOMES = 8
MAX_REASON = 1_000  # characters; longer ones are cut
LATEST = 253_402_300_799_999_999  # microseconds: the last one of the year 9999
_MAX_NAME = 256  # characters of a tag's, alias's or combination's name
_MAX_LEASE = 3_600_000_000  # an hour
_MAX_64 = 2**63 - 1
_TYPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,64}")
_CLAIMER_ID = re.compile(r"[\x21-\x7e]{1,128}")
_AFTER_ALL = "o"  # ids begin with an n
_DEFAULT_TYPE = "notification"


def is_notification_id(text: str) -> bool:
    """Whether it could be one. What can't be one doesn't exist either."""
    return naming.NOTIFICATION_ID.fullmatch(text) is not None


def notification_id(field: str, text: str) -> str:
    """A notification id.

    Raises:
        TidingsError: INVALID_FIELD, as all in this module.
    """
    if not is_notification_id(text):
        raise errors.invalid_field(field, '"n" and 26 characters of [a-z2-7]')
    return text


def existing_id(text: str) -> str:
    """The id of a notification that should be there.

    Raises:
        TidingsError: NOTIFICATION_NOT_FOUND.
    """
    if not is_notification_id(text):
        raise errors.notification_not_found(text)
    return text


def request_id(text: str) -> str:
    """A request id."""
    if not _REQUEST_ID.fullmatch(text):
        raise errors.invalid_field("request_id", "1-64 printable ASCII characters")
    return text


def digest(data: bytes) -> bytes:
    """A request's digest."""
    if not 16 <= len(data) <= 64:
        raise errors.invalid_field("request_digest", "16-64 bytes")
    return data


def claimer_id(text: str) -> str:
    """An instance's id."""
    if not _CLAIMER_ID.fullmatch(text):
        raise errors.invalid_field("claimer_id", "1-128 printable ASCII characters without spaces")
    return text


def kind(field: str, text: str) -> str:
    """A type; the empty one has a name too."""
    if text and not _TYPE.fullmatch(text):
        raise errors.invalid_field(field, "1-64 characters of [A-Za-z0-9._-], or empty")
    return text or _DEFAULT_TYPE


def priority(field: str, number: int) -> int:
    """A priority."""
    if number > 9:
        raise errors.invalid_field(field, "0 to 9")
    return number


def number(field: str, value: int) -> int:
    """An unsigned number that a database's bigint holds."""
    if value > _MAX_64:
        raise errors.invalid_field(field, "less than 2^63")
    return value


def names(items: Iterable[str]) -> list[str]:
    """Names of tags, aliases and combinations."""
    listed = list(items)
    if len(listed) > MAX_LIST:
        raise errors.invalid_field("names", f"at most {MAX_LIST:,} items")
    if not all(1 <= len(name) <= _MAX_NAME and "\0" not in name for name in listed):
        raise errors.invalid_field("names", f"1-{_MAX_NAME} characters each, none of them NUL")
    return listed


def instant(field: str, time: Timestamp) -> int:
    """A time, in microseconds."""
    if not 0 <= (value := microseconds(time)) <= LATEST:
        raise errors.invalid_field(field, "a time from 1970 to 9999")
    return value


def lease(duration: Duration) -> int:
    """A lease, in microseconds."""
    length = duration.seconds * 1_000_000 + duration.nanos // 1_000
    if not 0 < length <= _MAX_LEASE:
        raise errors.invalid_field("lease", "more than 0, at most an hour")
    return length


def ahead(duration: Duration, lease: int) -> int:
    """How long ahead of its time to claim, in microseconds."""
    length = duration.seconds * 1_000_000 + duration.nanos // 1_000
    if not 0 <= length < lease:
        raise errors.invalid_field("ahead", "not negative, and shorter than the lease")
    return length


def limit(value: int) -> int:
    """How many to claim."""
    if not 1 <= value <= MAX_LIST:
        raise errors.invalid_field("limit", f"1 to {MAX_LIST:,}")
    return value


def size(field: str, data: bytes, most: int) -> bytes:
    """Bytes, not too many."""
    if len(data) > most:
        raise errors.invalid_field(field, f"at most {most:,} bytes")
    return data


def together(field: str, blobs: Iterable[bytes]) -> None:
    """Bitmaps of one request are not too large together."""
    if sum(map(len, blobs)) > MAX_BITMAPS:
        raise errors.invalid_field(field, f"bitmaps of at most {MAX_BITMAPS:,} bytes together")


def bitmap(field: str, data: bytes) -> BitMap:
    """A bitmap of user ordinals; no bytes at all are nobody."""
    if not data:
        return BitMap()
    try:
        ordinals = BitMap.deserialize(data)
        sound = not ordinals or (ordinals.min() >= 1 and ordinals.max() <= MAX_ORDINAL)
    except (ValueError, IndexError):
        raise errors.invalid_field(field, "a roaring bitmap in the portable serialisation") from None
    if not sound:
        raise errors.invalid_field(field, f"user ordinals, which are 1 to {MAX_ORDINAL:,}")
    return ordinals


def states(numbers: Iterable[int]) -> frozenset[State]:
    """States of notifications."""
    wanted = set(numbers)
    if not wanted <= set(State):
        raise errors.invalid_field("states", "SCHEDULED to FAILED")
    return frozenset(map(State, wanted))


def finish_state(value: int) -> State | None:
    """How an owner says that a notification is over; None when it goes on."""
    if value not in {0, State.COMPLETED, State.EXPIRED, State.FAILED}:
        raise errors.invalid_field("progress.finish_state", "COMPLETED, EXPIRED, FAILED, or UNSPECIFIED while it goes on")
    return State(value) if value else None


def reason(text: str) -> str:
    """Why a notification failed, as far as it can be kept."""
    return text.replace("\0", "?")[:MAX_REASON]


def page_token(text: str) -> str:
    """The id before which a page begins: the last one of the page before, or one after all ids."""
    if text and not is_notification_id(text):
        raise errors.invalid_field("page_token", "the token of the last page, as it was given")
    return text or _AFTER_ALL


def view(value: int) -> View:
    """How much of a notification to tell."""
    if value not in {0, *View}:
        raise errors.invalid_field("view", "FULL, ORDINALS or BRIEF")
    return View(value or View.FULL)


def outcomes(numbers: Iterable[int]) -> list[Part]:
    """Parts of an audience, 1 to 8 of them."""
    wanted = list(numbers)
    if not 1 <= len(wanted) <= MAX_OUTCOMES or not set(wanted) <= set(Part):
        raise errors.invalid_field("outcomes", f"1 to {MAX_OUTCOMES} of EXPANSION to CANCELLED")
    return [Part(value) for value in wanted]

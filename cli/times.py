"""Times as people type them on the command line."""

import re
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from cli.failure import CommandError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AFTER = re.compile(r"\+(\d+(?:\.\d+)?)([smhd])")
_HINT = "write +10m, +2h or +1d from now, or a time such as 2030-12-31T18:00, with +01:00 or Z when it isn't this machine's zone"


def moment(text: str, option: str, now: datetime | None = None) -> Timestamp:
    """The moment that a word means: +10m, or ISO 8601 (this machine's zone when it names none).

    Raises:
        CommandError: it means none.
    """
    found = _parse(text, now or datetime.now(UTC))
    if found is None:
        raise CommandError(f"{option} {text!r} is no time", _HINT)
    stamp = Timestamp()
    stamp.FromDatetime(found.astimezone(UTC))
    return stamp


def _parse(text: str, now: datetime) -> datetime | None:
    try:
        if after := _AFTER.fullmatch(text):
            return now + timedelta(**{_UNITS[after[2]]: float(after[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def local(stamp: Timestamp) -> str:
    """A moment for people, in this machine's zone; empty when it isn't set."""
    return stamp.ToDatetime(UTC).astimezone().isoformat(" ", "seconds") if stamp.ByteSize() else ""

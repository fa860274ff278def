"""When something recurs: cron expressions in time zones. Pure; times are microseconds since 1970 and passed in.

A time that a zone skips in spring is made up for at the end of the gap; one that comes twice in autumn counts the first time.
Expressions that count whole hours or minutes ("*") follow elapsed time instead, as Debian's cron does.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from mesh import errors
from mesh.times import SECOND
from tidings.common.v1.notification_pb2 import Recurrence

_FIELDS = 5
_MAX_CRON = 256  # characters; the longest sensible one lists every minute of an hour
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Calendar:
    """Reads recurrences.

    Args:
        zones: names of the time zones there are.
    """

    def __init__(self, zones: frozenset[str]) -> None:
        self._zones = zones

    @classmethod
    def load(cls) -> "Calendar":
        """With the zones of the tzdata package, which are there on every machine."""
        return cls(frozenset(resources.files("tzdata").joinpath("zones").read_text().split()))

    def check(self, recurrence: Recurrence, field: str) -> None:
        """See that a recurrence can be read.

        Raises:
            TidingsError: INVALID_FIELD.
        """
        if recurrence.time_zone and recurrence.time_zone not in self._zones:
            raise errors.invalid_field(f"{field}.time_zone", 'an IANA time zone such as "Europe/Zurich", or empty for UTC')
        if len(recurrence.cron) > _MAX_CRON or len(recurrence.cron.split()) != _FIELDS:
            raise errors.invalid_field(
                f"{field}.cron", f"five fields (minute, hour, day of month, month, day of week), {_MAX_CRON} characters at most"
            )
        try:
            CronSim(recurrence.cron, _EPOCH)
        except (CronSimError, ValueError, AssertionError) as error:
            raise errors.invalid_field(f"{field}.cron", f"{str(error) or 'it can not be read'}; see cron(5)") from error

    def next_time(self, recurrence: Recurrence, after: int) -> int | None:
        """The first time after this one, whatever the recurrence's end; None when none comes within 50 years.

        Args:
            recurrence: one that passed `check`.
        """
        zone = ZoneInfo(recurrence.time_zone) if recurrence.time_zone else UTC
        begin = (_EPOCH + timedelta(seconds=after // SECOND)).astimezone(zone)
        for time in _times(recurrence.cron, begin):
            # Compared as instants: within an hour that comes twice, a time of day may lie before the one we started at.
            found = round((time - _EPOCH).total_seconds()) * SECOND
            if found > after:
                return found
        return None


def _times(cron: str, begin: datetime) -> Iterator[datetime]:
    try:
        yield from CronSim(cron, begin)
    except (OverflowError, ValueError):
        return  # past the last year a calendar has

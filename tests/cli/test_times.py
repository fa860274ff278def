"""Times as people type them."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cli.failure import CommandError
from cli.times import local, moment

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("+90s", datetime(2030, 1, 1, 12, 1, 30, tzinfo=UTC)),
        ("+1.5h", datetime(2030, 1, 1, 13, 30, tzinfo=UTC)),
        ("+2d", datetime(2030, 1, 3, 12, 0, tzinfo=UTC)),
        ("2030-12-31T18:00Z", datetime(2030, 12, 31, 18, 0, tzinfo=UTC)),
        ("2030-12-31T18:00+01:00", datetime(2030, 12, 31, 17, 0, tzinfo=UTC)),
    ],
)
def test_moments(text: str, meant: datetime) -> None:
    assert moment(text, "--at", NOW).ToDatetime(UTC) == meant


def test_a_time_without_a_zone_is_this_machines() -> None:
    assert moment("2030-12-31T18:00", "--at").ToDatetime(UTC) == datetime(2030, 12, 31, 18, 0).astimezone(UTC)


@pytest.mark.parametrize("text", ["soon", "+10", "+10y", "10m", "2030-13-01", "+9999999999d", ""])
def test_what_is_no_time_is_said_with_its_option(text: str) -> None:
    with pytest.raises(CommandError, match=r"--at .* is no time"):
        moment(text, "--at", NOW)


def test_a_moment_that_is_not_set_is_nothing() -> None:
    assert local(Timestamp()) == ""

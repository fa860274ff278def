"""The pure parts: recurrences over changes of the clocks, when to look again, how long to leave a router alone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from mesh.errors import TidingsError
from mesh.times import MINUTE, SECOND, clock, microseconds, timestamp
from scheduler.backoff import LONGEST_SECONDS, Backoff
from scheduler.fields import at as moved
from scheduler.fields import expression_at
from scheduler.pace import Pace
from scheduler.recipients import Place
from scheduler.recurrence import Calendar
from scheduler.requests import request_key
from scheduler.settings import SchedulerSettings
from scheduler.succession import successor
from tests.scheduler.business import at, spec, stamp
from tidings.common.v1.notification_pb2 import Recurrence
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings.store.v1.notification_pb2 import StoredNotification

CALENDAR = Calendar.load()
ZONES = ["", "UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"]


def following(cron: str, zone: str, after: str, count: int) -> list[str]:
    """The next times as that zone's clocks show them."""
    found, time = [], at(after)
    for _ in range(count):
        next_time = CALENDAR.next_time(Recurrence(cron=cron, time_zone=zone), time)
        assert next_time is not None
        time = next_time
        shown = datetime.fromtimestamp(time // SECOND, ZoneInfo(zone or "UTC"))
        found.append(shown.strftime("%m-%d %H:%M%z"))
    return found


def test_a_time_of_day_stays_when_the_clocks_change() -> None:
    assert following("0 8 * * *", "Europe/Zurich", "2026-03-28 00:00", 3) == [
        "03-28 08:00+0100",
        "03-29 08:00+0200",
        "03-30 08:00+0200",
    ]
    assert following("0 8 * * *", "Europe/Zurich", "2026-10-24 00:00", 3) == [
        "10-24 08:00+0200",
        "10-25 08:00+0100",
        "10-26 08:00+0100",
    ]


def test_a_time_that_is_skipped_in_spring_comes_at_the_end_of_the_gap() -> None:
    assert following("30 2 * * *", "Europe/Zurich", "2026-03-28 00:00", 3) == [
        "03-28 02:30+0100",
        "03-29 03:00+0200",
        "03-30 02:30+0200",
    ]


def test_a_time_that_comes_twice_in_autumn_counts_once() -> None:
    assert following("30 2 * * *", "Europe/Zurich", "2026-10-24 00:00", 3) == [
        "10-24 02:30+0200",
        "10-25 02:30+0200",
        "10-26 02:30+0100",
    ]


def test_asked_within_the_second_of_two_equal_hours_it_does_not_go_back_to_the_first() -> None:
    assert following("45 2 * * *", "Europe/Zurich", "2026-10-25 02:35+01:00", 1) == ["10-26 02:45+0100"]


def test_every_so_many_minutes_follows_elapsed_time() -> None:
    found = following("*/30 * * * *", "Europe/Zurich", "2026-10-25 01:45+02:00", 5)
    assert found == ["10-25 02:00+0200", "10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100", "10-25 03:00+0100"]


@given(
    cron=st.sampled_from(["* * * * *", "*/7 * * * *", "0 8 * * *", "30 2 * * *", "15,45 1-3 * * SUN", "0 0 1 * *", "59 23 L * *"]),
    zone=st.sampled_from(ZONES),
    after=st.integers(at("2026-01-01"), at("2028-01-01")),
)
def test_the_next_time_is_later_on_the_minute_and_none_lies_between(cron: str, zone: str, after: int) -> None:
    recurrence = Recurrence(cron=cron, time_zone=zone)
    found = CALENDAR.next_time(recurrence, after)
    assert found is not None
    assert found > after
    assert found % MINUTE == 0
    assert CALENDAR.next_time(recurrence, found - 1) == found
    assert CALENDAR.next_time(recurrence, (after + found - 1) // 2) == found


@given(zone=st.sampled_from(ZONES), after=st.integers(at("2026-01-01"), at("2028-01-01")))
def test_a_daily_time_comes_about_once_a_day(zone: str, after: int) -> None:
    first = CALENDAR.next_time(Recurrence(cron="30 2 * * *", time_zone=zone), after)
    second = CALENDAR.next_time(Recurrence(cron="30 2 * * *", time_zone=zone), first or 0)
    assert first is not None
    assert second is not None
    assert timedelta(hours=22) < timedelta(microseconds=second - first) < timedelta(hours=26)


def test_what_never_fires_has_no_next_time() -> None:
    assert CALENDAR.next_time(Recurrence(cron="0 0 */31 2 7#5"), clock()) is None


@given(cron=st.text(max_size=40))
def test_whatever_is_written_as_a_cron_expression_is_read_or_refused_by_name(cron: str) -> None:
    try:
        CALENDAR.check(Recurrence(cron=cron), "recurrence")
    except TidingsError as error:
        assert (error.reason, error.field) == ("INVALID_FIELD", "recurrence.cron")


@given(parts=st.lists(st.text("0123456789*/,-#LW", min_size=1, max_size=6), min_size=5, max_size=5))
def test_whatever_looks_like_a_cron_expression_is_read_or_refused_by_name(parts: list[str]) -> None:
    recurrence = Recurrence(cron=" ".join(parts))
    try:
        CALENDAR.check(recurrence, "recurrence")
    except TidingsError as error:
        assert error.field == "recurrence.cron"
    else:
        CALENDAR.next_time(recurrence, at("2026-06-01"))


@pytest.mark.parametrize(
    "zone", ["europe/zurich", "localtime", "posix/UTC", "right/UTC", "Europe", "/etc/localtime", "\0", "UTC+1"]
)
def test_only_names_of_time_zones_are_time_zones(zone: str) -> None:
    with pytest.raises(TidingsError, match="time_zone"):
        CALENDAR.check(Recurrence(cron="0 8 * * *", time_zone=zone), "spec.recurrence")


def test_every_zone_that_is_listed_can_be_read() -> None:
    zones = Calendar.load()._zones
    assert len(zones) > 400
    for zone in zones:
        assert CALENDAR.next_time(Recurrence(cron="0 8 * * *", time_zone=zone), at("2026-06-01"))


def occurrence(**recurrence: object) -> StoredNotification:
    """The third of a series."""
    given_spec = spec(send_time=stamp("2026-06-01 08:00"), expire_time=stamp("2026-06-03 08:00"))
    given_spec.recurrence.CopyFrom(Recurrence(**({"cron": "0 8 * * *"} | recurrence)))  # type: ignore[arg-type]
    return StoredNotification(notification_id="n1", spec=given_spec, fence=4, series_id="n0", occurrence=3, estimated_audience=9)


def test_the_next_occurrence_is_the_same_whoever_makes_it() -> None:
    one = successor(occurrence(), at("2026-06-01 08:00"), CALENDAR)
    other = successor(occurrence(), at("2026-06-01 09:30"), CALENDAR)
    assert one is not None
    assert other is not None
    assert one.notification_id != other.notification_id
    other.notification_id = one.notification_id
    assert one == other
    assert (one.request_id, one.occurrence, one.estimated_audience) == (" series/n0/4", 4, 9)
    assert (one.predecessor.notification_id, one.predecessor.fence) == ("n1", 4)
    assert (one.spec.send_time, one.spec.expire_time) == (stamp("2026-06-02 08:00"), stamp("2026-06-04 08:00"))


@pytest.mark.parametrize(
    ("recurrence", "last"),
    [
        ({"max_occurrences": 3}, True),
        ({"max_occurrences": 4}, False),
        ({"end_time": stamp("2026-06-02 08:00")}, True),
        ({"end_time": stamp("2026-06-02 08:01")}, False),
        ({"cron": "0 0 */31 2 7#5"}, True),
    ],
)
def test_a_series_ends(recurrence: dict[str, object], last: bool) -> None:
    assert (successor(occurrence(**recurrence), at("2026-06-01 08:00"), CALENDAR) is None) == last


def test_the_next_look_is_when_the_next_one_is_due_or_at_the_poll() -> None:
    pace, now = Pace(1.0), at("2026-06-01")
    assert pace.after_claim(0, 10, None, now) == 1.0
    assert pace.after_claim(0, 10, now + 300_000, now) == pytest.approx(0.3)
    assert pace.after_claim(0, 10, now + 5 * SECOND, now) == 1.0
    assert pace.after_claim(10, 10, now + SECOND, now) == 0.0, "there may be more"


def test_a_clock_ahead_of_the_stores_costs_delay_and_no_spin() -> None:
    pace, now = Pace(1.0), at("2026-06-01")
    waits = [pace.after_claim(0, 10, now - 500_000, now) for _ in range(15)]
    assert waits[:4] == [0.001, 0.002, 0.004, 0.008]
    assert waits[-1] == 1.0
    assert pace.after_claim(1, 10, now - 1, now) == 0.001, "it came: begin anew"


def test_a_store_that_fails_is_asked_ever_more_seldom() -> None:
    pace = Pace(1.0)
    waits = [pace.after_failure() for _ in range(15)]
    assert waits[0] < 0.01
    assert waits[-1] == 1.0
    assert waits == sorted(waits)
    pace.after_claim(0, 10, None, 0)
    assert pace.after_failure() == waits[0]


def test_each_router_is_left_alone_by_its_own_count() -> None:
    backoff = Backoff()
    delays = [backoff.failed("one") for _ in range(10)]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_SECONDS
    assert backoff.failed("other") == delays[0]
    backoff.succeeded("one")
    assert backoff.failed("one") == delays[0]
    for number in range(2_000):
        backoff.failed(str(number))
    assert len(backoff._delays) <= 1_000


def test_a_digest_is_of_the_whole_request_and_its_kind() -> None:
    def digest(request: pb.PauseNotificationRequest | pb.ResumeNotificationRequest) -> bytes:
        return request_key("r", request).digest

    one = digest(pb.PauseNotificationRequest(request_id="r", notification_id="n"))
    assert one == digest(pb.PauseNotificationRequest(request_id="r", notification_id="n"))
    assert one != digest(pb.ResumeNotificationRequest(request_id="r", notification_id="n"))
    assert one != digest(pb.PauseNotificationRequest(request_id="r", notification_id="m"))
    assert 16 <= len(one) <= 64


def test_an_error_moves_to_another_field_with_its_message() -> None:
    error = moved(errors.unknown_tag("gold", column=3), "spec.audience.expression")
    assert error.message.startswith("spec.audience.expression: column 3: there is no tag")
    assert (error.reason, error.field) == ("UNKNOWN_TAG", "spec.audience.expression")
    with pytest.raises(TidingsError) as raised, expression_at("spec.audience.expression"):
        raise errors.unavailable("the tags' service is away", 2.5)
    assert (raised.value.field, raised.value.retry_after) == ("", 2.5)


@given(after=st.integers(0, 2**32 - 2))
def test_a_place_in_a_listing_is_found_again(after: int) -> None:
    place = Place("n" + "a" * 26, 3, after)
    assert Place("n" + "a" * 26, 3, 0).moved_by(str(place)) == place


@pytest.mark.parametrize("after", [-1, 2**32 - 1, 2**64, 10**30])
def test_a_place_where_nobody_can_be_is_refused_by_name(after: int) -> None:
    with pytest.raises(TidingsError, match="page_token"):
        Place("n" + "a" * 26, 3, 0).moved_by(str(Place("n" + "a" * 26, 3, after)))


@given(token=st.text(min_size=1))
def test_any_other_token_is_refused_by_name(token: str) -> None:
    with pytest.raises(TidingsError, match="page_token"):
        Place("n" + "a" * 26, 3, 0).moved_by(token)


@given(st.integers(0, 253_402_300_799_999_999))
def test_times_cross_the_contract_unchanged(time: int) -> None:
    assert microseconds(timestamp(time)) == time


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="expire_days"):
        SchedulerSettings(expire_days=31)
    with pytest.raises(ValueError, match="handover_seconds"):
        SchedulerSettings(handover_seconds=10, lease_seconds=10)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_SCHEDULER_LEASE_SECONDS", "30")
    monkeypatch.setenv("TIDINGS_SCHEDULER_ALLOWED_NETWORKS", '["10.0.0.0/8"]')
    settings = SchedulerSettings.from_command_line(["--port", "0"])
    assert (settings.port, settings.lease_seconds, settings.allowed_networks) == (0, 30.0, ["10.0.0.0/8"])
    assert SchedulerSettings().port == 9092


def test_now_is_in_microseconds() -> None:
    assert abs(clock() - datetime.now(UTC).timestamp() * SECOND) < 5 * SECOND

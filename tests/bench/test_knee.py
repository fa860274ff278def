"""The search finds the knee of a system whose knee is known, and a single hiccup doesn't mislead it."""

from hypothesis import given
from hypothesis import strategies as st

from bench.knee import GROWTH, KneeSearch, Trial
from bench.latency import summarize


def search(capacity: float, hiccups: set[int] = frozenset()) -> KneeSearch:  # type: ignore[assignment]
    found = KneeSearch()
    for number in range(200):
        rate = found.next_rate
        if rate is None:
            return found
        good = rate <= capacity and number not in hiccups
        found.record(Trial(rate, min(rate, capacity), 5.0 if good else 500.0))
    raise AssertionError("the search doesn't end")


@given(st.floats(40, 1_000))
def test_a_slow_system_has_a_knee_too(capacity: float) -> None:
    assert capacity / 2 <= search(capacity).knee <= capacity


@given(st.floats(1_000, 200_000))
def test_the_knee_is_found_from_below_and_closely(capacity: float) -> None:
    knee = search(capacity).knee
    assert knee <= capacity
    assert knee >= capacity / GROWTH * 0.99
    assert knee >= capacity * 0.9 or knee >= capacity - (GROWTH - 1) * capacity / 4


@given(st.floats(5_000, 50_000), st.integers(0, 4))
def test_one_hiccup_is_forgiven(capacity: float, when: int) -> None:
    assert search(capacity, {when}).knee >= capacity / GROWTH * 0.99


def test_a_system_that_can_do_nothing_has_no_knee() -> None:
    assert search(10.0).knee == 0


def test_a_knee_that_does_not_last_is_lowered_until_there_is_none() -> None:
    found = search(5_000.0)
    before = found.knee
    longer = Trial(before, before, 500.0)
    found.lower(longer)
    assert 0.8 * before < found.knee < 0.9 * before
    for _ in range(40):
        found.lower(longer)
    assert found.knee == 0
    assert found.lowered == [longer] * 41


def test_saturation_goes_on_until_the_system_falls_behind() -> None:
    found, offered = search(3_000), []
    while rate := found.saturation():
        offered.append(rate)
        found.note(Trial(rate, min(rate, 9_000), 500.0))
    assert found.peak_stored_rate == 9_000
    assert 9_000 * 1.3 < offered[-1] < 9_000 * 2.25


def test_falling_behind_is_failing_even_when_it_is_quick() -> None:
    assert not Trial(1000, 900, 1.0).held


def test_percentiles_are_of_the_samples() -> None:
    latency = summarize(n / 1000 for n in range(1, 1001))
    assert (latency.p50, latency.p95, latency.p99, latency.p999, latency.max) == (500, 950, 990, 999, 1000)
    assert summarize([]).count == 0

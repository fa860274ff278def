"""The circuit breaker of one node: when it is passed over, for how long, and what lets it in again."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.breaker import FAILURES, FIRST_SECONDS, LONGEST_SECONDS, PROBE_SECONDS, Breaker, State


def breaker() -> Breaker:
    return Breaker(lambda: 1.0)


def test_it_opens_after_some_refusals_in_a_row() -> None:
    one = breaker()
    for _ in range(FAILURES - 1):
        one.on_refused(0.0)
    one.on_answered()
    for _ in range(FAILURES - 1):
        one.on_refused(0.0)
    assert one.state is State.CLOSED
    one.on_refused(5.0)
    assert (one.state, one.until) == (State.OPEN, 5.0 + FIRST_SECONDS)


def test_silence_opens_it_at_once_and_what_failed_with_it_says_nothing_new() -> None:
    one = breaker()
    one.on_silence(0.0)
    for _ in range(50):
        one.on_silence(0.3)
    assert (one.state, one.until) == (State.OPEN, FIRST_SECONDS)
    assert not one.doubted(0.3)
    assert one.doubted(FIRST_SECONDS)
    assert not one.admits(FIRST_SECONDS), "no caller's call is risked"
    one.on_answered()
    assert one.admits(0.3)


def test_one_call_decides_and_each_time_it_fails_the_next_waits_twice_as_long() -> None:
    one, now, waits = breaker(), 0.0, []
    for _ in range(FAILURES):
        one.on_refused(now)
    for _ in range(8):
        waits.append(one.until - now)
        now = one.until
        one.on_asked(now)
        assert one.state is State.HALF_OPEN
        assert not one.admits(now + 1.0), "only one at a time"
        one.on_refused(now)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, LONGEST_SECONDS, LONGEST_SECONDS, LONGEST_SECONDS]
    one.on_asked(one.until)
    one.on_answered()
    assert one.state is State.CLOSED
    one.on_silence(now)
    assert one.until == now + FIRST_SECONDS, "it begins anew"


def test_a_call_without_an_outcome_holds_up_no_other() -> None:
    one = breaker()
    one.on_silence(0.0)
    one.on_asked(1.0)
    one.on_forgotten(1.5)
    assert one.doubted(1.5)
    one.on_asked(2.0)
    assert not one.doubted(2.0 + PROBE_SECONDS - 0.1)
    assert one.doubted(2.0 + PROBE_SECONDS)


@given(st.lists(st.tuples(st.sampled_from(["asked", "answered", "refused", "silence", "forgotten"]), st.floats(0.0, 20.0))))
def test_whatever_happens_it_is_asked_again_in_bounded_time_and_an_answer_closes_it(events: list[tuple[str, float]]) -> None:
    one, now = breaker(), 0.0
    for what, later in events:
        now += later
        if what == "answered":
            one.on_answered()
            assert one.admits(now)
        else:
            getattr(one, f"on_{what}")(now)
        assert one.state is State.CLOSED or one.until <= now + max(LONGEST_SECONDS, PROBE_SECONDS)

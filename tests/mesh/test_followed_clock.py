"""A clock that goes by another's."""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from mesh.followed_clock import FollowedClock
from mesh.times import SECOND, timestamp

HOUR = 3_600 * SECOND
DELAYS = st.integers(0, 5 * SECOND)


@dataclass
class Clock:
    """Shows what a test sets."""

    now: int

    def __call__(self) -> int:
        return self.now


class Pair:
    """Our steady clock, the other's, which shows so much more, and the one that follows."""

    def __init__(self, ahead: int, wrong: int = 0) -> None:
        self.steady, self.ahead = Clock(1_000 * SECOND), ahead
        self.own = Clock(self.steady.now + ahead + wrong)
        self.clock = FollowedClock(self.own, self.steady)

    @property
    def error(self) -> int:
        """Microseconds by which the follower is ahead."""
        return self.clock() - self.steady.now - self.ahead

    def ask(self, there: int, back: int) -> int:
        """An answer that takes so long to be asked for and so long to come; gives the move."""
        asked = self.steady.now
        self.steady.now += there
        said = self.steady.now + self.ahead
        self.steady.now += back
        return self.clock.learn(asked, said, self.steady.now)


@given(st.integers(-HOUR, HOUR), st.lists(st.tuples(DELAYS, DELAYS), min_size=1))
def test_it_is_right_but_for_the_time_that_the_quickest_answer_took(wrong: int, answers: list[tuple[int, int]]) -> None:
    pair = Pair(7 * HOUR, wrong)
    for there, back in answers:
        pair.ask(there, back)
    assert abs(pair.error) <= min(there + back for there, back in answers)


@given(st.integers(-HOUR, HOUR), st.tuples(DELAYS, DELAYS))
def test_what_agrees_with_an_answer_stays(said: int, delays: tuple[int, int]) -> None:
    pair = Pair(said)
    assert pair.ask(*delays) == 0
    assert pair.error == 0


def test_it_follows_when_the_other_is_set_forward_and_back() -> None:
    pair = Pair(0)
    for step in (HOUR, -2 * HOUR):
        pair.ahead += step
        assert abs(pair.ask(10, 10) - step) <= 20
        assert abs(pair.error) <= 20


def test_between_answers_it_goes_on_though_this_machine_is_set() -> None:
    pair = Pair(0)
    pair.ask(10, 10)
    pair.own.now += HOUR
    pair.steady.now += SECOND
    assert abs(pair.error) <= 20
    assert abs(pair.clock.own_ahead - (HOUR - SECOND)) <= 20


def test_an_answer_that_says_no_time_changes_nothing() -> None:
    pair = Pair(5)
    pair.clock.heard(0, Timestamp())
    assert pair.error == 0
    pair.clock.heard(pair.steady.now, timestamp(HOUR))
    assert pair.clock() == HOUR

"""When a process that ended is started again."""

import pytest

from cli.comeback import FIRST_PAUSE, LONGEST_PAUSE, SETTLED_SECONDS, Comeback


def test_pauses_double_up_to_the_longest() -> None:
    comeback, pauses = Comeback(), []
    for now in range(0, 700, 100):
        comeback.ready(now)
        pauses.append(comeback.ended(now + 1))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@pytest.mark.parametrize(("seconds", "pause"), [(SETTLED_SECONDS, FIRST_PAUSE), (SETTLED_SECONDS - 1, 4.0)])
def test_a_minute_of_service_is_a_new_beginning(seconds: float, pause: float) -> None:
    comeback = Comeback()
    comeback.ended(0.0)
    comeback.ended(0.0)
    comeback.ready(10.0)
    assert comeback.ended(10.0 + seconds) == pause


def test_time_spent_not_ready_counts_for_nothing() -> None:
    comeback = Comeback()
    assert not comeback.has_been_ready
    comeback.ready(0.0)
    comeback.ended(1.0)
    assert comeback.has_been_ready
    for _ in range(5):
        last = comeback.ended(10_000.0)
    assert last == LONGEST_PAUSE

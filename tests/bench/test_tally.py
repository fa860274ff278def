"""The accounts of a large group: what is lost, doubled or out of order is seen, whoever it happens to, and nothing else is."""

from hypothesis import given
from hypothesis import strategies as st

from bench.tally import Tally

MEMBERS, SENDER = 3, 0


def sent(tally: Tally, count: int) -> None:
    """Messages of one sender, stored under seqs from 1."""
    for number in range(count):
        assert tally.on_sent(float(number), number + 0.1) == number
        tally.on_stored(SENDER, number + 1)


def give(tally: Tally, member: int, *seqs: int) -> None:
    for seq in seqs:
        tally.on_given(member, seq, seq - 1, 10.0)


def test_when_everybody_has_all_nothing_is_wrong() -> None:
    tally = Tally(MEMBERS)
    sent(tally, 2)
    give(tally, 1, 1, 2)
    assert not tally.settled
    give(tally, 2, 1, 2)
    assert tally.settled
    assert not any(tally.faults().values())
    span = tally.span(0, rate=1.0, seconds=2.0)
    assert (span.sent, span.delivered, span.expected) == (2, 4, 4)
    assert span.latency.max == 10_000.0
    assert span.last_latency.p50 == 9_000.0
    assert span.delivered_rate == 0.4, "four in ten seconds"


def test_what_is_lost_doubled_or_late_is_counted() -> None:
    tally = Tally(MEMBERS)
    sent(tally, 3)
    give(tally, 1, 1, 3, 2, 2)
    give(tally, 2, 1, 3)
    assert tally.faults() == {"lost": 1, "doubled": 1, "reordered": 1, "refused": 0}


@given(st.permutations(range(1, 7)), st.integers(0, 5))
def test_whoever_is_given_all_but_some_misses_just_those(order: list[int], given_: int) -> None:
    tally = Tally(MEMBERS)
    sent(tally, 6)
    give(tally, 1, *order[:given_])
    give(tally, 2, *range(1, 7))
    faults = tally.faults()
    assert (faults["lost"], faults["doubled"]) == (6 - given_, 0)


def test_ones_own_messages_are_no_hole_whenever_one_hears_of_them() -> None:
    tally = Tally(2)
    for number in range(2):
        tally.on_sent(0.0, 0.0)
        del number
    tally.on_stored(1, 1)
    tally.on_given(1, 2, -1, 1.0)
    tally.on_given(1, 4, -1, 1.0)
    tally.on_stored(1, 3)
    tally.on_given(0, 1, 0, 1.0)
    tally.on_given(0, 2, -1, 1.0)
    tally.on_given(0, 3, 1, 1.0)
    tally.on_given(0, 4, -1, 1.0)
    assert tally.settled
    assert not any(tally.faults().values())

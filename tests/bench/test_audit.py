"""The audit names each way in which a log can differ from what was answered."""

from hypothesis import given
from hypothesis import strategies as st

from bench.audit import Audit, audit_log

STORED = {1: 10, 2: 11, 3: 12}


def test_a_log_that_is_as_answered() -> None:
    assert audit_log([(1, 10), (2, 11), (3, 12), (4, -1)], STORED) == Audit(1, 4, 0, 0, 0, 0)


def test_missing_and_the_hole_it_leaves() -> None:
    assert audit_log([(1, 10), (3, 12)], STORED) == Audit(1, 2, missing=1, misplaced=0, doubled=0, holes=1)


def test_two_messages_in_each_others_place() -> None:
    assert audit_log([(1, 11), (2, 10), (3, 12)], STORED).misplaced == 2


def test_one_message_twice() -> None:
    assert audit_log([(1, 10), (2, 11), (3, 12), (4, 10)], STORED).doubled == 1


@given(st.lists(st.integers(0, 99), unique=True))
def test_a_dense_log_of_distinct_messages_is_never_accused(numbers: list[int]) -> None:
    log = list(enumerate(numbers, 1))
    audit = audit_log(log, dict(log))
    assert (audit.missing, audit.misplaced, audit.doubled, audit.holes) == (0, 0, 0, 0)

"""A server that keeps its promises is never accused: whatever it did, the checks find nothing."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checker.checks import judge
from tests.checker.model import PerfectServer


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 120))
def test_perfect_histories_pass(seed: int, steps: int) -> None:
    assert judge(PerfectServer(seed).run(steps)) == []

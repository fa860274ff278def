"""Each generator runs against a server that does nothing, and what it could drive there is told honestly."""

from collections.abc import Callable
from typing import Any

import pytest

from bench import headroom
from bench.figures import Figures
from bench.headroom import Headroom


@pytest.mark.parametrize(
    "prove",
    [
        lambda: headroom.of_chat(10, 120, "pairs", 20.0),
        lambda: headroom.of_chat(10, 120, "groups10", 20.0),
        lambda: headroom.of_members(10, 2, 120, 10.0),
        lambda: headroom.of_returners(10, 5, 5, 1.0),
        lambda: headroom.of_listeners(10, 120, 1.0),
    ],
    ids=["pairs", "groups", "members", "returners", "listeners"],
)
def test_every_generator_meets_the_sink(prove: Callable[[], Headroom], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "SECONDS", 0.5)
    monkeypatch.setattr(headroom, "_STEPS", 1)
    assert prove().times > 1


def steps(limit: float, late_from: float = 1e9) -> Callable[[float], dict[str, Any]]:
    """A generator that drives `limit` a second at most, and is late from some rate on."""
    return lambda rate: {"moved": min(rate, limit), "lateness": {"p99": 50.0 if rate >= late_from else 1.0}}


def test_headroom_is_the_highest_rate_that_held() -> None:
    found = headroom.search(steps(1e9), 100.0, "moved", 1)
    assert found.times == pytest.approx(1.25 * 1.5**3)
    assert headroom.search(steps(1e9, late_from=200.0), 100.0, "moved", 1).times == pytest.approx(1.875)
    assert headroom.search(steps(150.0), 100.0, "moved", 1).times == pytest.approx(1.25)
    assert headroom.search(steps(80.0), 100.0, "moved", 1).times == pytest.approx(0.8)


def test_of_several_spans_and_trials_the_worst_stays() -> None:
    figures = Figures("test", {})
    for share, late in ((0.5, 1.0), (0.2, 3.0)):
        figures.drove(share, late)
    for times in (4.0, 2.0, 3.0):
        figures.could_drive(times, f"{times}")
    found = figures.generator
    assert found is not None
    assert (found.cpu_share, found.lateness_p99_ms, found.headroom, found.how) == (0.5, 3.0, 2.0, "2.0")

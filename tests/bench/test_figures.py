"""The benches of tags and notifications measure what they say, on a small mesh; and figures are judged against their targets."""

import io
import json
from pathlib import Path

from rich.console import Console

from bench import notify, tags
from bench.figures import Figures
from bench.notify import NotifyOptions
from bench.tags import RECORD, TagOptions


def test_a_figure_is_judged_by_its_target(tmp_path: Path) -> None:
    figures = Figures("test", {"mode": "none"})
    figures.add("late", 120.0, "ms", 100.0)
    figures.add("fast", 7.0, "things/s", 5.0, most=False)
    figures.add("plain", 3.14159, "")
    assert [one.met for one in figures.figures] == [False, True, True]
    figures.faults = {"lost": 0, "doubled": 2}
    assert figures.broken == {"doubled": 2}
    said = io.StringIO()
    figures.print(Console(file=said, width=150))
    assert "missed" in said.getvalue()
    assert "doubled: 2" in said.getvalue()
    figures.save(tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["figures"][2]["value"] == 3.142


def test_a_short_run_of_notify() -> None:
    figures = notify.run(NotifyOptions(clients=5_000, connected=40, mode="process", baselines=False))
    assert not figures.broken
    named = {one.name: one.value for one in figures.figures}
    assert 0 < named["first device shown, after due"] < 10_000
    assert named["all connected acknowledged, by the report, after due"] < 10


def test_a_short_run_of_tags() -> None:
    figures = tags.run(TagOptions(memberships=RECORD, clients=RECORD, mode="process"))
    assert not figures.broken
    assert all(one.value > 0 for one in figures.figures)

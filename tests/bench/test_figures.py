"""The benches of tags and notifications measure what they say, on a small mesh; and figures are judged against their targets."""

import io

from rich.console import Console

from bench import notify, tags
from bench.figures import Figures, Generator
from bench.notify import NotifyOptions
from bench.tables import print_figures
from bench.tags import RECORD, TagOptions


def test_a_figure_is_judged_by_its_target() -> None:
    figures = Figures("test", {"mode": "none"})
    figures.add("late", 120.0, "ms", 100.0)
    figures.add("fast", 7.0, "things/s", 5.0)
    figures.add("paced", 7.0, "things/s", 5.0, better="less")
    figures.add("plain", 3.14159, "")
    assert [one.met for one in figures.figures] == [False, True, False, True]
    assert figures.figures[3].value == 3.142


def test_what_is_printed_names_what_was_missed_and_what_is_broken() -> None:
    figures = Figures("test", {"mode": "none"}, generator=Generator(0.5, 1.0, 3.0, "with a sink"))
    figures.add("late", 120.0, "ms", 100.0)
    figures.beside("bare", 60.0, "ms", "late", "nothing else")
    figures.faults = {"lost": 0, "doubled": 2}
    said = io.StringIO()
    print_figures(figures, Console(file=said, width=150))
    for words in ("missed", "doubled: 2", "2.000", "3.0 times"):
        assert words in said.getvalue()
    assert figures.broken == {"doubled": 2}


def test_a_short_run_of_notify() -> None:
    figures = notify.run(NotifyOptions(clients=5_000, connected=40, shots=2, mode="process", baselines=False))
    assert not figures.broken
    named = {one.name: one.value for one in figures.figures}
    assert 0 < named["first device shown, after due"] <= named["first device shown, after due, the worst of 2"] < 10_000
    assert named["all connected acknowledged, by the report, after due"] < 10


def test_a_short_run_of_tags() -> None:
    figures = tags.run(TagOptions(memberships=RECORD, clients=RECORD, mode="process"))
    assert not figures.broken
    assert all(one.value > 0 for one in figures.figures)

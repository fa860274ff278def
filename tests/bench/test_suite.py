"""The whole suite: what fails doesn't stop the rest, what takes too long is given up, and the summary says how each came out."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bench import suite
from bench.figures import Figures
from bench.idle import IdleOptions
from bench.report import read_report
from bench.suite import Entry
from bench.summary import Outcome, Summary

IDLE = ("idle", "--mode", "process", "--no-tls", "--no-baselines")


def figures(late: float, lost: int = 0) -> Figures:
    found = Figures("chat", {"users": 10})
    found.add("plain", 1.0, "s")
    found.add("late", late, "ms", 10.0)
    found.beside("first", 4.0, "ms", "late")
    found.beside("second", 1.0, "ms", "late")
    found.drove(0.25, 1.0)
    found.could_drive(3.0, "a sink")
    found.faults = {"lost": lost}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a short suite of two left."""
    folder = tmp_path_factory.mktemp("bench")
    broken = Entry("broken", ("chat", "--mix", "chess"), (), 60.0)
    entries = suite.ENTRIES
    suite.ENTRIES = (broken, Entry("idle", IDLE, ("--sessions", "20", "--seconds", "0.5"), 60.0))
    try:
        suite.run(folder, [], lambda line: None)
        yield folder
    finally:
        suite.ENTRIES = entries


def test_one_that_fails_does_not_stop_the_rest(folder: Path) -> None:
    broken, idle = json.loads((folder / "summary.json").read_text())["benches"]
    assert broken["failed"]
    assert "chess" in broken["error"]
    assert not idle["failed"]
    assert idle["settings"]["sessions"] == 20


def test_idle_measures_memory_and_cpu(folder: Path) -> None:
    found = read_report(folder / "idle.json")
    named = {one.name: one for one in found.figures}
    assert named["plain: connected"].value > 0
    assert named["mesh, plain: memory a session"].unit == "KB"
    assert named["mesh, plain: memory a session"].target is None  # too few to judge
    assert {"mesh", "clients"} == set(found.costs["plain, idle"])
    assert found.broken == {}
    assert found.generator is not None


def test_plots_and_logs_lie_beside_the_reports_and_are_published(folder: Path, tmp_path: Path) -> None:
    suite.publish(folder, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} >= {"idle.json", "summary.json", "idle-memory.svg", "targets.svg"}
    assert (folder / "broken.log").read_text()


def test_what_takes_too_long_is_given_up_with_all_it_started() -> None:
    with Path(os.devnull).open("wb") as nowhere:
        said = suite.carry_out(["sleep", "600"], nowhere.fileno(), 0.1)
        assert said == "given up after 0 s"
        assert suite.carry_out([sys.executable, "-c", "pass"], nowhere.fileno(), 60.0) == ""


def test_no_such_bench(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no bench chess: there are chat, idle, connect, notify, fanout, tags"):
        suite.run(tmp_path, ["chess"], print)


def test_a_summary_tells_targets_ratios_and_the_generators_share(tmp_path: Path) -> None:
    good, bad = Outcome("a", "chat", 1.0, figures(8.0)), Outcome("b", "chat", 2.0, figures(20.0, lost=3))
    summary = Summary(outcomes=[good, bad, Outcome("c", "idle", 3.0, error="no servers")])
    assert summary.failed == ["b", "c"]
    assert (good.words, bad.words) == ("1 of 1 targets met (1 s)", "0 of 1 targets met, promises broken: lost: 3 (2 s)")
    summary.save(tmp_path / "summary.json")
    first, second, third = json.loads((tmp_path / "summary.json").read_text())["benches"]
    assert [one["name"] for one in first["figures"]] == ["late"]
    assert (first["figures"][0]["met"], first["figures"][0]["ours / bare"], first["generator"]["headroom"]) == (True, 2.0, 3.0)
    assert second["faults"] == {"lost": 3}
    assert third["error"] == "no servers"


def test_the_table_has_every_headline(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary(outcomes=[Outcome("a", "chat", 1.0, figures(8.0)), Outcome("c", "idle", 3.0, error="no servers")])
    summary.print(Console(width=150))
    out = capsys.readouterr().out
    for words in ("8.0 ms", "≤ 10", "met", "2.000", "25%, 3.0 x", "no servers"):
        assert words in out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"sessions": 0}, "18,000"), ({"sessions": 30_000}, "18,000"), ({"seconds": 0}, "above 0"), ({"mode": "process"}, "no TLS")],
)
def test_idle_refuses_in_words(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IdleOptions(**wrong)  # type: ignore[arg-type]

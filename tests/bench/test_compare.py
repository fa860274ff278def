"""Two reports are compared figure by figure: beyond the tolerance, each in its own direction, past what the machine explains; and
what can't be compared is refused by name."""

import json
import math
from pathlib import Path

import pytest

from bench.compare import NotComparableError, compare
from bench.figures import Cost, Figures
from bench.report import NotAReportError, read_folder, read_report
from cli.__main__ import main


def report(late: float = 10.0, rate: float = 1_000.0, bare: float = 5_000.0, **settings: object) -> Figures:
    found = Figures("chat", {"users": 10, **settings}, hardware={"cpu": "one"}, versions={"python": "3"})
    found.add("late", late, "ms", 12.0)
    found.add("stored", rate, "messages/s", 900.0)
    found.add("memory", 100.0, "MB")
    found.beside("echo", bare, "messages/s", "stored")
    found.costs["knee"] = {"edge": Cost(0.1, 0.5, 90.0)}
    found.faults["lost"] = 0
    return found


def verdicts(earlier: Figures, later: Figures, tolerance: float = 0.2) -> dict[str, str]:
    return {one.name: one.verdict for one in compare(earlier, later, tolerance).changes if one.verdict != "same"}


def test_each_figure_has_its_own_direction() -> None:
    assert verdicts(report(), report(late=13.0, rate=1_300.0)) == {"late": "worse", "stored": "better"}
    assert verdicts(report(), report(late=7.0, rate=700.0)) == {"late": "better", "stored": "worse"}


def test_differences_within_the_tolerance_do_not_count() -> None:
    assert verdicts(report(), report(late=11.9, rate=801.0)) == {}
    assert verdicts(report(), report(late=11.9), tolerance=0.1) == {"late": "worse"}


def test_what_a_slower_machine_explains_is_not_worse() -> None:
    slower = report(late=16.0, rate=600.0, bare=3_000.0)
    assert verdicts(report(), slower) == {"late": "machine", "stored": "machine"}
    assert verdicts(report(), report(rate=400.0, late=20.0, bare=4_500.0)) == {"stored": "worse", "late": "worse"}


def test_a_better_figure_on_a_better_machine_is_the_machines() -> None:
    assert verdicts(report(), report(rate=1_500.0, late=7.0, bare=7_500.0)) == {"stored": "machine", "late": "machine"}


def test_memory_is_no_matter_of_speed() -> None:
    later = report(bare=2_500.0, late=20.0, rate=500.0)
    later.figures[2] = type(later.figures[2])("memory", 200.0, "MB", "less")
    assert verdicts(report(), later)["memory"] == "worse"


def test_costs_are_compared_too_unless_they_are_tiny() -> None:
    later = report()
    later.costs["knee"]["edge"] = Cost(0.2, 0.9, 90.0)
    assert verdicts(report(), later) == {"CPU each, knee: edge": "worse"}
    earlier = report()
    earlier.costs["knee"]["edge"], later.costs["knee"]["edge"] = Cost(0.001, 0.001, 1.0), Cost(0.004, 0.004, 1.0)
    assert verdicts(earlier, later) == {}


def test_a_broken_promise_is_worse_whatever_the_tolerance() -> None:
    later = report()
    later.faults["lost"] = 1
    found = compare(report(), later, 10.0)
    assert [(one.name, one.change) for one in found.worse] == [("faults", math.inf)]


def test_other_hardware_other_versions_and_lone_figures_are_told() -> None:
    later = report()
    later.hardware, later.versions = {"cpu": "two"}, {"python": "4"}
    later.add("new", 1.0, "s")
    assert compare(report(), later).warnings == [
        "hardware differ: cpu one and two",
        "versions differ: python 3 and 4",
        "only in the later: new",
    ]


def test_other_benches_and_settings_are_refused() -> None:
    with pytest.raises(NotComparableError, match="users 10 and 20"):
        compare(report(), report(users=20))
    other = report()
    other.bench = "idle"
    with pytest.raises(NotComparableError, match="one is of chat, the other of idle"):
        compare(report(), other)


def test_a_report_is_read_as_it_was_saved(tmp_path: Path) -> None:
    saved = report(late=math.inf)
    saved.save(tmp_path / "chat.json")
    assert read_report(tmp_path / "chat.json") == saved
    assert json.loads((tmp_path / "chat.json").read_text())["ratios"] == {"echo": 0.2}
    (tmp_path / "summary.json").write_text("{}")
    assert list(read_folder(tmp_path)) == ["chat"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("no", "not JSON"), ("[]", "no object"), ('{"bench": "chat"}', "measure again"), ('{"shape": 2, "bench": "x"}', "settings")],
)
def test_what_is_no_report_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(NotAReportError, match=said):
        read_report(tmp_path / "x.json")


def test_a_folder_without_reports_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(NotAReportError, match="bench all"):
        read_folder(tmp_path)


def outcome(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "compare", *words])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


def test_the_commands_status_says_whether_something_got_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report().save(tmp_path / "a.json")
    report(late=20.0).save(tmp_path / "b.json")
    files = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    status, out, error = outcome(capsys, *files)
    assert status == 1
    assert "+100.0%" in out
    assert "chat: late" in error
    assert outcome(capsys, *reversed(files))[0] == 0
    assert outcome(capsys, *files, "--tolerance", "2")[0] == 0


def test_the_command_compares_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, late in (("a", 10.0), ("b", 20.0)):
        (tmp_path / name).mkdir()
        report(late=late).save(tmp_path / name / "chat.json")
    report().save(tmp_path / "b" / "idle.json")
    status, out, _ = outcome(capsys, str(tmp_path / "a"), str(tmp_path / "b"))
    assert status == 1
    assert "only one folder has idle" in out
    assert outcome(capsys, str(tmp_path / "a"), str(tmp_path / "b" / "chat.json"))[2].strip() == (
        "one is a folder, the other a file: give two of a kind"
    )

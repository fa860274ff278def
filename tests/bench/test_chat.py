"""The chat bench from end to end, briefly: it measures a mesh, finds nothing lost, and can tell of it."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench.chat import ChatOptions, run
from bench.chat_report import print_chat
from bench.mesh import SERVICES


@pytest.mark.parametrize("mix", ["pairs", "mixed"])
def test_a_short_run_in_one_process(mix: str, tmp_path: Path) -> None:
    users = 100 if mix == "mixed" else 10
    report = run(ChatOptions(users=users, seconds=1.0, rate=200.0, mix=mix, baselines=False))
    assert report.broken == {}
    account = report.measurements[0].account
    assert account["sent"] == account["stored"] == account["receipted"] == 200
    assert account["delivered"] == account["expected_deliveries"] >= 200
    assert report.rows_counted == report.entries_read > 200
    assert {"mesh", "generator"} <= set(report.costs["given rate"])
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["faults"]["lost"] == 0
    out = StringIO()
    print_chat(report, Console(file=out, width=160))
    assert "0: lost, doubled, reordered" in out.getvalue()


@pytest.mark.postgresql
@pytest.mark.etcd
def test_a_short_run_as_processes() -> None:
    report = run(ChatOptions(users=10, seconds=1.0, rate=200.0, mode="fleet", baselines=False))
    assert report.broken == {}
    assert report.measurements[0].account["stored"] == 200
    assert {*SERVICES, "postgresql", "generator"} == set(report.costs["given rate"])


@pytest.mark.parametrize(
    "wrong", [{"mix": "chess"}, {"mode": "cloud"}, {"users": 1}, {"seconds": 0}, {"rate": -1}, {"url": "http://127.0.0.1:1"}]
)
def test_options_that_make_no_sense_are_refused_in_words(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        ChatOptions(**wrong)  # type: ignore[arg-type]

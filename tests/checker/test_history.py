"""A history survives being written and read, whatever is in it; and the table can be printed."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.checker.checks import Breach, judge
from tests.checker.history import Failure, Send, from_json, load, save, to_json
from tests.checker.model import PerfectServer
from tests.checker.report import evidence, print_report


def test_a_history_is_read_back_as_it_was(tmp_path: Path) -> None:
    history = [*PerfectServer(seed=3).run(steps=60), Failure("a", "send", "OVERLOADED", 0.5, "no\nroom ☂", 1.0)]
    save(history, tmp_path / "run.jsonl")
    assert load(tmp_path / "run.jsonl") == history


def test_a_field_of_a_later_version_is_ignored() -> None:
    send = Send("a/1", "a", 1, "d", "m1", "text", 0.0)
    assert from_json(to_json(send).replace("{", '{"colour":"blue",', 1)) == send


def test_what_is_no_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="not an operation"):
        from_json('{"kind":"weather"}')


def test_the_report_names_what_was_broken() -> None:
    history, out = PerfectServer(seed=3).run(steps=20), StringIO()
    assert judge(history) == []
    print_report(history, [Breach("G1", "lost_live", "d:3 never came")], Console(file=out, width=120))
    assert "lost_live x 1" in out.getvalue()
    assert "d:3 never came" in out.getvalue()


def test_one_fault_with_many_victims_does_not_flood_the_report() -> None:
    assert len(evidence([Breach("G1", "lost_live", str(n)) for n in range(500)])) == 10

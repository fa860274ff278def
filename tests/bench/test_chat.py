"""The chat bench from end to end, briefly: it measures a mesh, finds nothing lost, and can tell of it."""

import json
import os
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from bench.chat import TRIAL_SECONDS, ChatOptions, Session, run
from bench.chat_report import ChatReport, print_chat
from bench.mesh import SERVICES, Target
from bench.remote import RemoteGenerator


class Load:
    """A generator at a mesh that holds 5,000 messages a second for a trial's time and so many for longer."""

    pid = os.getpid()

    def __init__(self, lasting: float) -> None:
        self._lasting = lasting

    def do(self, command: str, *, rate: float, seconds: float) -> dict[str, Any]:
        stored = min(rate, 9_000.0)
        late = 5.0 if rate <= (5_000 if seconds <= TRIAL_SECONDS else self._lasting) else 500.0
        return {"stored": stored * seconds, "stored_rate": stored, "delivered_latency": {"p99": late}, "offered_rate": rate}


@pytest.mark.parametrize(("lasting", "knee", "quarter"), [(3_000.0, (2_500, 3_000), (625, 750)), (0.0, (0, 0), (250, 250))])
def test_the_knee_is_what_lasts_and_the_quarter_is_of_that(
    lasting: float, knee: tuple[float, float], quarter: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.sync", lambda: synced.append(1))
    report = ChatReport("chat", {})
    search = Session(ChatOptions(), Target("", ""), cast(RemoteGenerator, Load(lasting)), report).measure()
    rates = {one.name: one.account["offered_rate"] for one in report.measurements}
    assert list(rates) == ["knee", "quarter", "saturated"]
    assert knee[0] <= search.knee <= knee[1]
    assert quarter[0] <= rates["quarter"] <= quarter[1], "a mesh without a knee is judged, too"
    assert rates["saturated"] > 9_000
    assert not any(one.held for one in search.lowered) and len(search.lowered) > 2
    assert synced and report.costs.keys() == rates.keys()


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

"""A bench's result: as a table for the person who ran it, as JSON for the one who compares."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.baselines import Baseline
from bench.knee import Trial


@dataclass(frozen=True, slots=True)
class Cost:
    """What one service took: CPU seconds per 1,000 stored messages, share of one core, memory in MB at the end."""

    cpu_seconds_per_1000: float
    cpu_share: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """One span at one rate: the generator's account (see bench.ledger.Step) and what each service took."""

    name: str
    account: dict[str, Any]
    costs: dict[str, Cost]


@dataclass(frozen=True, slots=True)
class Report:
    """All of a run. `trials` is the search for the knee, empty when a rate was given; `knee_rate` is 0 when none held."""

    bench: str
    time: str
    hardware: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, Any]
    trials: list[Trial]
    knee_rate: float
    peak_stored_rate: float
    measurements: list[Measurement]
    faults: dict[str, int]  # everything that must be 0, over the whole run
    entries_read: int
    rows_counted: int  # 0 when the database could not be asked
    baselines: list[Baseline]

    @property
    def broken(self) -> dict[str, int]:
        """The faults that are not 0."""
        return {name: count for name, count in self.faults.items() if count}

    @property
    def ratios(self) -> dict[str, float]:
        """The stored rate over each baseline's rate."""
        rate = max([self.peak_stored_rate, *(one.account["stored_rate"] for one in self.measurements)])
        return {one.name: round(rate / one.rate, 4) for one in self.baselines if one.rate}

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({**asdict(self), "ratios": self.ratios}, indent=2) + "\n")


def print_report(report: Report, console: Console | None = None) -> None:
    """Print it as tables."""
    console = console or Console()
    console.print(f"[bold]{report.bench}[/bold]  {_pairs(report.settings)}")
    console.print(f"{_pairs(report.hardware)}\n{_pairs(report.versions)}", style="dim")
    if report.trials:
        console.print(_trials(report))
    console.print(_rates(report), _latencies(report), _costs(report))
    if report.baselines:
        console.print(_baselines(report))
    console.print(_verdict(report))


def _trials(report: Report) -> Table:
    title = f"search: knee {report.knee_rate:,.0f}/s, most stored {report.peak_stored_rate:,.0f}/s"
    table = _table(title, "offered/s", "stored/s", "p99 to delivery", "held")
    for trial in report.trials:
        table.add_row(
            f"{trial.offered_rate:,.0f}", f"{trial.stored_rate:,.0f}", f"{trial.p99_ms:.1f} ms", "yes" if trial.held else "no"
        )
    return table


def _rates(report: Report) -> Table:
    table = _table(
        "messages",
        "",
        "offered/s",
        "sent",
        "stored",
        "stored/s",
        "delivered",
        "delivered/s",
        "acknowledged",
        "receipted",
        "refused",
    )
    for one in report.measurements:
        account = one.account
        counts = [f"{account[name]:,}" for name in ("sent", "stored", "stored_rate", "delivered", "delivered_rate")]
        receipts = [f"{account[name]:,}" for name in ("acknowledged", "receipted", "refused")]
        table.add_row(one.name, f"{account['offered_rate']:,.0f}", *counts, *receipts)
    return table


def _latencies(report: Report) -> Table:
    table = _table("milliseconds from the intended send time", "", "until", "p50", "p95", "p99", "p99.9", "max")
    for one in report.measurements:
        names = {"stored": "stored_latency", "delivered": "delivered_latency", "receipt": "receipt_latency", "(sent)": "lateness"}
        for what, name in names.items():
            latency = one.account[name]
            values = [f"{latency[name]:.2f}" for name in ("p50", "p95", "p99", "p999", "max")]
            table.add_row(one.name, what, *values)
    return table


def _costs(report: Report) -> Table:
    table = _table("cost", "", "process", "CPU s per 1,000 messages", "share of a core", "memory")
    table.caption = "(sent), above, is how late the generator itself was; where its share nears a core, it is what was measured"
    for one in report.measurements:
        for service, cost in one.costs.items():
            table.add_row(
                one.name, service, f"{cost.cpu_seconds_per_1000:.3f}", f"{cost.cpu_share:.0%}", f"{cost.memory_mb:.0f} MB"
            )
    return table


def _baselines(report: Report) -> Table:
    table = _table("bare parts, same machine, same run", "", "messages/s", "CPU s per 1,000", "ours / bare", "how")
    for one in report.baselines:
        ratio = report.ratios.get(one.name, 0.0)
        table.add_row(one.name, f"{one.rate:,.0f}", f"{one.cpu_seconds_per_1000:.4f}", f"{ratio:.3f}", one.how)
    return table


def _verdict(report: Report) -> str:
    if report.broken:
        return "[red]" + ", ".join(f"{name}: {count:,}" for name, count in report.broken.items()) + "[/red]"
    counted = f", {report.rows_counted:,} rows counted in the database" if report.rows_counted else ""
    return f"[green]lost, doubled, reordered: 0[/green] ({report.entries_read:,} log entries read back{counted})"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "until", "process", "how", "held") else "right")
    return table


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())

"""What `tidings bench chat` found: the shape of all benches, and beside it the search for the knee and each span's whole account.

The account of a span is the generator's (see `bench.ledger.Step`); the figures are what is judged of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.baselines import Baseline
from bench.figures import Figures
from bench.knee import Trial
from bench.latency import summarize
from bench.tables import figures_table, print_head, print_rest, table

STORED = "stored, most"
STORED_TARGETS = {"process": 4_000.0, "fleet": 10_000.0}  # messages a second, by mode
CALM = "quarter"  # of the knee, or of the first rate tried when there is none: the span whose latency is promised
P50_MS, P99_MS = 3.0, 10.0
OURS = ("generator",)  # processes that are not the mesh's


@dataclass(frozen=True, slots=True)
class Measurement:
    """One span at one rate: the generator's account."""

    name: str
    account: dict[str, Any]


@dataclass(slots=True)
class ChatReport(Figures):
    """See the module. `trials` is empty when a rate was given; `lowered` are spans at rates that held for a trial's time only;
    `knee_rate` is 0 when none held; `rows_counted` is 0 when the database could not be asked."""

    trials: list[Trial] = field(default_factory=list)
    lowered: list[Trial] = field(default_factory=list)
    knee_rate: float = 0.0
    peak_stored_rate: float = 0.0
    measurements: list[Measurement] = field(default_factory=list)
    entries_read: int = 0
    rows_counted: int = 0

    def note(self, measured: Measurement) -> None:
        """Take in a span, in place of an earlier one of that name."""
        self.measurements = [one for one in self.measurements if one.name != measured.name] + [measured]

    @property
    def most_stored(self) -> float:
        """A second, in any span or step."""
        return max([self.peak_stored_rate, *(float(one.account["stored_rate"]) for one in self.measurements)])

    def judge(self, mode: str) -> None:
        """Make figures of what was measured."""
        self.add(STORED, self.most_stored, "messages/s", STORED_TARGETS.get(mode) if self.trials else None)
        if self.trials:
            self.add("knee: most that keeps p99 until delivery", self.knee_rate, "messages/s")
        for one in self.measurements:
            self._judge(one)

    def stand_beside(self, baselines: list[Baseline]) -> None:
        """Note bare parts, each beside the most that was stored."""
        for one in baselines:
            how = f"{one.how}; {one.cpu_seconds_per_1000 * 1e3:.1f} us of CPU each"
            self.beside(one.name, one.rate, "messages/s", STORED, how)

    def stand_beside_calm(self, driver: str, insert: Callable[[float], list[float]]) -> None:
        """Note what the database alone takes for messages that come as they did in the calm span.

        Args:
            insert: gives the seconds each took, for a rate.
        """
        for span in self.measurements:
            if span.name == CALM:
                waits = summarize(insert(span.account["offered_rate"]))
                how = f"one row a transaction, {span.account['offered_rate']:,.0f}/s offered, nothing else running"
                for rank, value in (("p50", waits.p50), ("p99", waits.p99)):
                    self.beside(f"{driver}, one by one, {rank}", value, "ms", f"{CALM}: until delivered, {rank}", how)

    def _judge(self, span: Measurement) -> None:
        latency, calm = span.account["delivered_latency"], span.name == CALM
        offered = f"{span.account['offered_rate']:,.0f}/s offered"
        if self.trials and span.name == "saturated":
            self.add("saturated: stored", span.account["stored_rate"], "messages/s", note=offered)  # how late says nothing there
        else:
            self.add(f"{span.name}: until delivered, p50", latency["p50"], "ms", P50_MS if calm else None, note=offered)
            self.add(f"{span.name}: until delivered, p99", latency["p99"], "ms", P99_MS if calm else None)
        costs = self.costs.get(span.name, {})
        cpu = sum(cost.cpu_seconds_per_1000 for name, cost in costs.items() if name not in OURS)
        if cpu:
            self.add(f"{span.name}: CPU a message, servers", cpu * 1e3, "us")


def print_chat(report: ChatReport, console: Console) -> None:
    """Print all of it as tables."""
    print_head(report, console)
    if report.trials:
        console.print(_trials(report))
    console.print(_rates(report), _latencies(report), figures_table(report))
    print_rest(report, console)
    counted = f", {report.rows_counted:,} rows counted in the database" if report.rows_counted else ""
    console.print(f"{report.entries_read:,} log entries read back{counted}")


def _trials(report: ChatReport) -> Table:
    title = f"search: knee {report.knee_rate:,.0f}/s, most stored {report.peak_stored_rate:,.0f}/s"
    made = table(title, "offered/s", "stored/s", "p99 to delivery", "held")
    for one in report.trials:
        made.add_row(*_cells(one), "yes" if one.held else "no")
    for one in report.lowered:
        made.add_row(*_cells(one), "not for long")
    return made


def _cells(trial: Trial) -> tuple[str, str, str]:
    return f"{trial.offered_rate:,.0f}", f"{trial.stored_rate:,.0f}", f"{trial.p99_ms:.1f} ms"


def _rates(report: ChatReport) -> Table:
    counted = ("sent", "stored", "stored_rate", "delivered", "delivered_rate", "acknowledged", "receipted", "refused")
    made = table("messages", "", "offered/s", *(name.replace("_rate", "/s") for name in counted))
    for one in report.measurements:
        made.add_row(one.name, f"{one.account['offered_rate']:,.0f}", *(f"{one.account[name]:,}" for name in counted))
    return made


def _latencies(report: ChatReport) -> Table:
    names = {"stored": "stored_latency", "delivered": "delivered_latency", "receipt": "receipt_latency", "(sent)": "lateness"}
    made = table("milliseconds from the intended send time", "", "until", "p50", "p95", "p99", "p99.9", "max")
    made.caption = "(sent) is how late the generator itself was"
    for one in report.measurements:
        for what, name in names.items():
            latency = one.account[name]
            made.add_row(one.name, what, *(f"{latency[rank]:.2f}" for rank in ("p50", "p95", "p99", "p999", "max")))
    return made

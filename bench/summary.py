"""What came of several benches: the figures that must come out, each beside its target and its bare part, as a table and JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Figures
from bench.tables import ENOUGH_HEADROOM, goal, table, verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one bench.

    Attributes:
        report: None when it failed.
        error: why it failed, or what else went wrong.
    """

    name: str
    bench: str
    seconds: float
    report: Figures | None = None
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether it did not run, or a promise was broken. A target that was missed is a result."""
        return self.report is None or bool(self.report.broken)

    @property
    def headline(self) -> list[Figure]:
        """What must come out; where nothing must, the first figure."""
        figures = self.report.figures if self.report else []
        return [one for one in figures if one.target is not None] or figures[:1]

    @property
    def words(self) -> str:
        """All of it in a few."""
        if self.report is None:
            return f"failed after {self.seconds:.0f} s: {self.error}"
        judged = [one for one in self.headline if one.target is not None]
        met = sum(one.met for one in judged)
        broken = ", ".join(f"{name}: {count}" for name, count in self.report.broken.items())
        said = [f"{met} of {len(judged)} targets met", self.error, broken and f"promises broken: {broken}"]
        return ", ".join(filter(None, said)) + f" ({self.seconds:.0f} s)"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {"name": self.name, "bench": self.bench, "seconds": round(self.seconds, 1), "failed": self.failed}
        found["error"] = self.error
        if self.report is not None:
            ratios = self.ratios
            figures = [{**asdict(one), "met": one.met, "ours / bare": ratios.get(one.name)} for one in self.headline]
            generator = self.report.generator and asdict(self.report.generator)
            found |= {"settings": self.report.settings, "figures": figures, "faults": self.report.broken, "generator": generator}
        return found

    @property
    def ratios(self) -> dict[str, float]:
        """Ours over the bare part's, by the figure it stands beside; of several parts, the first."""
        if self.report is None:
            return {}
        ratios = self.report.ratios
        return {one.figure: ratios[one.name] for one in reversed(self.report.baselines) if one.name in ratios}


@dataclass(slots=True)
class Summary:
    """Of all. `full`: in the sizes of the targets."""

    full: bool = False
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """The names of those that did not run, or broke a promise."""
        return [one.name for one in self.outcomes if one.failed]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        reports = [one.report for one in self.outcomes if one.report is not None]
        about = {"time": reports[0].time, "hardware": reports[0].hardware, "versions": reports[0].versions} if reports else {}
        benches = [one.to_dict() for one in self.outcomes]
        path.write_text(json.dumps({**about, "full": self.full, "benches": benches}, indent=2) + "\n")

    def print(self, console: Console) -> None:
        """Write it as one table."""
        made = table("", "of", "", "measured", "target", "until", "ours / bare", "generator")
        made.columns[4].header = ""
        for one in self.outcomes:
            self._rows(made, one)
        console.print(made)
        console.print(f"{sum(one.seconds for one in self.outcomes) / 60:.1f} minutes", style="dim")

    def _rows(self, made: Table, one: Outcome) -> None:
        if one.report is None:
            made.add_row(one.name, f"[red]{one.words}[/red]")
            return
        ratios, said = one.ratios, _generator(one.report)
        for number, figure in enumerate(one.headline):
            ratio = f"{ratios[figure.name]:.3f}" if figure.name in ratios else ""
            first = (one.name, said) if number == 0 else ("", "")
            made.add_row(first[0], figure.name, f"{figure.value:,} {figure.unit}", goal(figure), verdict(figure), ratio, first[1])
        if one.report.broken or one.error:
            made.add_row("", f"[red]{one.words}[/red]")


def _generator(report: Figures) -> str:
    if report.generator is None:
        return ""
    headroom, share = report.generator.headroom, f"{report.generator.cpu_share:.0%}"
    if not headroom:
        return share
    colour = "green" if headroom >= ENOUGH_HEADROOM else "red"
    return f"{share}, [{colour}]{headroom:.1f} x[/{colour}]"

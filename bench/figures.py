"""A bench's result where it is a list of figures: each beside its target and its baseline, as a table and as JSON."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.resources import hardware, versions


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured.

    Attributes:
        name: what.
        value: how much.
        unit: of what, such as "ms" or "memberships/s".
        target: what must come out; None when nothing must.
        most: whether the target is the most that is allowed, or else the least.
        note: how it came about.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    most: bool = True
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is."""
        return self.target is None or (self.value <= self.target if self.most else self.value >= self.target)


@dataclass(slots=True)
class Figures:
    """All of a run. `faults` is everything that must be 0; `series` is for plots."""

    bench: str
    settings: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    series: dict[str, list[int]] = field(default_factory=dict)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    hardware: dict[str, str] = field(default_factory=hardware)
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def broken(self) -> dict[str, int]:
        """The faults that are not 0."""
        return {name: count for name, count in self.faults.items() if count}

    def add(self, name: str, value: float, unit: str, target: float | None = None, *, most: bool = True, note: str = "") -> None:
        """Note a figure, with three significant digits at least."""
        rounded = round(value, 3) if abs(value) < 100 else round(value, 1)
        self.figures.append(Figure(name, rounded, unit, target, most, note))

    def to_json(self) -> str:
        """The whole run."""
        return json.dumps(asdict(self), indent=2)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(self.to_json() + "\n")

    def print(self, console: Console) -> None:
        """Write it as a table."""
        console.print(f"[bold]{self.bench}[/bold]  {_pairs(self.settings)}")
        console.print(f"{_pairs(self.hardware)}\n{_pairs(self.versions)}", style="dim")
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("", "measured", "", "target", "", "how"):
            table.add_column(column, justify="right" if column in ("measured", "target") else "left")
        for one in self.figures:
            verdict = "" if one.target is None else "[green]met[/green]" if one.met else "[red]missed[/red]"
            target = "" if one.target is None else f"{'≤' if one.most else '≥'} {one.target:,g}"
            table.add_row(one.name, f"{one.value:,}", one.unit, target, verdict, one.note)
        console.print(table)
        broken = ", ".join(f"{name}: {count:,}" for name, count in self.broken.items())
        console.print(f"[red]{broken}[/red]" if broken else f"[green]0[/green]: {', '.join(self.faults)}")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())

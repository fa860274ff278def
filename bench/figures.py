"""A bench's result, in one shape for all benches: what was measured, what it cost, what bare parts and the generator could do.

Every figure knows which way is better, and what must come out; every bare part knows which figure it stands beside. How this is
printed is in `bench.tables`, how it is read again in `bench.reading`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.resources import Usage, hardware, versions

SHAPE = 2
"""Of the JSON; reports of another shape can't be compared."""
Better = Literal["more", "less"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured.

    Attributes:
        name: what.
        value: how much.
        unit: of what, such as "ms" or "memberships/s".
        better: which way.
        target: what must come out at most (where less is better) or at least; None when nothing must.
        note: how it came about.
    """

    name: str
    value: float
    unit: str
    better: Better
    target: float | None = None
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is."""
        return self.target is None or (self.value <= self.target if self.better == "less" else self.value >= self.target)


@dataclass(frozen=True, slots=True)
class Bare:
    """What a bare part did in the same run; `figure` names the one it stands beside, in the same unit, or is empty."""

    name: str
    value: float
    unit: str
    figure: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took in one span: CPU seconds per 1,000 of what it counts, share of one core, memory in MB at the end."""

    cpu_seconds_per_1000: float
    cpu_share: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Generator:
    """Whether what was measured is the mesh, or the generator.

    Attributes:
        cpu_share: of one core, at most, while it measured.
        lateness_p99_ms: how late it was, at most, with the mesh; 0 where nothing is due at a time.
        headroom: how many times what the mesh was offered it drives with a server that does nothing; 0 when not tried.
        how: how that was tried.
    """

    cpu_share: float
    lateness_p99_ms: float = 0.0
    headroom: float = 0.0
    how: str = ""


NO_GENERATOR = Generator(0.0)


@dataclass(slots=True)
class Figures:
    """All of a run.

    Attributes:
        costs: span -> process -> what it took.
        generator: None where a bench has none of its own.
        faults: everything that must be 0.
        series: for plots.
    """

    bench: str
    settings: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    costs: dict[str, dict[str, Cost]] = field(default_factory=dict)
    baselines: list[Bare] = field(default_factory=list)
    generator: Generator | None = None
    faults: dict[str, int] = field(default_factory=dict)
    series: dict[str, list[int]] = field(default_factory=dict)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    hardware: dict[str, str] = field(default_factory=hardware)
    versions: dict[str, str] = field(default_factory=versions)
    shape: int = SHAPE

    @property
    def broken(self) -> dict[str, int]:
        """The faults that are not 0."""
        return {name: count for name, count in self.faults.items() if count}

    @property
    def ratios(self) -> dict[str, float]:
        """Ours over the bare part's, by the bare part's name; of those that stand beside a figure."""
        values = {one.name: one.value for one in self.figures}
        return {one.name: round(values[one.figure] / one.value, 4) for one in self.baselines if one.value and one.figure in values}

    def add(
        self, name: str, value: float, unit: str, target: float | None = None, *, better: Better | None = None, note: str = ""
    ) -> None:
        """Note a figure, with three significant digits at least. Unless told, of rates more is better, of all else less."""
        way: Better = better or ("more" if unit.endswith("/s") else "less")
        self.figures.append(Figure(name, _rounded(value), unit, way, target, note))

    def value(self, name: str) -> float:
        """Of a figure that was noted.

        Raises:
            KeyError: it was not.
        """
        return {one.name: one.value for one in self.figures}[name]

    def beside(self, name: str, value: float, unit: str, figure: str, how: str = "") -> None:
        """Note what a bare part did, beside a figure in the same unit."""
        self.baselines.append(Bare(name, _rounded(value), unit, figure, how))

    def spend(self, span: str, before: Mapping[str, Usage], after: Mapping[str, Usage], count: int, seconds: float) -> None:
        """Note what each process took in a span of so many seconds that counts so many of something."""
        used = {name: after[name].cpu_seconds - before[name].cpu_seconds for name in before}
        self.costs[span] = {
            name: Cost(round(cpu / max(1, count) * 1000, 4), round(cpu / seconds, 3), after[name].memory_mb)
            for name, cpu in used.items()
        }

    def drove(self, cpu_share: float, lateness_p99_ms: float = 0.0) -> None:
        """Note what was seen of the generator in a span; the worst of all spans stays."""
        worst = self.generator or NO_GENERATOR
        share, late = max(worst.cpu_share, cpu_share), max(worst.lateness_p99_ms, lateness_p99_ms)
        self.generator = Generator(share, late, worst.headroom, worst.how)

    def could_drive(self, headroom: float, how: str) -> None:
        """Note how many times what the mesh did the generator drives elsewhere; the least of all stays."""
        so_far = self.generator or NO_GENERATOR
        if not so_far.headroom or headroom < so_far.headroom:
            self.generator = Generator(so_far.cpu_share, so_far.lateness_p99_ms, round(headroom, 2), how)

    def to_json(self) -> str:
        """The whole run."""
        return json.dumps({**asdict(self), "ratios": self.ratios}, indent=2)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(self.to_json() + "\n")


def _rounded(value: float) -> float:
    return round(value, 3) if abs(value) < 100 else round(value, 1)

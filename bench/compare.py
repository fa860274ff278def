"""Two reports of the same bench, figure by figure: what got better, what got worse, and what only the machine did.

Pure. A difference counts when it is beyond the tolerance. On a shared machine everything drifts together, and the bare parts of
both runs say by how much: a rate or a time counts only when it is beyond the tolerance of what that speed explains, too.
"""

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.figures import Better, Figures

TOLERANCE = 0.25
"""What a virtual machine that others share moves by itself from one run to the next."""
LEAST_SHARE = 0.01  # of a core: what a process below it costs is too little to compare
_TIMES = ("s", "ms", "us")
Verdict = Literal["better", "worse", "same", "machine"]


class NotComparableError(ValueError):
    """Two reports that measured different things; the text says in what."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both reports.

    Attributes:
        change: of the value, as a share of the earlier one; infinite when that was 0.
        verdict: "machine" where the bare parts moved alike.
    """

    name: str
    before: float
    after: float
    unit: str
    change: float
    verdict: Verdict


@dataclass(slots=True)
class Comparison:
    """All of it.

    Attributes:
        speed: of the machine, by the bare parts: the later run's over the earlier one's.
        warnings: what makes it less sure, in words.
    """

    bench: str
    speed: float = 1.0
    changes: list[Change] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def worse(self) -> list[Change]:
        """What got worse beyond the tolerance."""
        return [one for one in self.changes if one.verdict == "worse"]


def compare(earlier: Figures, later: Figures, tolerance: float = TOLERANCE) -> Comparison:
    """Compare two reports.

    Raises:
        NotComparableError: different benches, or different settings.
    """
    _require_alike(earlier, later)
    found = Comparison(
        earlier.bench, speed(earlier, later), warnings=[*_circumstances(earlier, later), *_unmatched(earlier, later)]
    )
    judged = _Judge(tolerance, found.speed)
    found.changes += _figures(earlier, later, judged)
    found.changes += _costs(earlier, later, judged)
    found.changes += _faults(earlier, later)
    return found


def judge(before: float, after: float, better: Better, tolerance: float) -> Verdict:
    """Whether a value that became another got better or worse; `better` says which way that is."""
    change = share(before, after)
    if abs(change) <= tolerance:
        return "same"
    return "better" if (change < 0) == (better == "less") else "worse"


def speed(earlier: Figures, later: Figures) -> float:
    """How much faster the later run's machine was, by the bare parts that both measured; 1 without any."""
    before = {one.name: one.value for one in earlier.baselines if one.value}
    pairs = [(one.unit, before[one.name], one.value) for one in later.baselines if one.value and one.name in before]
    return statistics.median([now / was if _is_rate(unit) else was / now for unit, was, now in pairs] or [1.0])


def share(before: float, after: float) -> float:
    """By how much of the earlier value it changed."""
    if before == after:
        return 0.0
    return (after - before) / abs(before) if before else math.copysign(math.inf, after)


@dataclass(frozen=True, slots=True)
class _Judge:
    """Judges by a tolerance, on a machine that became so much faster."""

    tolerance: float
    speed: float

    def change(self, name: str, before: float, after: float, unit: str, better: Better) -> Change:
        verdict = judge(before, after, better, self.tolerance)
        if verdict != "same" and judge(self._explained(before, unit), after, better, self.tolerance) != verdict:
            verdict = "machine"
        return Change(name, before, after, unit, share(before, after), verdict)

    def _explained(self, before: float, unit: str) -> float:
        """What the machine's speed alone would have made of it."""
        return before * self.speed if _is_rate(unit) else before / self.speed if unit in _TIMES else before


def _is_rate(unit: str) -> bool:
    return unit.endswith("/s")


def _require_alike(earlier: Figures, later: Figures) -> None:
    if earlier.bench != later.bench:
        raise NotComparableError(f"one is of {earlier.bench}, the other of {later.bench}: compare reports of the same bench")
    differing = _differing(earlier.settings, later.settings)
    if differing:
        raise NotComparableError(f"{earlier.bench} was measured with other settings: {differing}")


def _circumstances(earlier: Figures, later: Figures) -> Iterator[str]:
    for what, one, other in (("hardware", earlier.hardware, later.hardware), ("versions", earlier.versions, later.versions)):
        differing = _differing(one, other)
        if differing:
            yield f"{what} differ: {differing}"


def _unmatched(earlier: Figures, later: Figures) -> Iterator[str]:
    one, other = ({figure.name for figure in report.figures} for report in (earlier, later))
    if one - other:
        yield f"only in the earlier: {', '.join(sorted(one - other))}"
    if other - one:
        yield f"only in the later: {', '.join(sorted(other - one))}"


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name)} and {other.get(name)}" for name in names)


def _figures(earlier: Figures, later: Figures, judged: _Judge) -> Iterator[Change]:
    before = {figure.name: figure for figure in earlier.figures}
    for figure in later.figures:
        if figure.name in before:
            yield judged.change(figure.name, before[figure.name].value, figure.value, figure.unit, figure.better)


def _costs(earlier: Figures, later: Figures, judged: _Judge) -> Iterator[Change]:
    for span, costs in later.costs.items():
        for name, cost in costs.items():
            was = earlier.costs.get(span, {}).get(name)
            if was is not None and max(was.cpu_share, cost.cpu_share) >= LEAST_SHARE:
                before, after = (round(one.cpu_seconds_per_1000 * 1e3, 3) for one in (was, cost))
                yield judged.change(f"CPU each, {span}: {name}", before, after, "us", "less")


def _faults(earlier: Figures, later: Figures) -> Iterator[Change]:
    """More of what must be 0 is always worse."""
    before, after = sum(earlier.faults.values()), sum(later.faults.values())
    verdict: Verdict = "same" if after == before else "better" if after < before else "worse"
    yield Change("faults", before, after, "", share(before, after), verdict)

"""The results as tables: on the terminal while they come, as JSON, and as the page's."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.faults.trial import Result

PAGE = Path("docs/reliability.md")
BEGIN, END = "<!-- the table: written by `make faults` -->", "<!-- the end of the table -->"
_COLUMNS = (
    "fault",
    "lasted",
    "operations",
    "stored",
    "lost",
    "doubled",
    "reordered",
    "other",
    "worst delivery",
    "silence",
    "recovery",
)


def cells(result: Result) -> list[str]:
    """One row; seconds with a unit."""
    times = [f"{time:.2f} s" for time in (result.worst_delivery, result.silence, result.recovery)]
    counts = [str(count) for count in (result.lost, result.doubled, result.reordered, result.other)]
    return [result.fault, f"{result.lasted:.1f} s", str(result.operations), str(result.stored), *counts, *times]


def show(console: Console, result: Result) -> None:
    """Print a row as soon as it is there, and below it why, when a promise did not hold."""
    if result.not_here:
        console.print(f"[yellow]{result.fault:<32}[/] not run: {result.not_here}")
        return
    name, *rest = cells(result)
    widths = (8, 7, 6, 4, 4, 4, 4, 9, 9, 9)
    colour = "green" if result.holds else "red"
    console.print(f"[{colour}]{name:<32}[/]" + " ".join(f"{cell:>{width}}" for cell, width in zip(rest, widths, strict=True)))
    if not result.holds:
        for line in [f"TIDINGS_SEED={result.seed}, history: {result.history}", *result.why[:30]]:
            console.print(f"    {line}", markup=False)


def heading(console: Console) -> None:
    """Print what the columns are."""
    console.print(f"{'fault':<32}  lasted     ops stored lost twice ord other  delivery   silence  recovery")


def merge(results: Sequence[Result], path: Path, order: Sequence[str]) -> list[Result]:
    """Keep the results as JSON, each fault's newest, in the order given; gives all that are kept."""
    kept = {row["fault"]: Result(**row) for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    kept |= {result.fault: result for result in results}
    ordered = [kept[name] for name in order if name in kept]
    written = {"machine": platform.platform(), "rows": [one.record() for one in ordered]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1) + "\n")
    return ordered


def write_page(results: Sequence[Result], page: Path = PAGE) -> None:
    """Put the table into the page, in place of the last one.

    Raises:
        ValueError: the page has no place for it.
    """
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest:
        raise ValueError(f"{page} has no line {BEGIN!r}")
    lines = [" | ".join(_COLUMNS), " | ".join("---" for _ in _COLUMNS), *(_line(result) for result in results)]
    page.write_text("\n".join([before + BEGIN, "", *(f"| {line} |" for line in lines), "", END + after]))


def _line(result: Result) -> str:
    if result.not_here:
        return f"{result.fault} | not run: {result.not_here}" + " |" * (len(_COLUMNS) - 2)
    name, *rest = cells(result)
    return " | ".join([name if result.holds else f"**{name}**: red", *rest])

"""A bench's result as tables, for the person who ran it."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Figures, Generator

ENOUGH_HEADROOM = 1.2
"""Times what the mesh was offered that a generator must drive, for what was measured to be the mesh."""
_WORDS = ("", "how", "span", "process", "until", "held", "of")  # columns of words; all others are numbers


def print_figures(found: Figures, console: Console) -> None:
    """Print all of a run but its series."""
    print_head(found, console)
    console.print(figures_table(found))
    print_rest(found, console)


def print_head(found: Figures, console: Console) -> None:
    """What was measured, and on what."""
    console.print(f"[bold]{found.bench}[/bold]  {_pairs(found.settings)}")
    console.print(f"{_pairs(found.hardware)}\n{_pairs(found.versions)}", style="dim")


def print_rest(found: Figures, console: Console) -> None:
    """What stands beside the figures: costs, bare parts, the generator, faults."""
    if found.costs:
        console.print(_costs(found))
    if found.baselines:
        console.print(_baselines(found))
    if found.generator is not None:
        console.print(_generator(found.generator))
    broken = ", ".join(f"{name}: {count:,}" for name, count in found.broken.items())
    console.print(f"[red]{broken}[/red]" if broken else f"[green]0[/green]: {', '.join(found.faults)}")


def table(title: str, *columns: str) -> Table:
    """An empty one, of words and numbers."""
    made = Table(title=title or None, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="left" if column in _WORDS else "right")
    return made


def figures_table(found: Figures) -> Table:
    """The figures, each beside its target."""
    made = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "measured", "", "target", "", "how"):
        made.add_column(column, justify="right" if column in ("measured", "target") else "left")
    for one in found.figures:
        made.add_row(one.name, f"{one.value:,}", one.unit, goal(one), verdict(one), one.note)
    return made


def goal(one: Figure) -> str:
    """The target as it is written; empty when there is none."""
    return "" if one.target is None else f"{'≤' if one.better == 'less' else '≥'} {one.target:,g}"


def verdict(one: Figure) -> str:
    """Whether it met its target; empty when there is none."""
    return "" if one.target is None else "[green]met[/green]" if one.met else "[red]missed[/red]"


def _costs(found: Figures) -> Table:
    made = table("cost", "span", "process", "CPU s per 1,000", "share of a core", "memory")
    for span, costs in found.costs.items():
        for name, cost in costs.items():
            if cost.cpu_share >= 0.001 or cost.memory_mb >= 1:
                made.add_row(span, name, f"{cost.cpu_seconds_per_1000:.3f}", f"{cost.cpu_share:.1%}", f"{cost.memory_mb:.0f} MB")
    return made


def _baselines(found: Figures) -> Table:
    made = table("bare parts, same machine, same run", "", "measured", "ours / bare", "of", "how")
    for one in found.baselines:
        ratio = f"{found.ratios[one.name]:.3f}" if one.name in found.ratios else ""
        made.add_row(one.name, f"{one.value:,} {one.unit}", ratio, one.figure, one.how)
    return made


def _generator(one: Generator) -> str:
    said = f"generator: {one.cpu_share:.0%} of a core at most, p99 {one.lateness_p99_ms:.2f} ms late at most"
    if not one.headroom:
        return f"{said}; how much more it can drive was not tried"
    colour = "green" if one.headroom >= ENOUGH_HEADROOM else "red"
    return f"{said}; [{colour}]it drives {one.headroom:.1f} times what the mesh did[/{colour}] ({one.how})"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())

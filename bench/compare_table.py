"""A comparison as a table."""

import math

from rich.console import Console

from bench.compare import Change, Comparison
from bench.tables import table

_COLOURS = {"worse": "red", "better": "green", "machine": "yellow", "same": ""}
_WORDS = {"worse": "worse", "better": "better", "machine": "as the machine did", "same": ""}


def print_comparison(found: Comparison, tolerance: float, console: Console) -> None:
    """Print it; differences within the tolerance bear no word."""
    made = table(
        f"{found.bench} (beyond ±{tolerance:.0%}; bare parts {found.speed - 1:+.0%})", "", "earlier", "later", "change", "how"
    )
    for one in found.changes:
        colour, words = _COLOURS[one.verdict], _WORDS[one.verdict]
        said = f"[{colour}]{words}[/{colour}]" if colour else words
        made.add_row(one.name, f"{one.before:,}", f"{one.after:,} {one.unit}", _percent(one), said)
    console.print(made)
    for warning in found.warnings:
        console.print(f"[yellow]{warning}[/yellow]")


def _percent(one: Change) -> str:
    return "new" if math.isinf(one.change) else f"{one.change:+.1%}"

"""`tidings bench all` and `tidings bench compare`: every bench at once, and two reports side by side."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.compare import TOLERANCE, Comparison, compare
from bench.compare_table import print_comparison
from bench.report import read_folder, read_report
from cli.failure import CommandError
from cli.options import note

FOLDER = Path("build/bench")
WIDTH = 150  # of tables that go into a file


def run_all(
    folder: Annotated[Path, typer.Option("--folder", help="Takes reports, logs, plots and the summary.", metavar="DIR")] = FOLDER,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="One of the benches; may be given again.", metavar="BENCH")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="In the sizes of the targets: half as long again.")] = False,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Copy reports and plots there too, for documents.", metavar="DIR")
    ] = None,
) -> None:
    """Run every bench, one after the other, in less than 15 minutes. Exits with 1 when one failed or a promise was broken."""
    from bench import suite

    try:
        summary = suite.run(folder, only or [], note, full=full)
        if figures is not None:
            suite.publish(folder, figures)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    summary.print(terminal())
    if summary.failed:
        raise CommandError(f"failed: {', '.join(summary.failed)}", f"{folder} has what each said")


def compare_reports(
    earlier: Annotated[Path, typer.Argument(help="A report, or a folder of `bench all`.", exists=True)],
    later: Annotated[Path, typer.Argument(help="Another one.", exists=True)],
    tolerance: Annotated[float, typer.Option("--tolerance", help="Differences up to this share don't count.", min=0.0)] = TOLERANCE,
) -> None:
    """Compare two reports figure by figure. Exits with 1 when something got worse beyond the tolerance."""
    try:
        found = _comparisons(earlier, later, tolerance)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    shown = terminal()
    for one in found:
        print_comparison(one, tolerance, shown)
    worse = [f"{one.bench}: {change.name}" for one in found for change in one.worse]
    if worse:
        raise CommandError(f"worse beyond {tolerance:.0%}: {', '.join(worse)}", "measure both again before you believe it")


def _comparisons(earlier: Path, later: Path, tolerance: float) -> list[Comparison]:
    """Of two reports, or of all that two folders both have."""
    if earlier.is_dir() != later.is_dir():
        raise ValueError("one is a folder, the other a file: give two of a kind")
    if not earlier.is_dir():
        return [compare(read_report(earlier), read_report(later), tolerance)]
    before, after = read_folder(earlier), read_folder(later)
    common = [name for name in before if name in after]
    if not common:
        raise ValueError(f"{earlier} and {later} have no report of the same name")
    found = [replace(compare(before[name], after[name], tolerance), bench=name) for name in common]
    lone = sorted({*before, *after} - {*common})
    found[0].warnings += [f"only one folder has {name}" for name in lone]
    return found


def terminal(*, stderr: bool = False) -> Console:
    """Where tables go; as wide as they need to be in a file."""
    return Console(stderr=stderr, width=None if sys.stdout.isatty() else WIDTH)

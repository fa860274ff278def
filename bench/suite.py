"""`tidings bench all`: every bench, one after the other, each in a process of its own; one that fails doesn't stop the rest.

A folder takes each one's report, what it printed, the plots and a summary. In modest sizes all of it takes less than 15 minutes on
two cores; in full sizes, those of the targets, about half as long again.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report import SUMMARY, NotAReportError, read_report
from bench.summary import Outcome, Summary

STOP_SECONDS = 30.0  # for a bench that took too long to stop what it started
PLOTS_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One bench of the suite.

    Attributes:
        name: of its report's file, and in plots.
        words: its command.
        modest: options for the short run; without them it is as large as its targets say.
        limit_seconds: when it is given up, in the short run; three times as late in the full one.
    """

    name: str
    words: tuple[str, ...]
    modest: tuple[str, ...]
    limit_seconds: float

    @property
    def bench(self) -> str:
        """Which one."""
        return self.words[0]


ENTRIES: tuple[Entry, ...] = (
    Entry("one process, SQLite", ("chat", "--mode", "process"), ("--seconds", "5"), 360.0),
    Entry("fleet, PostgreSQL", ("chat", "--mode", "fleet"), ("--seconds", "5"), 360.0),
    Entry("idle", ("idle",), ("--sessions", "8000"), 300.0),
    Entry("connect", ("connect",), ("--sessions", "3000", "--rate", "300"), 180.0),
    Entry("notify", ("notify",), ("--clients", "2000000", "--connected", "5000"), 180.0),
    Entry("fanout", ("fanout",), ("--seconds", "5"), 180.0),
    Entry("tags", ("tags",), (), 120.0),
)
BENCHES = tuple(dict.fromkeys(entry.bench for entry in ENTRIES))
Tell = Callable[[str], None]
"""Takes a line that says how far it is."""


def run(folder: Path, only: Sequence[str], tell: Tell, *, full: bool = False) -> Summary:
    """Run the benches named, or all; gives what came of them, which is in the folder, too.

    Raises:
        ValueError: no such bench.
        OSError: the folder can't be written to.
    """
    unknown = [name for name in only if name not in BENCHES]
    if unknown:
        raise ValueError(f"no bench {', '.join(unknown)}: there are {', '.join(BENCHES)}")
    folder.mkdir(parents=True, exist_ok=True)
    summary = Summary(full=full)
    for entry in ENTRIES:
        if not only or entry.bench in only:
            tell(f"{entry.name} …")
            summary.outcomes.append(_run(entry, folder, full=full))
            tell(f"{entry.name}: {summary.outcomes[-1].words}")
    summary.save(folder / SUMMARY)
    _plot(folder, tell)
    return summary


def publish(folder: Path, to: Path) -> None:
    """Copy reports, summary and plots to where documents show them."""
    to.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.json", "*.svg"):
        for file in folder.glob(pattern):
            shutil.copy(file, to / file.name)


def _run(entry: Entry, folder: Path, *, full: bool) -> Outcome:
    file, log, started = folder / f"{entry.name}.json", folder / f"{entry.name}.log", time.monotonic()
    file.unlink(missing_ok=True)
    sizes, limit = ((), 3 * entry.limit_seconds) if full else (entry.modest, entry.limit_seconds)
    command = [sys.executable, "-m", "cli", "bench", *entry.words, *sizes, "--json", str(file)]
    with log.open("wb") as output:
        fault = carry_out(command, output.fileno(), limit)
    seconds = time.monotonic() - started
    try:
        found = read_report(file)
    except (NotAReportError, OSError):
        return Outcome(entry.name, entry.bench, seconds, error=fault or _last_line(log))
    return Outcome(entry.name, entry.bench, seconds, found, fault)


def carry_out(command: list[str], output: int, limit: float) -> str:
    """Run it in a group of its own, which ends with it; gives what went wrong beside its status, which the report tells."""
    process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        _interrupt(process)
        return f"given up after {limit:.0f} s"
    except BaseException:  # Ctrl-C is for us: it stops what it started
        _interrupt(process)
        raise
    return ""


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    """As Ctrl-C would; then without mercy, with all that is left of its group."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it said nothing"


def _plot(folder: Path, tell: Tell) -> None:
    """matplotlib comes with the development packages; without it there are no plots."""
    files = sorted(str(file) for file in folder.glob("*.json"))
    command = [sys.executable, "-m", "bench.plots", str(folder), *files]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PLOTS_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        tell("no plots: drawing took too long")
        return
    if done.returncode:
        tell(f"no plots: {(done.stderr.strip().splitlines() or ['for an unknown reason'])[-1]}")

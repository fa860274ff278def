"""Reports of `tidings bench chat` or `connect` with --json as pictures: `python -m bench.plots FOLDER REPORT.json…`.

Of chat one figure shows how late messages are as the rate grows, one where the CPU goes; of connect, who came back when. matplotlib
comes with the development packages.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from bench.knee import P99_LIMIT_MS

_DUE, _BACK = ": attempts due, by second", ": sessions back, by second"
Reports = dict[str, dict[str, Any]]
"""Parsed reports by what to call them."""


def latency(reports: Reports, path: Path) -> None:
    """p99 until delivery over the offered rate; the search's steps, the limit, and the knees."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, report in reports.items():
        trials = sorted(report["trials"], key=lambda trial: trial["offered_rate"])
        (line,) = axes.plot([t["offered_rate"] for t in trials], [t["p99_ms"] for t in trials], marker="o", label=name)
        axes.axvline(report["knee_rate"], color=line.get_color(), linestyle=":", linewidth=1)
    axes.axhline(P99_LIMIT_MS, color="grey", linewidth=1)
    axes.set(xlabel="messages offered per second", ylabel="p99 until delivered, ms", yscale="log")
    axes.set_title("1-1 messages: stored, delivered, acknowledged (dotted: knee; grey: its limit)")
    axes.legend()
    _save(figure, path)


def cost(reports: Reports, path: Path) -> None:
    """CPU microseconds a message, by process, for each measured span."""
    spans = {f"{name}: {span['name']}": span["costs"] for name, report in reports.items() for span in report["measurements"]}
    services = sorted({service for costs in spans.values() for service in costs})
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.4 * len(spans)), layout="constrained")
    left = dict.fromkeys(spans, 0.0)
    for service in services:
        widths = [costs[service]["cpu_seconds_per_1000"] * 1000 if service in costs else 0.0 for costs in spans.values()]
        axes.barh(list(spans), widths, left=list(left.values()), label=service)
        left = {name: left[name] + width for name, width in zip(spans, widths, strict=True)}
    axes.invert_yaxis()
    axes.set(xlabel="CPU microseconds a message")
    axes.legend(loc="lower right")
    _save(figure, path)


def returns(report: dict[str, Any], path: Path) -> None:
    """Attempts due and sessions back in each second of every return that a report of `connect` has."""
    names = [name.removesuffix(_DUE) for name in report["series"] if name.endswith(_DUE)]
    figure, rows = plt.subplots(len(names), figsize=(8, 2.2 * len(names)), layout="constrained", squeeze=False)
    for name, (axes,) in zip(names, rows, strict=True):
        for what, suffix, width in (("attempts due", _DUE, 0.9), ("sessions back", _BACK, 0.5)):
            counts = report["series"][name + suffix]
            axes.bar(range(len(counts)), counts, width=width, label=what)
        axes.set(title=f"{report['settings']['sessions']:,} sessions, {name}", ylabel="in each second")
    rows[0][0].legend()
    rows[-1][0].set(xlabel="seconds")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """See the module."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tidings"  # the same figures give the same file
    reports = {file.stem: json.loads(file.read_text()) for file in files}
    folder.mkdir(parents=True, exist_ok=True)
    chats = {name: report for name, report in reports.items() if report["bench"] == "chat"}
    if chats:
        latency(chats, folder / "chat-latency.svg")
        cost(chats, folder / "chat-cost.svg")
    for report in reports.values():
        if report["bench"] == "connect":
            returns(report, folder / "connect-returns.svg")


if __name__ == "__main__":
    main()

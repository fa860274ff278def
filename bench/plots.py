"""Reports of `tidings bench chat --json` as pictures: `python -m bench.plots FOLDER REPORT.json…`.

One figure shows how late messages are as the rate grows, one where the CPU goes. matplotlib comes with the development packages.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from bench.knee import P99_LIMIT_MS

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
    """CPU microseconds a message, by process, at the knee."""
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.7 * len(reports)), layout="constrained")
    services = sorted({service for report in reports.values() for service in _costs(report)})
    left = dict.fromkeys(reports, 0.0)
    for service in services:
        widths = [_costs(report).get(service, 0.0) for report in reports.values()]
        axes.barh(list(reports), widths, left=list(left.values()), label=service)
        left = {name: left[name] + width for name, width in zip(reports, widths, strict=True)}
    axes.set(xlabel="CPU microseconds a message, at the knee")
    axes.legend(ncols=len(services), loc="upper center", bbox_to_anchor=(0.5, 1.35), frameon=False)
    _save(figure, path)


def _costs(report: dict[str, Any]) -> dict[str, float]:
    """Microseconds by process, in the first measurement: the knee's."""
    first = report["measurements"][0]["costs"] if report["measurements"] else {}
    return {service: cost["cpu_seconds_per_1000"] * 1000 for service, cost in first.items()}


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
    latency(reports, folder / "chat-latency.svg")
    cost(reports, folder / "chat-cost.svg")


if __name__ == "__main__":
    main()

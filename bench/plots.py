"""Reports of `tidings bench` with --json as pictures: `python -m bench.plots FOLDER REPORT.json…`.

Of chat one shows how late messages are as the rate grows, one where the CPU goes; of connect, who came back when; of idle, what a
session weighs beside a bare one; of all together, how far each is past its target. matplotlib comes with the development packages.
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
    spans = {f"{name}: {span}": costs for name, report in reports.items() for span, costs in report["costs"].items()}
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


def memory(report: dict[str, Any], path: Path) -> None:
    """Kilobytes a session of `idle`: ours, the bare server's, and what is allowed."""
    ours = {one["name"]: one for one in report["figures"] if one["unit"] == "KB"}
    bare = {one["figure"]: one["value"] for one in report["baselines"] if one["unit"] == "KB"}
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.6 * len(ours)), layout="constrained")
    places = range(len(ours))
    axes.barh([place - 0.2 for place in places], [one["value"] for one in ours.values()], height=0.4, label="with a session")
    axes.barh([place + 0.2 for place in places], [bare.get(name, 0.0) for name in ours], height=0.4, label="bare aiohttp")
    for place, one in zip(places, ours.values(), strict=True):
        if one["target"] is not None:
            axes.plot([one["target"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1)
    axes.set_yticks(list(places), list(ours))
    axes.invert_yaxis()
    axes.set(xlabel=f"KB a session, of {report['settings']['sessions']:,} (black: the target)")
    axes.legend()
    _save(figure, path)


def targets(reports: Reports, path: Path) -> None:
    """Of each figure that has a target, how many times it is past it; below 1 it misses it."""
    found = {f"{name}: {one['name']}": _past(one) for name, report in reports.items() for one in report["figures"] if one["target"]}
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.3 * len(found)), layout="constrained")
    colours = ["tab:green" if value >= 1 else "tab:red" for value in found.values()]
    axes.barh(list(found), list(found.values()), color=colours)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set(xlabel="times as good as the target", xscale="log")
    _save(figure, path)


def _past(one: dict[str, Any]) -> float:
    value, target = max(one["value"], 1e-6), one["target"]
    return float(min(100.0, value / target if one["better"] == "more" else target / value))


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
    parsed = {file.stem: json.loads(file.read_text()) for file in files}
    reports = {name: report for name, report in parsed.items() if "bench" in report}  # a summary is none
    folder.mkdir(parents=True, exist_ok=True)
    chats = {name: report for name, report in reports.items() if report["bench"] == "chat"}
    if chats:
        latency(chats, folder / "chat-latency.svg")
        cost(chats, folder / "chat-cost.svg")
    for report in reports.values():
        if report["bench"] == "connect":
            returns(report, folder / "connect-returns.svg")
        if report["bench"] == "idle":
            memory(report, folder / "idle-memory.svg")
    if reports:
        targets(reports, folder / "targets.svg")


if __name__ == "__main__":
    main()

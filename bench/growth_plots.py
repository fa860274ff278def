"""Reports of `tidings bench growth` and of `python -m bench.simulation` as pictures:
`python -m bench.growth_plots FOLDER REPORT.json…`.

growth-members.svg, growth-tags.svg, growth-width.svg (of edges and routers together) and storm.svg, as far as there are reports.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

_COST, _BACK, _ATTEMPTS = ", ns a message", ": back", ": attempts"
_STORM_SECONDS = 120  # of a storm that are shown: what is not back then has waited too long
Report = dict[str, Any]


def members(report: Report, path: Path) -> None:
    """CPU of a message by service, over members, with the line; and how late deliveries are."""
    series, sizes = report["series"], report["series"]["members"]
    figure, (cost, late) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in _spenders(series):
        cost.plot(sizes, [nanos / 1e3 for nanos in series[name]], marker=".", label=name.removesuffix(_COST))
    named = {one["name"]: one["value"] for one in report["figures"]}
    base, slope = named["line: a message's own"], named["line: each delivery"]
    label = f"all: {base:,.0f} + {slope:.1f} each"
    cost.plot(sizes, [base + slope * (size - 1) for size in sizes], color="grey", linestyle=":", label=label)
    for quantile in ("p50", "p99"):
        late.plot(sizes, [micros / 1e3 for micros in series[f"{quantile}, µs"]], marker=".", label=quantile)
    cost.set(xlabel="members online", ylabel="CPU microseconds a message", xscale="log", yscale="log")
    late.set(xlabel="members online", ylabel="milliseconds until delivered", xscale="log", yscale="log", title="one group")
    _save(figure, path, cost, late)


def tags(report: Report, path: Path) -> None:
    """Time of an expansion and of loading, and memory, over clients."""
    series, clients = report["series"], report["series"]["clients"]
    figure, (times, memory) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, label in (("expansion, ns", report["settings"]["expression"]), ("loaded, ns", "snapshot loaded")):
        times.plot(clients, [nanos / 1e6 for nanos in series[name]], marker=".", label=label)
    memory.plot(clients, [held / 2**20 for held in series["memory, bytes"]], marker=".", label="four tags")
    times.set(xlabel="known clients", ylabel="milliseconds", xscale="log", yscale="log")
    memory.set(xlabel="known clients", ylabel="MiB of bitmaps", xscale="log", yscale="log")
    _save(figure, path, times, memory)


def width(reports: Sequence[Report], path: Path) -> None:
    """CPU of a message by service, over edges and over routers."""
    figure, rows = plt.subplots(1, len(reports), figsize=(5 * len(reports), 4), layout="constrained", squeeze=False, sharey=True)
    for axes, report in zip(rows[0], reports, strict=True):
        series, counts = report["series"], report["series"]["processes"]
        left = [0.0] * len(counts)
        for name in _spenders(series):
            heights = [nanos / 1e3 for nanos in series[name]]
            axes.bar(counts, heights, bottom=left, label=name.removesuffix(_COST))
            left = [low + height for low, height in zip(left, heights, strict=True)]
        axes.set(xlabel=f"{report['settings']['service']}s", ylabel="CPU microseconds a message", xticks=counts)
        axes.margins(y=0.4)  # room for the legend
    _save(figure, path, rows[0][0])


def storm(report: Report, path: Path) -> None:
    """Who is back, as a share, in each world; and the attempts."""
    figure, (back, attempts) = plt.subplots(2, figsize=(8, 6), layout="constrained", sharex=True)
    for name in (name.removesuffix(_BACK) for name in report["series"] if name.endswith(_BACK)):
        counts = _cut(report["series"][name + _BACK])
        total = report["settings"]["users"] * report["settings"]["lost"] / report["settings"]["edges"]
        back.plot([100 * sum(counts[: second + 1]) / total for second in range(len(counts))], label=name)
        attempts.plot(_cut(report["series"][name + _ATTEMPTS]), label=name)
    back.set(ylabel="% back", title=f"{report['settings']['lost']:,} of {report['settings']['edges']:,} edges lost at once")
    attempts.set(xlabel="seconds", ylabel="attempts in each second", yscale="symlog")
    _save(figure, path, back)


def draw(folder: Path, reports: Sequence[Report]) -> None:
    """All pictures there are reports for."""
    by_bench = {report["bench"]: report for report in reports}
    for bench, picture, name in (
        ("growth-members", members, "growth-members.svg"),
        ("growth-tags", tags, "growth-tags.svg"),
        ("simulation-storm", storm, "storm.svg"),
    ):
        if bench in by_bench:
            picture(by_bench[bench], folder / name)
    wide = [by_bench[bench] for bench in ("growth-edges", "growth-routers") if bench in by_bench]
    if wide:
        width(wide, folder / "growth-width.svg")


def _spenders(series: dict[str, list[int]]) -> list[str]:
    """The services that took a hundredth of all at least."""
    names = sorted(name for name in series if name.endswith(_COST))
    whole = sum(sum(series[name]) for name in names)
    return [name for name in names if sum(series[name]) * 100 >= whole]


def _cut(counts: list[int]) -> list[int]:
    return (counts + [0] * _STORM_SECONDS)[:_STORM_SECONDS]


def _save(figure: Any, path: Path, *legends: Any) -> None:
    for axes in legends:
        axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """See the module."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tidings"  # the same figures give the same file
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder, [json.loads(Path(name).read_text()) for name in sys.argv[2:]])


if __name__ == "__main__":
    main()

"""Latencies, kept one by one: a run has at most some millions, and percentiles of buckets would hide the tail they are for."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds; `count` samples."""

    count: int
    p50: float
    p95: float
    p99: float
    p999: float
    max: float


def summarize(seconds: Iterable[float]) -> Latency:
    """The percentiles (nearest rank) of latencies in seconds; all zero when there are none."""
    ordered = array("d", sorted(seconds))
    if not ordered:
        return Latency(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    ranks = [_rank(ordered, percent) for percent in PERCENTILES.values()]
    p50, p95, p99, p999 = ranks
    return Latency(len(ordered), p50, p95, p99, p999, round(ordered[-1] * 1e3, 3))


def _rank(ordered: "array[float]", percent: float) -> float:
    place = max(0, min(len(ordered) - 1, -int(-percent * len(ordered) // 100) - 1))
    return round(ordered[place] * 1e3, 3)

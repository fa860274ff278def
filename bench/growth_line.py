"""Whether what is measured grows along a straight line. Pure.

Sizes go over decades and each measurement is off by a share of itself, so the line is the one whose *relative* deviations are
smallest (weighted least squares, weights 1/y²): the largest size doesn't decide alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """y = base + slope * x.

    Attributes:
        deviation: the largest share of itself by which a measured point lies off the line.
        at: the x of that point.
    """

    base: float
    slope: float
    deviation: float
    at: float

    def value(self, x: float) -> float:
        """What the line says at x."""
        return self.base + self.slope * x


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """The line through (x, y) points, all y above 0.

    Raises:
        ValueError: fewer than two different x, or a y that isn't above 0.
    """
    if len({x for x, _ in points}) < 2 or any(y <= 0 for _, y in points):
        raise ValueError("a line needs points at two places, all above 0")
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)) / spread
    base = mean_y - slope * mean_x
    deviation, at = max((abs(base + slope * x - y) / y, x) for x, y in points)
    return Line(base, slope, deviation, at)

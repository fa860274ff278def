"""Counters that cost next to nothing where they are used.

An OpenTelemetry instrument that is called once a batch costs some thirty microseconds, for its code is cold by then: that was a
tenth of what a router did for a lone message. So counts are plain numbers, for which the meter asks when it is read. For one event
loop.
"""

from collections.abc import Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation

Labels = Mapping[str, str]
NO_LABELS: Labels = {}


class Counter:
    """Counts up, by labels, which are always given in the same order.

    Args:
        meter: what publishes it.
        unit: as OpenTelemetry's.
    """

    def __init__(self, meter: Meter, name: str, description: str, unit: str = "1") -> None:
        self._counts: dict[tuple[tuple[str, str], ...], float] = {}
        meter.create_observable_counter(name, [self._observe], unit, description)

    def add(self, amount: float, labels: Labels = NO_LABELS) -> None:
        """Count so many."""
        key = tuple(labels.items())
        self._counts[key] = self._counts.get(key, 0) + amount

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count, dict(key)) for key, count in self._counts.items()]

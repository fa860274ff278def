"""CPU of a mesh's services by message, without what they take when nobody says anything."""

import time
from collections.abc import Mapping

from bench.resources import measure

IDLE_SECONDS = 3.0
CALM_SECONDS = 1.0  # before that, so that what follows a start or a span is over
Cpu = dict[str, float]
"""CPU seconds by service; several processes of one service are one."""


class Meter:
    """Meters processes, from which their cost at rest is taken off.

    Args:
        pids: process ids by name, as bench.mesh names them.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._idle: Cpu = {}
        self._before: Cpu = {}
        self._began = 0.0

    def rest(self) -> Cpu:
        """Measure what the processes take a second while nothing is sent; the caller sends nothing meanwhile."""
        time.sleep(CALM_SECONDS)
        self.begin()
        time.sleep(IDLE_SECONDS)
        spent = self._spent()
        self._idle = {service: spent[service] / IDLE_SECONDS for service in spent}
        return self._idle

    def begin(self) -> None:
        """From here on."""
        self._before, self._began = self._now(), time.monotonic()

    def end(self) -> Cpu:
        """CPU seconds since `begin`, less what rest would have taken; never below 0."""
        spent, seconds = self._spent(), time.monotonic() - self._began
        return {service: max(0.0, cpu - self._idle.get(service, 0.0) * seconds) for service, cpu in spent.items()}

    def _spent(self) -> Cpu:
        return {service: cpu - self._before[service] for service, cpu in self._now().items()}

    def _now(self) -> Cpu:
        sums: Cpu = {}
        for name, usage in measure(self._pids).items():
            service = name.partition("-")[0]
            sums[service] = sums.get(service, 0.0) + usage.cpu_seconds
        return sums

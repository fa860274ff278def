"""The scheduler's metrics, counted per batch.

Every name begins with `scheduler_`, so that services sharing a process and its telemetry don't share an instrument.
"""

from collections.abc import Sequence

from mesh.telemetry import Telemetry
from mesh.times import SECOND, microseconds
from tidings.store.v1.notification_pb2 import StoredNotification


class Meters:
    """The instruments, made once per scheduler."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._claimed = telemetry.counter("scheduler_claimed_total", "Notifications claimed")
        self._handed_over = telemetry.counter("scheduler_handed_over_total", "Notifications taken by routers")
        self._given_back = telemetry.counter("scheduler_given_back_total", "Claims given back, for no router took them")
        self._retries = telemetry.counter("scheduler_retries_total", "Calls made again at another instance")
        self._lateness = telemetry.histogram(
            "scheduler_lateness_seconds", "From the send time to the first claim, the latest of each batch"
        )

    def claimed(self, notifications: Sequence[StoredNotification], now: int) -> None:
        """So many were claimed."""
        if not notifications:
            return
        self._claimed.add(len(notifications))
        first = [microseconds(one.spec.send_time) for one in notifications if one.fence == 1]
        if first:
            self._lateness.observe(max(0, now - min(first)) / SECOND)

    def handed_over(self, count: int) -> None:
        """So many were taken by a router."""
        self._handed_over.add(count)

    def given_back(self, count: int) -> None:
        """So many were not."""
        self._given_back.add(count)

    def retried(self) -> None:
        """A call failed and is made again."""
        self._retries.add(1)

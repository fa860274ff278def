"""The router's metrics, counted per batch.

Every name begins with `router_`, so that services sharing a process and its telemetry don't share an instrument.
"""

from mesh.telemetry import Telemetry
from tidings.router.v1.link_pb2 import TrafficClass


class Meters:
    """The instruments, made once per router."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._messages = telemetry.counter("router_messages_total", "Messages stored (in) and pushes written to edges (out)")
        self._latency = telemetry.histogram("router_push_latency_seconds", "From stored to pushed, each response's oldest")
        self._dropped = telemetry.counter("router_pushes_dropped_total", "Live pushes dropped at a full link")
        self._errors = telemetry.counter("router_errors_total", "Requests refused, by reason")
        self._notified = telemetry.counter(
            "router_notification_recipients_total", "Recipients whom notifications were broadcast for, resends included"
        )
        self._acknowledged = telemetry.counter("router_notification_acknowledgements_total", "Acknowledgements written")
        self._acknowledgements_dropped = telemetry.counter(
            "router_notification_acknowledgements_dropped_total", "Acknowledgements dropped for want of room, to be made again"
        )
        self._runs_ended = telemetry.counter(
            "router_notification_runs_ended_total", "Notifications this router runs no more, by why"
        )
        self._retries = telemetry.counter("router_store_retries_total", "Calls to a store made again")

    def received(self, count: int) -> None:
        """Messages stored for clients."""
        self._messages.add(count, {"direction": "in"})

    def pushed(self, count: int, oldest_seconds: float) -> None:
        """Deliveries written to a link, the oldest of which had waited so long."""
        self._messages.add(count, {"direction": "out"})
        self._latency.observe(oldest_seconds)

    def dropped(self, traffic_class: TrafficClass.ValueType) -> None:
        """A delivery for which a link had no room."""
        self._dropped.add(1, {"class": TrafficClass.Name(traffic_class).removeprefix("TRAFFIC_CLASS_").lower()})

    def refused(self, reason: str) -> None:
        """A request refused."""
        self._errors.add(1, {"reason": reason})

    def retried(self) -> None:
        """A call to a store failed and is made again."""
        self._retries.add(1)

    def notified(self, recipients: int) -> None:
        """A notification was broadcast for so many."""
        self._notified.add(recipients)

    def acknowledged(self, count: int) -> None:
        """Acknowledgements of notifications written."""
        self._acknowledged.add(count)

    def acknowledgements_dropped(self, count: int) -> None:
        """Acknowledgements for which there was no room."""
        self._acknowledgements_dropped.add(count)

    def run_ended(self, why: str) -> None:
        """A notification is not run here any more: it is over, or another's."""
        self._runs_ended.add(1, {"why": why})

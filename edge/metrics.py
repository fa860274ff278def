"""What an edge counts."""

import time
from collections.abc import Iterable

from edge.outbox import CHAT, NOTIFICATION
from mesh.telemetry import Telemetry
from tidings.client.v1.frames_pb2 import ServerFrame
from tidings.router.v1 import link_pb2

_CLASS_LABELS: dict[int, dict[str, str]] = {
    number: {"traffic_class": name.removeprefix("TRAFFIC_CLASS_").lower()} for name, number in link_pb2.TrafficClass.items()
}
_NEWER = {"traffic_class": "unknown"}  # of a router newer than this edge
_IN, _OUT = {"direction": "in"}, {"direction": "out"}
_ACKNOWLEDGED = {"direction": "acknowledged"}
_PLACED, _ALONE = {"placed": "yes"}, {"placed": "no"}


class EdgeMetrics:
    """Counters of one edge; edges of one process add up in the same telemetry."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._open = 0
        self._messages = telemetry.counter("messages_total", "Sends accepted (in) and chat frames delivered (out)")
        self._client_errors = telemetry.counter("client_errors_total", "Named errors and close codes told to clients")
        self._drops = telemetry.counter("outbox_dropped_frames_total", "Frames that full outboxes dropped, by class")
        self._departures = telemetry.counter(
            "departures_total", "Clients told to leave, by whether they were given a place at another edge"
        )
        self._notifications = telemetry.counter(
            "notifications_total",
            "Notification frames handed to sessions (out; outboxes may drop some) and acknowledged by clients (acknowledged)",
        )
        self._broadcast_drops = telemetry.counter(
            "broadcasts_dropped_total", "Broadcasts not written, or not to the end, by reason"
        )
        self._ack_drops = telemetry.counter(
            "notification_acknowledgements_dropped_total",
            "Those that found no room; their notifications come again",
        )
        telemetry.gauge("concurrent_websocket_connections", "Connections open now", lambda: self._open)
        self._latency = telemetry.histogram(
            "message_delivery_latency_seconds", "From the store's time to the edge's delivery, one sample a batch"
        )
        self._begin()

    def _begin(self) -> None:
        """What has not happened yet reads 0."""
        self._messages.add(0, _IN)
        for traffic_class in (CHAT, NOTIFICATION):
            self.handed_out(traffic_class, 0)
        self.acknowledged(0)
        self.acks_dropped(0)
        self.told_to_leave(0, 0)

    def opened(self) -> None:
        """A client connected."""
        self._open += 1

    def closed(self) -> None:
        """A client's connection ended."""
        self._open -= 1

    def accepted(self) -> None:
        """A send was taken from a client."""
        self._messages.add(1, _IN)

    def handed_out(self, traffic_class: int, frames: int) -> None:
        """So many frames were handed to sessions."""
        if traffic_class == CHAT:
            self._messages.add(frames, _OUT)
        elif traffic_class == NOTIFICATION:
            self._notifications.add(frames, _OUT)

    def dropped(self, traffic_class: int, frames: int) -> None:
        """So many frames found no room."""
        self._drops.add(frames, _CLASS_LABELS.get(traffic_class, _NEWER))

    def broadcast_dropped(self, reason: str) -> None:
        """A broadcast was not written, or not to the end."""
        self._broadcast_drops.add(1, {"reason": reason})

    def acknowledged(self, notifications: int) -> None:
        """A client acknowledged so many notifications."""
        self._notifications.add(notifications, _ACKNOWLEDGED)

    def acks_dropped(self, count: int) -> None:
        """So many acknowledgements of notifications found no room."""
        self._ack_drops.add(count)

    def client_error(self, reason: str) -> None:
        """A client was told a named error."""
        self._client_errors.add(1, {"reason": reason})

    def told_to_leave(self, placed: int, alone: int) -> None:
        """So many clients were told to leave: with another edge's ticket, and with a time alone."""
        self._departures.add(placed, _PLACED)
        self._departures.add(alone, _ALONE)

    def sample(self, deliveries: Iterable[link_pb2.Delivery]) -> None:
        """Measure the delivery latency of a batch by its first log entry."""
        for delivery in deliveries:
            if delivery.traffic_class == CHAT and delivery.seq:
                stored = ServerFrame.FromString(delivery.frame).new_message.entry.store_time
                self._latency.observe(max(0.0, time.time() - stored.ToNanoseconds() / 1e9))
            return

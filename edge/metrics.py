"""What an edge counts. Sessions add to plain numbers; once a second they are published."""

import time
from collections.abc import Iterable

from edge.outbox import CHAT
from mesh.telemetry import Telemetry
from tidings.client.v1.frames_pb2 import ServerFrame
from tidings.router.v1 import link_pb2

_CLASS_NAMES: dict[int, str] = {
    number: name.removeprefix("TRAFFIC_CLASS_").lower() for name, number in link_pb2.TrafficClass.items()
}


class EdgeMetrics:
    """Counters of one edge; edges of one process add up in the same telemetry.

    Attributes:
        messages_in: sends accepted since the last `publish`.
        messages_out: chat frames handed to sessions since then.
        notifications_out: notification frames handed to sessions since then; their outboxes may have dropped some.
        notification_acks: notifications that clients acknowledged since then.
        sent_away: clients told to leave since then, by whether another edge expects them.
        dropped: frames that full outboxes dropped since then, by traffic class.
        broadcasts_dropped: broadcasts not written, or not to the end, since then, by reason.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self.messages_in = 0
        self.messages_out = 0
        self.notifications_out = 0
        self.notification_acks = 0
        self.sent_away = {"yes": 0, "no": 0}
        self.dropped: dict[int, int] = {}
        self.broadcasts_dropped: dict[str, int] = {}
        self._acks_dropped = 0
        self._errors: dict[str, int] = {}
        self._open = 0
        self._messages = telemetry.counter("messages_total", "Sends accepted (in) and chat frames delivered (out)")
        self._client_errors = telemetry.counter("client_errors_total", "Named errors and close codes told to clients")
        self._drops = telemetry.counter("outbox_dropped_frames_total", "Frames that full outboxes dropped, by class")
        self._departures = telemetry.counter(
            "departures_total", "Clients told to leave, by whether they were given a place at another edge"
        )
        self._notifications = telemetry.counter(
            "notifications_total", "Notification frames handed to sessions (out) and acknowledged by clients (acknowledged)"
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

    def opened(self) -> None:
        """A client connected."""
        self._open += 1

    def closed(self) -> None:
        """A client's connection ended."""
        self._open -= 1

    def client_error(self, reason: str) -> None:
        """A client was told a named error."""
        self._errors[reason] = self._errors.get(reason, 0) + 1

    def told_to_leave(self, placed: int, alone: int) -> None:
        """So many clients were told to leave: with another edge's ticket, and with a time alone."""
        self.sent_away["yes"] += placed
        self.sent_away["no"] += alone

    def acks_dropped(self, count: int) -> None:
        """So many acknowledgements of notifications found no room."""
        self._acks_dropped += count

    def sample(self, deliveries: Iterable[link_pb2.Delivery]) -> None:
        """Measure the delivery latency of a batch by its first log entry."""
        for delivery in deliveries:
            if delivery.traffic_class == CHAT and delivery.seq:
                stored = ServerFrame.FromString(delivery.frame).new_message.entry.store_time
                self._latency.record(max(0.0, time.time() - stored.ToNanoseconds() / 1e9))
            return

    def publish(self) -> None:
        """Hand everything counted to the meters."""
        for direction, count in (("in", self.messages_in), ("out", self.messages_out)):
            self._messages.add(count, {"direction": direction})
        self.messages_in = self.messages_out = 0
        for placed, count in self.sent_away.items():
            self._departures.add(count, {"placed": placed})
        self.sent_away = dict.fromkeys(self.sent_away, 0)
        for reason, count in self._errors.items():
            self._client_errors.add(count, {"reason": reason})
        for traffic_class, count in self.dropped.items():
            self._drops.add(count, {"traffic_class": _CLASS_NAMES[traffic_class]})
        self._publish_notifications()
        self._errors.clear()
        self.dropped.clear()

    def _publish_notifications(self) -> None:
        self._notifications.add(self.notifications_out, {"direction": "out"})
        self._notifications.add(self.notification_acks, {"direction": "acknowledged"})
        for reason, count in self.broadcasts_dropped.items():
            self._broadcast_drops.add(count, {"reason": reason})
        self._ack_drops.add(self._acks_dropped)
        self.notifications_out = self.notification_acks = self._acks_dropped = 0
        self.broadcasts_dropped.clear()

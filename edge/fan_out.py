"""Writes the live frames of routers to the sessions they are for. A fault of ours in one session is no other's business."""

from collections.abc import Callable

import structlog

from edge.broadcasts import Broadcasts, Drop
from edge.directory import Directory
from edge.encoding import JsonEncoding
from edge.metrics import EdgeMetrics
from edge.outbox import CHAT, NOTIFICATION
from edge.session import Session
from tidings.router.v1 import link_pb2

MAX_BROADCASTS = 1_000  # that wait; with 10,000 sessions each that is minutes of work
MAX_BROADCAST_BYTES = 67_108_864  # of their bitmaps and frames
SLICE = 64  # sessions of a broadcast written in one turn of the event loop: about a millisecond

_log = structlog.get_logger(__name__)


class FanOut:
    """Deliveries are written at once; broadcasts a slice at a time.

    Args:
        failed: called in the handler of an exception that a session raised.
    """

    def __init__(self, directory: Directory, json: JsonEncoding, metrics: EdgeMetrics, failed: Callable[[Session], None]) -> None:
        self._directory = directory
        self._json = json
        self._metrics = metrics
        self._failed = failed
        self._broadcasts = Broadcasts(directory, MAX_BROADCASTS, MAX_BROADCAST_BYTES, metrics.broadcasts_dropped)
        self._full = False

    def deliver(self, delivery: link_pb2.Delivery, now: float) -> None:
        """Write a frame to the sessions of a few users."""
        traffic_class, seq, frame = delivery.traffic_class, delivery.seq, delivery.frame
        conversation_id, left_out, only = delivery.conversation_id, delivery.except_session, delivery.only_sessions
        written = 0
        for ordinal in delivery.user_ordinals:
            for session in self._directory.of_user(ordinal):
                if session.number != left_out and (not only or session.number in only):
                    written += 1
                    try:
                        session.on_delivery(traffic_class, conversation_id, seq, frame, now)
                    except Exception:
                        self._failed(session)
        if traffic_class == CHAT:
            self._metrics.messages_out += written
        elif traffic_class == NOTIFICATION:
            self._metrics.notifications_out += written

    def broadcast(self, broadcast: link_pb2.Broadcast) -> None:
        """Take a frame for many; `write_slice` writes it. One without room is counted, and the first of several logged."""
        drop = self._broadcasts.offer(broadcast)
        if drop is not None and not (drop is Drop.FULL and self._full):
            _log.warning("broadcast dropped", why=drop.value, notification=broadcast.notification_id, waiting=len(self._broadcasts))
        self._full = drop is Drop.FULL

    def write_slice(self, now: float, wall: float) -> bool:
        """Write a frame to some more of those it is for; False when no broadcast is left."""
        found = self._broadcasts.next_slice(SLICE, int(wall * 1e6))
        if found is None:
            return False
        self._json.hold(found.frame)
        for session in found.sessions:
            try:
                session.on_delivery(found.traffic_class, "", 0, found.frame, now)
            except Exception:
                self._failed(session)
        if found.traffic_class == NOTIFICATION:
            self._metrics.notifications_out += len(found.sessions)
        return True

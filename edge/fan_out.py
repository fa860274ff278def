"""Writes the live frames of routers to the sessions they are for. A fault of ours in one session is no other's business."""

from collections import OrderedDict
from collections.abc import Callable

import structlog

from edge.broadcasts import Broadcasts, Drop, Slice
from edge.crowds import Crowds
from edge.directory import Directory
from edge.encoding import JsonEncoding
from edge.metrics import EdgeMetrics
from edge.outbox import CHAT
from edge.packet import Packet
from edge.session import Session
from tidings.router.v1 import link_pb2

MAX_BROADCASTS = 1_000  # that wait; with 10,000 sessions each that is minutes of work
MAX_BROADCAST_BYTES = 67_108_864  # of their bitmaps and frames
SLICE = 64  # sessions of a broadcast written in one turn of the event loop: about a millisecond
CROWD_SLICE = 128  # the same of a frame to a large conversation, which is written to each session at less cost
MAX_CROWD = 2_000  # frames for large conversations that wait: minutes of work, were they not written together
MAX_CROWD_BYTES = 16_777_216  # of them
CROWDED = 50  # users of an entry past which the marks in its conversation take their time: hurrying, they cost more than the entry
MAX_CROWDED = 10_000  # large conversations remembered; past it the marks of the quietest are no longer held back

_log = structlog.get_logger(__name__)


class FanOut:
    """Deliveries to a few are written at once; those to many, and broadcasts, a slice at a time.

    Args:
        failed: called in the handler of an exception that a session raised.
    """

    def __init__(self, directory: Directory, json: JsonEncoding, metrics: EdgeMetrics, failed: Callable[[Session], None]) -> None:
        self._directory = directory
        self._json = json
        self._metrics = metrics
        self._failed = failed
        self._broadcasts = Broadcasts(directory, MAX_BROADCASTS, MAX_BROADCAST_BYTES, metrics.broadcast_dropped)
        self._crowds = Crowds(directory, MAX_CROWD, MAX_CROWD_BYTES)
        self._crowded: OrderedDict[str, None] = OrderedDict()
        self._full = False

    def crowded(self, conversation_id: str) -> bool:
        """Whether many users of this edge are in a conversation, as far as its last frames say."""
        return conversation_id in self._crowded

    @property
    def busy(self) -> bool:
        """Whether something waits for `write_slice`."""
        return self._crowds.busy or len(self._broadcasts) > 0

    def deliver(self, delivery: link_pb2.Delivery, now: float) -> None:
        """Write a frame to the sessions of some users: of a few at once, of many by and by."""
        if len(delivery.user_ordinals) > CROWDED and delivery.seq:
            self._remember(delivery.conversation_id)
        if not self._crowds.concerns(delivery):
            self._write(delivery, now)
        elif not self._crowds.offer(delivery):
            self._metrics.dropped(delivery.traffic_class, 1)
            if delivery.traffic_class == CHAT:
                self._resync(delivery, now)

    def _remember(self, conversation_id: str) -> None:
        self._crowded[conversation_id] = None
        self._crowded.move_to_end(conversation_id)
        if len(self._crowded) > MAX_CROWDED:
            self._crowded.popitem(last=False)

    def _resync(self, delivery: link_pb2.Delivery, now: float) -> None:
        for ordinal in delivery.user_ordinals:
            for session in self._directory.of_user(ordinal):
                session.resync(now)

    def _write(self, delivery: link_pb2.Delivery, now: float) -> None:
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
        self._metrics.handed_out(traffic_class, written)

    def broadcast(self, broadcast: link_pb2.Broadcast) -> None:
        """Take a frame for many; `write_slice` writes it. One without room is counted, and the first of several logged."""
        drop = self._broadcasts.offer(broadcast)
        if drop is not None and not (drop is Drop.FULL and self._full):
            _log.warning("broadcast dropped", why=drop.value, notification=broadcast.notification_id, waiting=len(self._broadcasts))
        self._full = drop is Drop.FULL

    def write_slice(self, now: float, wall: float) -> bool:
        """Write to some more sessions what is for many; False when nothing is left."""
        crowd = self._crowds.next_slice(CROWD_SLICE)
        if crowd is not None:
            self._write_packet(*crowd, now)
        found = self._broadcasts.next_slice(SLICE, int(wall * 1e6))
        if found is not None:
            self._write_broadcast(found, now)
        return crowd is not None or found is not None

    def _write_packet(self, packet: Packet, sessions: list[Session], now: float) -> None:
        for session in sessions:
            try:
                session.on_packet(packet, now)
            except Exception:
                self._failed(session)
        self._metrics.handed_out(packet.traffic_class, len(sessions) * len(packet.frames))

    def _write_broadcast(self, found: Slice, now: float) -> None:
        self._json.hold(found.frame)
        for session in found.sessions:
            try:
                session.on_delivery(found.traffic_class, "", 0, found.frame, now)
            except Exception:
                self._failed(session)
        self._metrics.handed_out(found.traffic_class, len(found.sessions))

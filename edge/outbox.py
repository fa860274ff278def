"""What is queued for one client, by traffic class. Pure; the connection is its only reader.

When full, presence and typing go first, then notifications, then receipts, each with a count; when a chat frame still finds no
room the client is too slow. A lone frame fits whatever its size, or it could never be sent.
"""

from collections.abc import Callable
from enum import Enum, auto

from tidings.router.v1 import link_pb2

CHAT = link_pb2.TRAFFIC_CLASS_CHAT
RECEIPT = link_pb2.TRAFFIC_CLASS_RECEIPT
NOTIFICATION = link_pb2.TRAFFIC_CLASS_NOTIFICATION
PRESENCE = link_pb2.TRAFFIC_CLASS_PRESENCE
_CLASSES = (CHAT, RECEIPT, NOTIFICATION, PRESENCE)  # the most important first; the numbers are 1-4

Dropped = Callable[[int, int], None]


class Fate(Enum):
    """What became of a frame."""

    QUEUED = auto()
    DROPPED = auto()
    TOO_SLOW = auto()


class Outbox:
    """Frames of one client, bounded by bytes and by number.

    Args:
        max_bytes, max_frames: bounds over all classes; frames that were asked for when it was empty don't count against them.
    """

    __slots__ = ("_bytes", "_frames", "_max_bytes", "_max_frames", "_queues")

    def __init__(self, max_bytes: int, max_frames: int) -> None:
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._queues: dict[int, list[bytes]] = {}  # by class; nothing at rest
        self._bytes = 0
        self._frames = 0

    def __len__(self) -> int:
        return self._frames

    @property
    def size(self) -> int:
        """Bytes queued."""
        return self._bytes

    def offer(self, frame: bytes, traffic_class: int, dropped: Dropped, *, asked: bool = False) -> Fate:
        """Queue a frame; `dropped` is told what had to go for it: class, frames."""
        if traffic_class not in _CLASSES:  # a router newer than this edge
            traffic_class = PRESENCE
        if not asked and self._frames and self._over(len(frame)) and not self._make_room(len(frame), traffic_class, dropped):
            if traffic_class == CHAT:
                return Fate.TOO_SLOW
            dropped(traffic_class, 1)
            return Fate.DROPPED
        queue = self._queues.get(traffic_class)
        if queue is None:
            self._queues[traffic_class] = [frame]
        else:
            queue.append(frame)
        self._bytes += len(frame)
        self._frames += 1
        return Fate.QUEUED

    def take(self, max_bytes: int) -> list[bytes]:
        """Up to about `max_bytes` of frames (at least one), the most important class first, each class in order."""
        if self._bytes <= max_bytes:
            return self._take_all()
        taken: list[bytes] = []
        for traffic_class in _CLASSES:
            queue, count = self._queues.get(traffic_class, []), 0
            while count < len(queue) and (max_bytes > 0 or not taken):
                max_bytes -= len(queue[count])
                taken.append(queue[count])
                count += 1
            del queue[:count]
        self._bytes -= sum(map(len, taken))
        self._frames -= len(taken)
        return taken

    def _take_all(self) -> list[bytes]:
        queues, self._queues = self._queues, {}
        self._bytes = self._frames = 0
        if len(queues) == 1:
            return next(iter(queues.values()))
        return [frame for traffic_class in _CLASSES for frame in queues.get(traffic_class, ())]

    def _over(self, size: int) -> bool:
        return self._bytes + size > self._max_bytes or self._frames >= self._max_frames

    def _make_room(self, size: int, traffic_class: int, dropped: Dropped) -> bool:
        """Drop less important classes, the least important first, until the frame fits; False when it still doesn't."""
        for victim in reversed(_CLASSES):
            if victim <= traffic_class:
                break
            self._drop(victim, dropped)
            if not self._frames or not self._over(size):
                return True
        return False

    def _drop(self, traffic_class: int, dropped: Dropped) -> None:
        queue = self._queues.pop(traffic_class, None)
        if queue:
            dropped(traffic_class, len(queue))
            self._bytes -= sum(map(len, queue))
            self._frames -= len(queue)

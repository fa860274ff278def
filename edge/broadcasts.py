"""Frames for many, handed out a slice at a time, so that chat goes in between. Pure; wall time is microseconds since 1970.

First in, first out: taking turns would only make each of them end later, and a router sends in the order of priority.
"""

from array import array
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from google.protobuf.message import DecodeError
from pyroaring import BitMap

from edge.directory import Directory
from edge.outbox import NOTIFICATION, PRESENCE, RECEIPT
from edge.session import Session
from tidings.client.v1.frames_pb2 import ServerFrame
from tidings.router.v1 import link_pb2

_CLASSES = (RECEIPT, NOTIFICATION, PRESENCE)  # nothing is held against a session without room for it, so it can't be CHAT


class Drop(Enum):
    """Why a broadcast, or the rest of one, is not written."""

    FULL = "full"
    MALFORMED = "malformed"
    EXPIRED = "expired"


class Slice(NamedTuple):
    """One frame for some sessions."""

    frame: bytes
    traffic_class: int
    sessions: list[Session]


class Broadcast:
    """One under way: whom it is for is settled when its turn comes, for who comes later is the router's business.

    Raises:
        ValueError, IndexError: the bitmap is none.
        DecodeError: the frame is none.
    """

    def __init__(self, broadcast: link_pb2.Broadcast) -> None:
        ordinals = broadcast.user_ordinals
        self.frame = broadcast.frame  # once: each access makes another copy
        self.traffic_class = broadcast.traffic_class if broadcast.traffic_class in _CLASSES else NOTIFICATION
        self.expire_time_us = broadcast.expire_time_us
        self.size = len(ordinals) + len(self.frame)
        self._users = BitMap.deserialize(ordinals) if ordinals else BitMap()
        self._here: array[int] | None = None
        self._next = 0
        ServerFrame.FromString(self.frame)

    def take(self, size: int, directory: Directory) -> list[Session]:
        """The sessions of its next users here, `size` or a few more; fewer at the end, and then none."""
        if self._here is None:
            self._here = directory.here(self._users)
        sessions: list[Session] = []
        while self._next < len(self._here) and len(sessions) < size:
            sessions += directory.of_user(self._here[self._next])
            self._next += 1
        return sessions


class Broadcasts:
    """Those not yet written to the end.

    Args:
        max_count, max_bytes: bounds of what waits; a broadcast that finds no room is dropped, for the router sends again what isn't
            acknowledged.
        dropped: told of each that is dropped, by the value of Drop.
    """

    def __init__(self, directory: Directory, max_count: int, max_bytes: int, dropped: Callable[[str], None]) -> None:
        self._directory = directory
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._waiting: deque[Broadcast] = deque()
        self._bytes = 0
        self._dropped = dropped

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, broadcast: link_pb2.Broadcast) -> Drop | None:
        """Take a broadcast, or say why not."""
        if len(self._waiting) >= self._max_count or self._bytes >= self._max_bytes:
            return self._drop(Drop.FULL)
        try:
            taken = Broadcast(broadcast)
        except (ValueError, IndexError, DecodeError):
            return self._drop(Drop.MALFORMED)
        self._waiting.append(taken)
        self._bytes += taken.size
        return None

    def next_slice(self, size: int, now_us: int) -> Slice | None:
        """Whom to write what next, to about `size` sessions; None when nothing is left."""
        while self._waiting:
            first = self._waiting[0]
            if 0 < first.expire_time_us <= now_us:
                self._drop(Drop.EXPIRED)
            elif sessions := first.take(size, self._directory):
                return Slice(first.frame, first.traffic_class, sessions)
            self._bytes -= self._waiting.popleft().size
        return None

    def _drop(self, why: Drop) -> Drop:
        self._dropped(why.value)
        return why

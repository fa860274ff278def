"""Live frames for the members of large conversations, handed out a slice at a time: everybody else's chat goes in between. Pure.

Rules: a conversation's log entries reach each session in the order in which they came. So while some of its frames wait here, all
that follow wait behind them, however few they are for. Conversations take turns. Frames of one conversation that wait together for
the same users go together: the further the edge is behind, the less each costs.
"""

from array import array
from collections import OrderedDict, deque
from typing import NamedTuple

from pyroaring import BitMap

from edge.directory import Directory
from edge.packet import Live, Packet
from edge.session import Session
from tidings.router.v1 import link_pb2

MANY = 128  # users of a frame past which it is written in slices: a millisecond or two of everybody's event loop
TOGETHER = 64  # frames that go together at most
TOGETHER_BYTES = 32_768  # of them, or a single larger one: what a transport takes before it says that it is full


class _Waiting(NamedTuple):
    live: Live
    traffic_class: int
    users: BitMap


class _Pass:
    """A packet on its way to the sessions it is for. Whoever comes meanwhile gets it too, and drops it by its seq."""

    def __init__(self, packet: Packet, here: "array[int]") -> None:
        self.packet = packet
        self._here = here
        self._next = 0

    def take(self, size: int, directory: Directory) -> list[Session]:
        """The sessions of its next users, `size` or a few more; none at the end."""
        sessions: list[Session] = []
        while self._next < len(self._here) and len(sessions) < size:
            sessions += directory.of_user(self._here[self._next])
            self._next += 1
        return sessions


class Crowds:
    """Frames not yet written to all they are for.

    Args:
        max_count, max_bytes: bounds of what waits. When full, a frame is not taken, and the log must bring it.
    """

    def __init__(self, directory: Directory, max_count: int, max_bytes: int) -> None:
        self._directory = directory
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._waiting: OrderedDict[str, deque[_Waiting]] = OrderedDict()  # by conversation; whose turn it is comes first
        self._pass: _Pass | None = None
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Frames that wait, without those that are being written."""
        return self._count

    @property
    def busy(self) -> bool:
        """Whether anything is left to write."""
        return self._pass is not None or bool(self._waiting)

    def concerns(self, delivery: link_pb2.Delivery) -> bool:
        """Whether a frame must come here: it is for many, or follows one that waits."""
        return len(delivery.user_ordinals) > MANY or (delivery.seq > 0 and self._has(delivery.conversation_id))

    def offer(self, delivery: link_pb2.Delivery) -> bool:
        """Take a frame; False when there is no room."""
        frame = delivery.frame
        if self._count >= self._max_count or self._bytes + len(frame) > self._max_bytes:
            return False
        live = Live(delivery.seq, frame, delivery.except_session, frozenset(delivery.only_sessions))
        queue = self._waiting.setdefault(delivery.conversation_id, deque())
        queue.append(_Waiting(live, delivery.traffic_class, BitMap(delivery.user_ordinals)))
        self._count += 1
        self._bytes += len(frame)
        return True

    def next_slice(self, size: int) -> tuple[Packet, list[Session]] | None:
        """What to write next, and to whom, about `size` sessions; None when nothing is left."""
        while (under_way := self._pass or self._begin()) is not None:
            self._pass = under_way
            if sessions := under_way.take(size, self._directory):
                return under_way.packet, sessions
            self._pass = None
        return None

    def _has(self, conversation_id: str) -> bool:
        if self._pass is not None and self._pass.packet.conversation_id == conversation_id:
            return True
        return conversation_id in self._waiting

    def _begin(self) -> _Pass | None:
        """The next conversation's turn."""
        if not self._waiting:
            return None
        conversation_id, queue = self._waiting.popitem(last=False)
        first = queue[0]
        frames = self._together(queue)
        if queue:
            self._waiting[conversation_id] = queue
        return _Pass(Packet(first.traffic_class, conversation_id, frames), self._directory.here(first.users))

    def _together(self, queue: deque[_Waiting]) -> list[Live]:
        """Take the first frame, and those behind it that are for the same users."""
        first, frames, size = queue[0], list[Live](), 0
        while queue and len(frames) < TOGETHER and queue[0].traffic_class == first.traffic_class and queue[0].users == first.users:
            size += len(queue[0].live.frame)
            if frames and size > TOGETHER_BYTES:
                break
            frames.append(queue.popleft().live)
            self._bytes -= len(frames[-1].frame)
        self._count -= len(frames)
        return frames

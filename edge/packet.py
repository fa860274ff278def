"""Frames that go to the same sessions together, made into one piece of the wire once for all of them. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from edge.encoding import Encoding
from edge.wire import pack


class Live(NamedTuple):
    """One frame, and which sessions of the users it is for get it.

    Attributes:
        seq: of a log entry; 0 for anything else.
        frame: an encoded ServerFrame.
        left_out: this session does not; 0 for none.
        only: when not empty, only these do.
    """

    seq: int
    frame: bytes
    left_out: int
    only: frozenset[int]

    def suits(self, session: int) -> bool:
        """Whether this session gets it."""
        return session != self.left_out and (not self.only or session in self.only)


class Packet:
    """Frames of one conversation.

    Attributes:
        traffic_class, conversation_id: of all of them.
        frames: in order.
        seq: the highest of their seqs.
    """

    __slots__ = ("_chosen", "_left_out", "_packed", "conversation_id", "frames", "seq", "traffic_class")

    def __init__(self, traffic_class: int, conversation_id: str, frames: Sequence[Live]) -> None:
        self.traffic_class = traffic_class
        self.conversation_id = conversation_id
        self.frames = frames
        self.seq = max(one.seq for one in frames)
        self._left_out = frozenset(one.left_out for one in frames)
        self._chosen = any(one.only for one in frames)
        self._packed: dict[int, bytes] = {}

    def whole(self, session: int) -> bool:
        """Whether this session gets every frame."""
        return session not in self._left_out and not self._chosen

    def packed(self, encoding: Encoding) -> bytes:
        """All frames as they are on the wire; made once for each subprotocol."""
        found = self._packed.get(encoding.opcode)
        if found is None:
            found = pack([encoding.encode(one.frame) for one in self.frames], encoding.opcode)
            self._packed[encoding.opcode] = found
        return found

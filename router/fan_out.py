"""From a conversation and an encoded frame to the links of the edges where its members are. A frame is encoded once; each edge
gets it once, with the users it is for."""

from collections.abc import Iterable, Iterator, Sequence

from pyroaring import BitMap

from router.dispatch import DispatchMarks
from router.link import EdgeLink
from router.membership import FEW, Membership
from router.roster import Roster
from tidings.router.v1.link_pb2 import TRAFFIC_CLASS_CHAT, TrafficClass


class FanOut:
    """Pushes frames to users, wherever they are."""

    def __init__(self, roster: Roster[EdgeLink], marks: DispatchMarks[EdgeLink]) -> None:
        self._roster = roster
        self._marks = marks

    def entry(self, conversation: Membership, seq: int, frame: bytes, origin: EdgeLink | None = None, session: int = 0) -> None:
        """Push a log entry to all who may see it, but not to the session at its edge that caused it."""
        for link, here in self._readers(conversation, seq):
            link.deliver(
                here,
                frame,
                TRAFFIC_CLASS_CHAT,
                conversation_id=conversation.conversation_id,
                seq=seq,
                except_session=session if link is origin else 0,
            )
        self._marks.fanned_out(conversation.conversation_id, seq)

    def to_users(self, ordinals: Iterable[int], frame: bytes, traffic_class: TrafficClass.ValueType) -> None:
        """Push a frame that is no log entry to these users."""
        few = list(ordinals)
        if len(few) > FEW:
            self._push(self._roster.where_of(BitMap(few)), frame, traffic_class)
        else:
            self._push(self._roster.where(few), frame, traffic_class)

    def _readers(self, conversation: Membership, seq: int) -> Iterator[tuple[EdgeLink, Sequence[int]]]:
        barred = conversation.barred(seq)
        if not conversation.small:
            return self._roster.where_of(conversation.bitmap - BitMap(barred) if barred else conversation.bitmap)
        if barred:
            return self._roster.where([one for one in conversation.user_ids if one not in barred])
        return self._roster.where(conversation.user_ids)

    @staticmethod
    def _push(where: Iterable[tuple[EdgeLink, Sequence[int]]], frame: bytes, traffic_class: TrafficClass.ValueType) -> None:
        for link, here in where:
            link.deliver(here, frame, traffic_class)

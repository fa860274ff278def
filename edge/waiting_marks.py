"""Marks that wait their turn to leave for a router, where a newer one takes the place of an older. Pure.

Each turn lets go a share of what waits, the oldest first: so they leave evenly, each within about as many turns as there are
shares. A hundred at once would keep every hop behind from messages for as long as several of those need. Those of one conversation
cost far less together than apart: where there are not thousands of them, they leave with the oldest.
"""

from itertools import islice

from tidings.router.v1 import link_pb2

Mark = link_pb2.ReceiptDelta
MarkKey = tuple[int, str]
"""Session number and conversation."""


class WaitingMarks:
    """See above. Bounded by whoever fills it.

    Args:
        turns: how many shares there are.
        few: so many go in one turn however small their share.
        whole: whether those of one conversation leave together, more than a share if need be.
    """

    def __init__(self, turns: int, few: int, *, whole: bool = False) -> None:
        self._turns = turns
        self._few = few
        self._whole = whole
        self._waiting: dict[MarkKey, Mark] = {}  # the oldest first
        self._sessions: dict[str, set[int]] = {}  # by conversation, when those leave whole

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: MarkKey, mark: Mark) -> None:
        """Queue a mark, or move the one that waits."""
        merge(self._waiting, key, mark)
        if self._whole:
            self._sessions.setdefault(key[1], set()).add(key[0])

    def drop_oldest(self) -> None:
        """Forget one."""
        session, conversation_id = oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        if self._whole:
            self._sessions[conversation_id].remove(session)
            if not self._sessions[conversation_id]:
                del self._sessions[conversation_id]

    def turn(self) -> dict[MarkKey, Mark]:
        """Those that may go now."""
        count = max(self._few, -(-len(self._waiting) // self._turns))
        due = list(islice(self._waiting, count))
        if self._whole:
            conversations = dict.fromkeys(conversation_id for _, conversation_id in due)
            due = [(session, name) for name in conversations for session in self._sessions.pop(name)]
        return {key: self._waiting.pop(key) for key in due}

    def all(self) -> dict[MarkKey, Mark]:
        """Everything, without waiting."""
        waiting, self._waiting = self._waiting, {}
        self._sessions.clear()
        return waiting


def merge(marks: dict[MarkKey, Mark], key: MarkKey, mark: Mark) -> None:
    """Add a mark, or move the one that is there: neither of its seqs goes back."""
    old = marks.setdefault(key, mark)
    old.delivered_seq = max(old.delivered_seq, mark.delivered_seq)
    old.read_seq = max(old.read_seq, mark.read_seq)

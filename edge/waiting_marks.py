"""Marks that wait their turn to leave for a router, where a newer one takes the place of an older. Pure.

Each turn lets go a share of what waits, the oldest first: so they leave evenly, each within about as many turns as there are
shares. A hundred at once would keep every hop behind from messages for as long as several of those need.
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
    """

    def __init__(self, turns: int, few: int) -> None:
        self._turns = turns
        self._few = few
        self._waiting: dict[MarkKey, Mark] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: MarkKey, mark: Mark) -> None:
        """Queue a mark, or move the one that waits."""
        merge(self._waiting, key, mark)

    def drop_oldest(self) -> None:
        """Forget one."""
        del self._waiting[next(iter(self._waiting))]

    def turn(self) -> dict[MarkKey, Mark]:
        """Those that may go now."""
        count = max(self._few, -(-len(self._waiting) // self._turns))
        return {key: self._waiting.pop(key) for key in list(islice(self._waiting, count))}

    def all(self) -> dict[MarkKey, Mark]:
        """Everything, without waiting."""
        waiting, self._waiting = self._waiting, {}
        return waiting


def merge(marks: dict[MarkKey, Mark], key: MarkKey, mark: Mark) -> None:
    """Add a mark, or move the one that is there: neither of its seqs goes back."""
    old = marks.setdefault(key, mark)
    old.delivered_seq = max(old.delivered_seq, mark.delivered_seq)
    old.read_seq = max(old.read_seq, mark.read_seq)

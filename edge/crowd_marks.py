"""Marks in large conversations, which would come by the thousand for every message: they wait their turn, and a newer one takes the
place of an older. Pure.

Each turn lets go a share of what waits, the oldest first: so they leave evenly, each within about `TURNS` turns, however many there
are, and nobody else's marks wait behind a flood of them.
"""

from itertools import islice

from tidings.router.v1 import link_pb2

Mark = link_pb2.ReceiptDelta
MarkKey = tuple[int, str]
"""Session number and conversation."""
TURNS = 20
FEW = 20  # marks of one turn that are no flood


class CrowdMarks:
    """Marks of all sessions in large conversations. Bounded by whoever fills it."""

    def __init__(self) -> None:
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
        count = max(FEW, -(-len(self._waiting) // TURNS))
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

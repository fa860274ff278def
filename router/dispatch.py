"""Up to where conversations have been fanned out: the core of `dispatched_seq`.

Rules: a conversation's mark moves only after every link that was up when its entries were queued has acted on all that was queued
then, or is gone. One generation of marks waits at a time; those after it gather. It must not know stores or time.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class DispatchMarks(Generic[K]):
    """Marks on their way to the store.

    Args:
        capacity: most conversations gathered. When full, further ones are left out: their entries are found and sent once more by
            the search for undispatched ones, which costs work and loses nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._gathering: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._barrier: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._gathering) + len(self._waiting)

    def fanned_out(self, conversation_id: str, seq: int) -> None:
        """An entry has been queued to every link concerned."""
        known = self._gathering.get(conversation_id)
        if known is None:
            if len(self._gathering) < self._capacity:
                self._gathering[conversation_id] = seq
        elif seq > known:
            self._gathering[conversation_id] = seq

    def turn(self, horizons: Mapping[K, int], settled: Mapping[K, int]) -> dict[str, int]:
        """Give the marks that may be noted now, and let the next ones begin to wait.

        Args:
            horizons: per live link, the number its `settled` reaches when the edge has acted on all that is queued now.
            settled: per live link, what the edge has acted on.
        """
        if any(settled.get(link, horizon) < horizon for link, horizon in self._barrier.items()):
            return {}
        done, self._waiting, self._gathering = self._waiting, self._gathering, {}
        self._barrier = dict(horizons) if self._waiting else {}
        return done

    def put_back(self, marks: Mapping[str, int]) -> None:
        """These could not be noted: let them come again."""
        for conversation_id, seq in marks.items():
            self.fanned_out(conversation_id, seq)

"""A chunk of mapping changes, brought to what it does to each tag: who goes, then who comes.

Rules: changes of one tag compose in their order; a chunk's changes by user come after those by tag. Whatever the order was written
in, what comes out is removals first. Pure: users are ordinals already.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyroaring import AbstractBitMap, BitMap


@dataclass(slots=True)
class Delta:
    """What changes for one tag: `removed` go, then `added` come, as ordinals; `clear` lets all go first."""

    removed: BitMap = field(default_factory=BitMap)
    added: BitMap = field(default_factory=BitMap)
    clear: bool = False

    def then(self, removed: BitMap, added: BitMap) -> None:
        """Let another change follow."""
        self.removed |= removed
        self.added -= removed
        self.added |= added


class Deltas:
    """The changes of a chunk, by tag."""

    def __init__(self) -> None:
        self.by_tag: dict[str, Delta] = defaultdict(Delta)
        self._removed: dict[str, list[int]] = defaultdict(list)
        self._added: dict[str, list[int]] = defaultdict(list)
        self._users: set[int] = set()

    def of_tag(self, tag: str, removed: Iterable[int], added: Iterable[int]) -> None:
        """These lose the tag, then those get it."""
        self.by_tag[tag].then(BitMap(removed), BitMap(added))

    def of_user(self, user: int, removed: Iterable[str], added: Iterable[str]) -> None:
        """The user loses these tags, then gets those. Call `settle` after the last one."""
        if user in self._users:
            self.settle()
        self._users.add(user)
        for tag in removed:
            self._removed[tag].append(user)
        for tag in added:
            self._added[tag].append(user)

    def settle(self) -> None:
        """Bring what users changed to the tags. Changes of different users may go together, in whatever order they came."""
        for tag in self._removed.keys() | self._added.keys():
            self.by_tag[tag].then(BitMap(self._removed.get(tag, ())), BitMap(self._added.get(tag, ())))
        self._removed.clear()
        self._added.clear()
        self._users.clear()


def effective(deltas: Mapping[str, Delta], members: Mapping[str, AbstractBitMap]) -> dict[str, Delta]:
    """The deltas that change something.

    Args:
        members: who has each tag now; a tag that is not among these is new, which is a change.
    """
    return {tag: delta for tag, delta in deltas.items() if tag not in members or _changes(delta, members[tag])}


def _changes(delta: Delta, members: AbstractBitMap) -> bool:
    if delta.clear:
        return bool(members != delta.added)
    return not (delta.added.issubset(members) and (members & delta.removed).issubset(delta.added))

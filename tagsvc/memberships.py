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


class Deltas:
    """The changes of a chunk, by tag. What a change costs is by its own size, however many there are of the same tag or user."""

    def __init__(self) -> None:
        self._tags: dict[str, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))  # who goes, then who comes

    def of_tag(self, tag: str, removed: Iterable[int], added: Iterable[int]) -> None:
        """These lose the tag, then those get it."""
        gone, come = self._tags[tag]
        for user in removed:
            gone.add(user)
            come.discard(user)
        come.update(added)

    def of_user(self, user: int, removed: Iterable[str], added: Iterable[str]) -> None:
        """The user loses these tags, then gets those."""
        for tag in removed:
            gone, come = self._tags[tag]
            gone.add(user)
            come.discard(user)
        for tag in added:
            self._tags[tag][1].add(user)

    def by_tag(self) -> dict[str, Delta]:
        """What they come to, tags in the order in which they were first named."""
        return {tag: Delta(BitMap(gone), BitMap(come)) for tag, (gone, come) in self._tags.items()}


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

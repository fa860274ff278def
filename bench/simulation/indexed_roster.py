"""A proposal for the router's roster: the same answers, at a cost that doesn't grow with the number of edges.

The roster that is (`router.roster`) asks every link's bitmap where a user is, and again whether one who left is elsewhere. With a
thousand links that is what a message costs. Here each user's link is kept by ordinal, two bytes for each user there ever was, and
only those who may be at several links at once are looked for at all of them.
"""

from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from pyroaring import BitMap

from router.roster import Roster, Transition

K = TypeVar("K", bound=Hashable)


class IndexedRoster(Roster[K]):
    """See `router.roster.Roster`; at most 65,535 links in its life."""

    def __init__(self) -> None:
        super().__init__()
        self._several = BitMap()  # everyone who may be at more than one link
        self._home = array("H")  # ordinal -> number of the link they came to last
        self._numbers: dict[K, int] = {}
        self._by_number: dict[int, K] = {}

    def snapshot(self, link: K, online: BitMap) -> Transition:
        """See Roster."""
        known = link in self._links
        self._settle(link, online)
        if known:
            return super().snapshot(link, online)
        came = online - self._online
        self._links[link] = online
        self._online |= came
        return Transition(came, BitMap())

    def opened(self, link: K, ordinals: Iterable[int]) -> BitMap:
        """See Roster."""
        here = BitMap(ordinals)
        self._settle(link, here)
        return super().opened(link, here)

    def where(self, ordinals: Iterable[int]) -> Iterator[tuple[K, Sequence[int]]]:
        """See Roster."""
        found: dict[K, list[int]] = {}
        for ordinal in ordinals:
            if ordinal in self._several:
                for link, _ in super().where([ordinal]):
                    found.setdefault(link, []).append(ordinal)
            elif ordinal in self._online:
                found.setdefault(self._by_number[self._home[ordinal]], []).append(ordinal)
        yield from found.items()

    def _settle(self, link: K, online: BitMap) -> None:
        number = self._numbers.setdefault(link, len(self._numbers))
        self._by_number[number] = link
        self._several |= online & self._online
        if online and online.max() >= len(self._home):
            self._home.frombytes(bytes(2 * (online.max() + 1 - len(self._home))))
        for ordinal in online:
            self._home[ordinal] = number

    def _went(self, left: BitMap) -> BitMap:
        """See Roster."""
        went = left - self._several
        went |= super()._went(left & self._several) if left.intersect(self._several) else BitMap()
        self._online -= went
        self._several -= went
        return went

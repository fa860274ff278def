"""Who is online where: per edge link a roaring bitmap of user ordinals.

Rules: a link's users are exactly what that link said, and go with it; there is no expiry. A change gives back whom it brought
online or took offline over all links, so that several devices, and several edges, count once.
It must not know users' names, sessions, or what a link is beyond a key.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from pyroaring import BitMap

K = TypeVar("K", bound=Hashable)


class Transition(NamedTuple):
    """Users whose state over all links changed."""

    came: BitMap
    """Online now, and were not."""
    went: BitMap
    """Online no more."""


class Roster(Generic[K]):
    """The online users of every link."""

    def __init__(self) -> None:
        self._links: dict[K, BitMap] = {}
        self._online = BitMap()  # over all links

    def __contains__(self, ordinal: int) -> bool:
        return ordinal in self._online

    def __len__(self) -> int:
        """How many users are online."""
        return len(self._online)

    @property
    def online(self) -> BitMap:
        """Everyone online. Not to be changed or kept."""
        return self._online

    def snapshot(self, link: K, online: BitMap) -> Transition:
        """A link's whole set; replaces what it said before."""
        before = self._links.get(link, BitMap())
        self._links[link] = online
        transition = Transition(online - self._online, self._went(before - online))
        self._online |= transition.came
        return transition

    def opened(self, link: K, ordinals: Iterable[int]) -> BitMap:
        """Users who came to a link; gives those who were offline before. The link must have sent its snapshot."""
        came = BitMap(ordinals) - self._online
        self._links[link].update(ordinals)
        self._online |= came
        return came

    def closed(self, link: K, ordinals: Iterable[int]) -> BitMap:
        """Users who left a link; gives those now offline."""
        left = self._links[link] & BitMap(ordinals)
        self._links[link] -= left
        return self._went(left)

    def gone(self, link: K) -> BitMap:
        """The link ended; gives those now offline. An unknown link is nothing to forget."""
        return self._went(self._links.pop(link, BitMap()))

    def where(self, ordinals: Iterable[int]) -> Iterator[tuple[K, Sequence[int]]]:
        """The links at which some of these few users are, with those users."""
        for link, online in self._links.items():
            here = [ordinal for ordinal in ordinals if ordinal in online]
            if here:
                yield link, here

    def where_of(self, users: BitMap) -> Iterator[tuple[K, Sequence[int]]]:
        """As `where`, by intersection: for many users."""
        for link, here in self.where_bitmap(users):
            yield link, here.to_array()

    def where_bitmap(self, users: BitMap) -> Iterator[tuple[K, BitMap]]:
        """As `where_of`, for many users whom nobody needs one by one."""
        for link, online in self._links.items():
            here = online & users
            if here:
                yield link, here

    def _went(self, left: BitMap) -> BitMap:
        """Of those who left a link, who is nowhere now."""
        if not left:
            return left
        went = left - BitMap.union(BitMap(), *(online & left for online in self._links.values()))
        self._online -= went
        return went

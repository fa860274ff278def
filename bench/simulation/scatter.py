"""Who is online at which edge, when users are placed by chance: the ordinals of an edge, disjoint from every other edge's.

A user's place in the fleet is sent through a bijection over a power of two (multiply by an odd number, fold the upper half into the
lower, twice), so nothing has to be remembered: any edge's users can be named by themselves.
"""

import numpy as np
from pyroaring import BitMap

KNOWN_PER_ONLINE = 2  # users who exist for each who is online, at least: ordinals are as dense as that
_FIRST, _SECOND = 0x9E3779B1, 0x85EBCA77  # odd, so that multiplying loses nothing


class Scatter:
    """All users of a fleet.

    Args:
        edges: how many.
        users: online, each at one edge; those that don't divide evenly are left out.
    """

    def __init__(self, edges: int, users: int) -> None:
        self.per_edge = users // edges
        self._bits = max(16, (users * KNOWN_PER_ONLINE - 1).bit_length())

    @property
    def highest(self) -> int:
        """No ordinal is above this."""
        return 1 << self._bits

    def online(self, edge: int) -> BitMap:
        """The users at an edge, numbered from 0."""
        places = np.arange(edge * self.per_edge, (edge + 1) * self.per_edge, dtype=np.uint64)
        ordinals = np.sort(self._fold(self._fold(places, _FIRST), _SECOND)) + np.uint64(1)
        return BitMap(ordinals.astype(np.uint32).data)

    def _fold(
        self, numbers: "np.ndarray[tuple[int], np.dtype[np.uint64]]", by: int
    ) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
        mixed = numbers * np.uint64(by) & np.uint64(self.highest - 1)
        return mixed ^ mixed >> np.uint64(self._bits // 2)

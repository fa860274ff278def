"""The recipients of a notification, by blocks of ordinals, as roaring bitmaps. Pure arithmetic.

Whatever comes in, and however often, these hold: sent and failed are among the expansion, delivered among sent, and nobody is both
delivered and failed. What changes the bitmaps says by how much each part has grown, so that totals never need counting.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pyroaring import BitMap

from store.notification_life import KEPT, Part, State, remainder

# Ordinals in a block: 32 KiB as a plain bitmap. Smaller ones make more rows of a large audience, larger ones more to write for few
# recipients (measured with 10,000,000: see tests/store/measure_notifications.py).
BLOCK_BITS = 18
Blocks = Mapping[int, BitMap]  # block -> ordinals in it, none of them empty


class Counts(NamedTuple):
    """How many recipients are in each part that is kept."""

    expansion: int = 0
    sent: int = 0
    delivered: int = 0
    failed: int = 0

    def plus(self, more: "Counts") -> "Counts":
        """The sum, part by part."""
        return Counts(*(one + other for one, other in zip(self, more, strict=True)))


def split(ordinals: BitMap) -> dict[int, BitMap]:
    """A bitmap by blocks, ascending."""
    blocks: dict[int, BitMap] = {}
    left = bool(ordinals)
    block = ordinals.min() >> BLOCK_BITS if left else 0
    while left:
        blocks[block] = ordinals & BitMap(range(block << BLOCK_BITS, (block + 1) << BLOCK_BITS))
        end = (block + 1) << BLOCK_BITS
        left = ordinals.max() >= end
        block = ordinals.next_set_bit(end) >> BLOCK_BITS if left else 0
    return blocks


class RecipientBlock:
    """One block of one notification.

    Args:
        bitmaps: the parts that were read, an empty bitmap where nothing is kept. Only these can be worked with.
    """

    def __init__(self, bitmaps: Mapping[Part, BitMap]) -> None:
        self._bitmaps = dict(bitmaps)
        self._changed: set[Part] = set()

    def send(self, ordinals: BitMap) -> Counts:
        """They are about to be sent it; those it isn't for are left out."""
        fresh = (ordinals & self._bitmaps[Part.EXPANSION]) - self._bitmaps[Part.SENT]
        return Counts(sent=self._add(Part.SENT, fresh))

    def fail(self, ordinals: BitMap) -> Counts:
        """They can't be sent it; those who have it are left out."""
        fresh = (ordinals & self._bitmaps[Part.EXPANSION]) - self._bitmaps[Part.DELIVERED] - self._bitmaps[Part.FAILED]
        return Counts(failed=self._add(Part.FAILED, fresh))

    def deliver(self, ordinals: BitMap) -> Counts:
        """They have it; those who were never sent it are left out, those who had failed did not after all."""
        fresh = (ordinals & self._bitmaps[Part.SENT]) - self._bitmaps[Part.DELIVERED]
        mended = self._bitmaps[Part.FAILED] & fresh
        if mended:
            self._bitmaps[Part.FAILED] -= mended
            self._changed.add(Part.FAILED)
        return Counts(delivered=self._add(Part.DELIVERED, fresh), failed=-len(mended))

    def changes(self) -> dict[Part, BitMap]:
        """The parts that are otherwise than they were read."""
        return {part: self._bitmaps[part] for part in sorted(self._changed)}

    def _add(self, part: Part, fresh: BitMap) -> int:
        if fresh:
            self._bitmaps[part] |= fresh
            self._changed.add(part)
        return len(fresh)


def parts_of(bitmaps: Mapping[Part, BitMap], state: State) -> dict[Part, BitMap]:
    """Every part of a block in a state, from those that are kept."""
    kept = {part: bitmaps.get(part, BitMap()) for part in KEPT}
    rest = kept[Part.EXPANSION] - kept[Part.DELIVERED] - kept[Part.FAILED]
    parts = {part: BitMap() for part in Part} | kept
    parts[remainder(state)] = parts[remainder(state)] | rest
    return parts


def touched(*deltas: Blocks) -> set[int]:
    """The blocks in which any of them has ordinals."""
    return {block for delta in deltas for block in delta}


def encode(ordinals: BitMap) -> bytes:
    """A bitmap as kept: the portable serialisation, runs where they are shorter. The bitmap stays the same set."""
    ordinals.run_optimize()
    encoded: bytes = ordinals.serialize()
    return encoded


def decode(encoded: bytes) -> BitMap:
    """A bitmap from what `encode` gave."""
    return BitMap.deserialize(encoded)


def union(bitmaps: Iterable[BitMap]) -> BitMap:
    """All of them together."""
    return BitMap.union(*bitmaps) if (bitmaps := list(bitmaps)) else BitMap()

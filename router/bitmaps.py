"""Bitmaps of user ordinals as they cross the mesh: roaring, in the portable serialisation; no bytes at all are nobody."""

from collections.abc import Iterable

from pyroaring import BitMap

from mesh import errors

_EMPTY_BYTES = 100  # what a bitmap takes beside its containers
_CONTAINER_BYTES = 30  # what a container takes beside its contents
_MAX_ORDINAL = 2**31 - 1  # as the store counts them


def read(data: bytes) -> BitMap:
    """A bitmap from its bytes.

    Raises:
        TidingsError: INTERNAL when they are none, or hold what is no ordinal: a peer is broken.
    """
    if not data:
        return BitMap()
    try:
        ordinals = BitMap.deserialize(data)
    except (ValueError, IndexError):
        raise errors.internal("bytes that are no roaring bitmap came from a peer") from None
    if ordinals and (ordinals.min() < 1 or ordinals.max() > _MAX_ORDINAL):
        raise errors.internal("a bitmap with what is no user ordinal came from a peer")
    return ordinals


def write(ordinals: BitMap) -> bytes:
    """A bitmap's bytes, as few as can be; none for nobody."""
    if not ordinals:
        return b""
    ordinals.run_optimize()
    return ordinals.serialize()


def size(ordinals: Iterable[BitMap]) -> int:
    """About how many bytes these hold in memory: a microsecond each, however large."""
    return sum(_EMPTY_BYTES + _size(one) for one in ordinals)


def _size(ordinals: BitMap) -> int:
    found = ordinals.get_statistics()
    contents = found["n_bytes_array_containers"] + found["n_bytes_run_containers"] + found["n_bytes_bitset_containers"]
    return contents + _CONTAINER_BYTES * found["n_containers"]

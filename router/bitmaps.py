"""Bitmaps of user ordinals as they cross the mesh: roaring, in the portable serialisation; no bytes at all are nobody."""

from pyroaring import BitMap

from mesh import errors

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

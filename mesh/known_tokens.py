"""Tokens that were found good, remembered by their digest, so that who comes back with one is not checked for it again. Pure.

Examining a token costs as much as all else that a balancer does for who asks to connect, and a client uses its token for hours.
Only what can't change is remembered: whom a token names, and until when. It must not know how tokens are checked; the tokens
themselves are not kept.
"""

import hashlib
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class KnownTokens(Generic[T]):
    """What was learnt from tokens.

    Args:
        capacity: most tokens remembered; the one unused for longest goes first.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._known: OrderedDict[bytes, tuple[T, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, token: str, now: float) -> T | None:
        """What is known of a token at that time."""
        digest = _digest(token)
        known = self._known.get(digest)
        if known is None:
            return None
        if known[1] <= now:
            del self._known[digest]
            return None
        self._known.move_to_end(digest)
        return known[0]

    def learn(self, token: str, what: T, until: float) -> None:
        """Remember what a token says, until a time of the same clock."""
        self._known[_digest(token)] = (what, until)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()

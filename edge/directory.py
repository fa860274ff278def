"""Which sessions this edge has, by number, device and user. Pure.

A user is online here while at least one session with their ordinal is; the directory says when that begins and ends.
"""

from array import array
from itertools import islice

from pyroaring import BitMap

from edge.session import Session

KNOWN_USERS = 50_000  # whose ordinals are remembered, who is here and who was: 100 bytes each
_NONE: tuple[Session, ...] = ()


class Directory:
    """Sessions that have said Hello."""

    def __init__(self) -> None:
        self._by_number: dict[int, Session] = {}
        self._by_device: dict[tuple[str, str], Session] = {}
        self._by_ordinal: dict[int, tuple[Session, ...]] = {}  # tuples: a reader is not disturbed by one that ends
        self._online = BitMap()  # its keys
        self._ordinals: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def ordinal(self, user_id: str) -> int:
        """The dense number of a user who was here lately; 0 for others. It never changes: who comes back need not ask for it."""
        return self._ordinals.get(user_id, 0)

    def enter(self, session: Session) -> Session | None:
        """Add a session; gives the older one of the same device, which is to end."""
        device = (session.user_id, session.device_id)
        older = self._by_device.get(device)
        self._by_device[device] = session
        self._by_number[session.number] = session
        return older

    def online(self, session: Session) -> bool:
        """The session's ordinal is known; True when it is the user's first session here."""
        self._learn(session.user_id, session.user_ordinal)
        others = self._by_ordinal.get(session.user_ordinal, _NONE)
        self._by_ordinal[session.user_ordinal] = (*others, session)
        if not others:
            self._online.add(session.user_ordinal)
        return not others

    def leave(self, session: Session) -> bool:
        """Remove a session; True when it was its user's last one here."""
        if self._by_number.pop(session.number, None) is None:
            return False
        device = (session.user_id, session.device_id)
        if self._by_device.get(device) is session:
            del self._by_device[device]
        return self._offline(session)

    def of_number(self, number: int) -> Session | None:
        """The session with that number."""
        return self._by_number.get(number)

    def of_user(self, ordinal: int) -> tuple[Session, ...]:
        """The user's sessions here."""
        return self._by_ordinal.get(ordinal, _NONE)

    def numbers(self) -> list[int]:
        """All session numbers, the oldest first."""
        return list(self._by_number)

    def snapshot(self) -> bytes:
        """The ordinals online here as a roaring bitmap, in the portable serialisation."""
        return self._online.serialize()

    def here(self, users: BitMap) -> "array[int]":
        """Those of these users who are online here, ascending."""
        return (users & self._online).to_array()

    def _learn(self, user_id: str, ordinal: int) -> None:
        """Past the bound the older half is forgotten at once: one by one, a dictionary would look through all that went before."""
        self._ordinals.setdefault(user_id, ordinal)
        if len(self._ordinals) > KNOWN_USERS:
            for known in list(islice(self._ordinals, KNOWN_USERS // 2)):
                del self._ordinals[known]

    def _offline(self, session: Session) -> bool:
        sessions = self._by_ordinal.get(session.user_ordinal, _NONE)
        others = tuple(other for other in sessions if other is not session)
        if others:
            self._by_ordinal[session.user_ordinal] = others
            return False
        self._online.discard(session.user_ordinal)
        return self._by_ordinal.pop(session.user_ordinal, None) is not None

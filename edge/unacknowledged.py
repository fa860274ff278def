"""Which log entries a device was sent and has not acknowledged. Pure.

It holds a conversation only while something is outstanding.
"""


class Unacknowledged:
    """Per conversation: the highest seq sent, and since when the client owes an answer."""

    __slots__ = ("_owed",)

    def __init__(self) -> None:
        self._owed: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._owed)

    def sent(self, conversation_id: str, seq: int, now: float) -> None:
        """An entry was written."""
        owed = self._owed.get(conversation_id)
        if owed is None:
            self._owed[conversation_id] = (seq, now)
        elif seq > owed[0]:
            self._owed[conversation_id] = (seq, owed[1])

    def acknowledged(self, conversation_id: str, seq: int, now: float) -> None:
        """The client has everything up to `seq`; an answer, even a partial one, starts the clock again."""
        owed = self._owed.get(conversation_id)
        if owed is None:
            return
        if seq >= owed[0]:
            del self._owed[conversation_id]
        else:
            self._owed[conversation_id] = (owed[0], now)

    def overdue(self, before: float) -> bool:
        """Whether some conversation has been owed since before the given time."""
        return any(since < before for _, since in self._owed.values())

    def restart(self, now: float) -> None:
        """Everything owed is about to be sent again: start its clock again."""
        self._owed = {conversation_id: (seq, now) for conversation_id, (seq, _) in self._owed.items()}

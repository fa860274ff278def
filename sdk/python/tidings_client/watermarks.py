"""How far each member of a conversation is known to be. Receipts may overtake each other on their way, when one router takes over
from another: what was said once isn't taken back. Bounded: what was touched longest ago is forgotten first."""

from collections import OrderedDict

MAX_KNOWN = 10_000  # members of conversations, about 3 MB


class Watermarks:
    """The greatest marks heard of."""

    def __init__(self, most: int = MAX_KNOWN) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def on_mark(self, conversation_id: str, user_id: str, delivered_seq: int, read_seq: int) -> tuple[int, int] | None:
        """A receipt came; gives the marks (delivered, read) as they are now, None when they had been at least there."""
        key = conversation_id, user_id
        before = self._known.get(key, (0, 0))
        now = max(before[0], delivered_seq), max(before[1], read_seq)
        if now == before:
            return None
        self._known[key] = now
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return now

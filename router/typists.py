"""Who is typing where: the core.

Rules: a state is told once, not at each repetition. Typing lapses when it isn't repeated in time, and ends with a message.
It must not know links, frames or memberships; time is passed in, in seconds.
"""

from collections import OrderedDict

TYPING_SECONDS = 6.0  # clients repeat every 3 seconds: one repetition may be lost
Typist = tuple[str, int]
"""A conversation id and a user ordinal."""


class Typists:
    """The users who are typing now.

    Args:
        capacity: most typists at once. When full, further ones are not noticed: typing is a courtesy.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._until: OrderedDict[Typist, float] = OrderedDict()  # soonest first, for all last equally long

    def __len__(self) -> int:
        return len(self._until)

    def typing(self, typist: Typist, now: float) -> bool:
        """They type; True when that is news."""
        news = typist not in self._until
        if news and len(self._until) >= self._capacity:
            return False
        self._until[typist] = now + TYPING_SECONDS
        self._until.move_to_end(typist)
        return news

    def stopped(self, typist: Typist) -> bool:
        """They stopped, or sent what they typed; True when that is news."""
        return self._until.pop(typist, None) is not None

    def lapsed(self, now: float) -> list[Typist]:
        """Those who went silent; each is given once."""
        silent = []
        while self._until and next(iter(self._until.values())) <= now:
            silent.append(self._until.popitem(last=False)[0])
        return silent

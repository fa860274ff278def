"""Users who came online, gathered until every notification under way has heard of them.

Telling each run of each coming would cost runs times comings. Comings are gathered into numbered bitmaps instead; a run hears of
all it has not heard of before it takes a step, and at the latest when a round over all runs is made.
"""

from pyroaring import BitMap


class Newcomers:
    """The comings not everyone has heard of."""

    def __init__(self) -> None:
        self._open = BitMap()
        self._closed: dict[int, BitMap] = {}
        self._number = 0
        self._united: tuple[int, int, BitMap] = (0, 0, BitMap())  # the last answer of `since`: nearly all ask for the same

    def __bool__(self) -> bool:
        return bool(self._open) or bool(self._closed)

    def add(self, ordinals: BitMap) -> None:
        """These came online."""
        self._open |= ordinals

    def close(self) -> int:
        """The number up to which whoever asks now has heard; later comings get higher ones."""
        if self._open:
            self._number += 1
            self._closed[self._number] = self._open
            self._open = BitMap()
        return self._number

    def since(self, number: int) -> BitMap:
        """Who came after a number that `close` gave, up to the last one it gave. Not to be changed."""
        if self._united[:2] != (number, self._number):
            came = BitMap.union(BitMap(), *(came for at, came in self._closed.items() if at > number))
            self._united = (number, self._number, came)
        return self._united[2]

    def forget(self, number: int) -> None:
        """Everyone has heard up to this number."""
        for at in [at for at in self._closed if at <= number]:
            del self._closed[at]

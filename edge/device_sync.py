"""One device's way through what it missed. Pure; it exists only while the device catches up.

Pages are asked for one at a time, and only `window` of them ahead of the device's acknowledgements. Live entries that arrive
meanwhile are held back. When they pass their bound they are dropped and another round is made, for the log has them.
"""

from collections import deque
from collections.abc import Iterable

from tidings.common.v1.conversation_pb2 import Position
from tidings.router.v1 import link_pb2


class DeviceSync:
    """Rounds of pages, and the live entries held back during them.

    Args:
        device_id: the device.
        positions: conversation -> seq that replace the stored cursors in every round of this sync; from Hello.
        history_limit: from Hello.
        window: most pages with unacknowledged entries before the next is asked for.
        max_held, max_held_bytes: most live entries held back; past it they are dropped and another round is made.
    """

    def __init__(
        self, device_id: str, positions: dict[str, int], history_limit: int, window: int, max_held: int, max_held_bytes: int
    ) -> None:
        self._device_id = device_id
        self._positions = positions
        self._history_limit = history_limit
        self._window = window
        self._max_held = max_held
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0
        self._pages: deque[dict[str, int]] = deque()
        self._reached: dict[str, int] = {}
        self._held: deque[tuple[str, int, bytes]] = deque()
        self._token = ""
        self._asked = False
        self._answered = False
        self._again = False
        self.complete = False

    @property
    def held(self) -> int:
        """Live entries held back."""
        return len(self._held)

    def again(self) -> None:
        """Make another round: something may have been missed. What was held is in the log, so it goes."""
        self._held.clear()
        self._held_bytes = 0
        if self._asked:
            self._again = True
        else:
            self._token = ""

    def restart(self) -> None:
        """The device owes acknowledgements for too long: begin again at its cursor."""
        self.again()
        self._pages.clear()

    def on_failed(self) -> None:
        """The page could not be had; the next request begins the round again."""
        self._asked = False
        self._token = ""

    def next_request(self) -> link_pb2.SyncDevice | None:
        """The next page to ask for, or None while one is under way, the window is full, or nothing is left."""
        if self._asked or self.complete or len(self._pages) >= self._window:
            return None
        self._asked = True
        positions = [Position(conversation_id=one, seq=seq) for one, seq in self._positions.items()]
        return link_pb2.SyncDevice(
            device_id=self._device_id, positions=positions, history_limit=self._history_limit, page_token=self._token
        )

    def on_page(self, page: link_pb2.SyncPage) -> dict[str, int]:
        """A page arrived and its frames were written. Gives, at the first, the positions that stand for acknowledgements: those of
        the conversations that aren't in it, for where something was sent the device will say itself how far it is."""
        self._asked = False
        self._token = page.next_page_token
        awaited = {position.conversation_id: position.seq for position in page.positions}
        if awaited:
            self._pages.append(awaited)
            self._reached.update(awaited)
        if not self._token:
            self.complete, self._again = not self._again, False
        first, self._answered = not self._answered, True
        return {name: seq for name, seq in self._positions.items() if name not in awaited} if first else {}

    def on_acknowledged(self, conversation_id: str, seq: int) -> None:
        """The device has everything up to `seq`."""
        if conversation_id in self._positions:
            self._positions[conversation_id] = max(self._positions[conversation_id], seq)
        for page in self._pages:
            if page.get(conversation_id, seq + 1) <= seq:
                del page[conversation_id]
        while self._pages and not self._pages[0]:
            self._pages.popleft()

    def hold(self, conversation_id: str, seq: int, frame: bytes) -> None:
        """A live entry arrived: keep it until the pages are through."""
        if self._again:
            return
        self._held_bytes += len(frame)
        if len(self._held) >= self._max_held or self._held_bytes > self._max_held_bytes:
            self.again()
            return
        self._held.append((conversation_id, seq, frame))

    def release(self) -> Iterable[tuple[str, int, bytes]]:
        """The live entries held back, in order, without those that the pages brought already."""
        return [held for held in self._held if held[1] > self._reached.get(held[0], 0)]

"""What this device tells the server it has: acknowledgements, of notifications too, and read marks, gathered so that many cost one
frame.

A lone one goes at once; then at most one frame every 20 ms, or whenever 50 messages have gathered. Where the server grants more
time, as in large groups, they wait for some moment of it. Pure: time and randomness are passed in.
"""

import random
from collections.abc import Callable, Iterable

from tidings.client.v1.frames_pb2 import Acknowledge, AcknowledgeNotification, ClientFrame, MarkRead
from tidings.common.v1.conversation_pb2 import LogEntry, Position

INTERVAL = 0.020  # seconds; a receipt this late is not felt, and a busy client sends 50 frames a second instead of thousands
MANY = 50  # messages that don't wait for the interval
MAX_POSITIONS = 1_000  # of one frame, by the contract
MAX_NOTIFICATIONS = 500  # of one frame: half of what the contract allows, but 15 KB already


class Acknowledgements:
    """Gathers positions. They are cumulative: the newest of a conversation stands for all before.

    Args:
        uniform: gives a random number between 0 and its argument.
    """

    def __init__(self, uniform: Callable[[float], float] = lambda limit: random.uniform(0, limit)) -> None:  # noqa: S311  (no secret)
        self._positions: dict[str, int] = {}
        self._granted: dict[str, float] = {}  # when those must go that may wait
        self._soon = False  # whether some may not
        self._uniform = uniform
        self._messages = 0
        self._sent_at = float("-inf")
        self.held = False
        """While True nothing is acknowledged: the application is behind."""

    def add(self, conversation_id: str, seq: int) -> None:
        """Everything up to `seq` is safely kept."""
        if seq > self._positions.get(conversation_id, 0):
            self._positions[conversation_id] = seq
            self._soon = self._soon or conversation_id not in self._granted

    def grant(self, conversation_id: str, seconds: float, now: float) -> None:
        """What comes in this conversation now may be acknowledged within so many seconds; call it before `add`."""
        if conversation_id not in self._positions and conversation_id not in self._granted:
            self._granted[conversation_id] = now + self._uniform(seconds)

    def count(self, entries: Iterable[LogEntry]) -> None:
        """These messages are among them."""
        self._messages += sum(entry.conversation_id not in self._granted for entry in entries)

    def reset(self) -> None:
        """A new connection: the server sends again what it was not told of, and is told again what it may not have heard."""
        self._sent_at = float("-inf")

    def take(self, now: float) -> list[ClientFrame]:
        """Frames to send now; maybe none."""
        if now < (self.deadline() or now):
            return []
        return self.take_all(now) if self._positions and not self.held else []

    def take_all(self, now: float) -> list[ClientFrame]:
        """Everything, without waiting."""
        items = [Position(conversation_id=name, seq=seq) for name, seq in self._positions.items()]
        self._positions, self._granted, self._soon = {}, {}, False
        self._messages, self._sent_at = 0, now
        pages = [items[start : start + MAX_POSITIONS] for start in range(0, len(items), MAX_POSITIONS)]
        return [ClientFrame(acknowledge=Acknowledge(positions=page)) for page in pages]

    def deadline(self) -> float | None:
        """When to call `take`; None when there is nothing to tell."""
        if not self._positions or self.held:
            return None
        if not self._soon:
            return max(self._sent_at, min(self._granted.values()))
        return self._sent_at if self._messages >= MANY else self._sent_at + INTERVAL


class NotificationAcknowledgements:
    """Gathers notifications."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._sent_at = float("-inf")

    def add(self, notification_id: str) -> None:
        """It is safely kept."""
        self._names[notification_id] = None

    def reset(self) -> None:
        """A new connection: the server sends again what it was not told of."""
        self._names.clear()
        self._sent_at = float("-inf")

    def take(self, now: float) -> list[ClientFrame]:
        """Frames to send now; maybe none."""
        return self.take_all(now) if self._names and now >= self._sent_at + INTERVAL else []

    def take_all(self, now: float) -> list[ClientFrame]:
        """Everything, without waiting."""
        names, self._names, self._sent_at = list(self._names), {}, now
        pages = [names[start : start + MAX_NOTIFICATIONS] for start in range(0, len(names), MAX_NOTIFICATIONS)]
        return [ClientFrame(acknowledge_notification=AcknowledgeNotification(notification_ids=page)) for page in pages]

    def deadline(self) -> float | None:
        """When to call `take`; None when there is nothing to tell."""
        return self._sent_at + INTERVAL if self._names else None


class ReadMarks:
    """Read marks, which the server doesn't answer: each goes again on a new connection until a heartbeat that was sent after it
    has been answered, which shows that it arrived.

    Args:
        unconfirmed: marks an earlier run left, by conversation.
    """

    def __init__(self, unconfirmed: Iterable[tuple[str, int]] = ()) -> None:
        self._marks = dict(unconfirmed)
        self._unsent = dict(self._marks)
        self._sent: dict[str, int] = {}

    def add(self, conversation_id: str, seq: int) -> bool:
        """The user has read up to `seq`; False when that was known already."""
        if seq <= self._marks.get(conversation_id, 0):
            return False
        self._marks[conversation_id] = self._unsent[conversation_id] = seq
        return True

    def on_disconnected(self) -> None:
        """What isn't confirmed goes again."""
        self._unsent, self._sent = dict(self._marks), {}

    def take(self, limit: int) -> list[ClientFrame]:
        """Frames to send now."""
        going = dict(list(self._unsent.items())[:limit])
        for conversation_id in going:
            del self._unsent[conversation_id]
        self._sent.update(going)
        return [ClientFrame(mark_read=MarkRead(conversation_id=name, seq=seq)) for name, seq in going.items()]

    def on_heartbeat_sent(self) -> dict[str, int]:
        """Marks that the heartbeat's answer will confirm."""
        return dict(self._sent)

    def on_confirmed(self, confirmed: dict[str, int]) -> list[tuple[str, int]]:
        """The heartbeat was answered; gives the marks that needn't be kept any more."""
        done = [(name, seq) for name, seq in confirmed.items() if self._marks.get(name) == seq]
        for name, _ in done:
            del self._marks[name]
            self._sent.pop(name, None)
        return done

    @property
    def waiting(self) -> bool:
        """Whether something is to be sent."""
        return bool(self._unsent)

"""When to speak: within the server's rate, and often enough to be known alive. Pure: time is passed in."""

import math

from tidings.client.v1.frames_pb2 import ClientFrame, StartTyping, StopTyping

SAFE_SHARE = 0.9  # of the server's rate: our clock and its buffers differ, and being refused costs more than waiting
SILENCE_INTERVALS = 2.5  # heartbeat intervals without a word from the server before the connection counts as dead
TYPING_INTERVAL = 3.0  # seconds between start_typing frames, by the contract


class TokenBucket:
    """At most `burst` frames at once and `rate` frames a second over time; rate 0 means no bound."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate * SAFE_SHARE
        self._burst = max(1.0, burst * SAFE_SHARE)
        self._tokens = self._burst
        self._at = now

    def room(self, now: float) -> int:
        """How many frames may go now."""
        if not self._rate:
            return 1_000
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return math.floor(self._tokens + 1e-6)

    def spend(self, frames: int) -> None:
        """Frames went. The room may be overdrawn by frames that can't wait."""
        if self._rate:
            self._tokens -= frames

    def deadline(self) -> float:
        """When there is room for one frame."""
        if not self._rate or self._tokens >= 1:
            return self._at
        return self._at + (1 - self._tokens) / self._rate


class Heartbeats:
    """Speaks when silent, and listens for the other side.

    Args:
        interval: seconds; the server closes a client that says nothing for somewhat longer.
    """

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._sent_at = self._heard_at = now
        self._asked = False

    def on_sent(self, now: float) -> None:
        """Some frame went out."""
        self._sent_at = now

    def on_heard(self, now: float) -> None:
        """Some frame came in."""
        self._heard_at = now
        self._asked = False

    def due(self, now: float) -> bool:
        """Whether to send a heartbeat now: we were silent for an interval, or the server was and hasn't been asked yet."""
        silent = now >= self._sent_at + self._interval
        unheard = now >= self._heard_at + self._interval and not self._asked
        if silent or unheard:
            self._asked = True
        return silent or unheard

    def lost(self, now: float) -> bool:
        """Whether the server must be taken for dead."""
        return now >= self._heard_at + self._interval * SILENCE_INTERVALS

    def deadline(self) -> float:
        """When to ask `due` and `lost` again."""
        times = [self._sent_at + self._interval, self._heard_at + self._interval * SILENCE_INTERVALS]
        if not self._asked:
            times.append(self._heard_at + self._interval)
        return min(times)


class TypingThrottle:
    """Turns keystrokes into few frames."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}  # where we type -> when that was said last

    def frame(self, conversation_id: str, now: float, *, typing: bool) -> ClientFrame | None:
        """What to say about it now; None when it needn't be said."""
        told = self._told.get(conversation_id)
        if not typing:
            self._told.pop(conversation_id, None)
            return None if told is None else ClientFrame(stop_typing=StopTyping(conversation_id=conversation_id))
        if told is not None and now < told + TYPING_INTERVAL:
            return None
        self._told[conversation_id] = now
        return ClientFrame(start_typing=StartTyping(conversation_id=conversation_id))

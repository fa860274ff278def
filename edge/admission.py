"""Whether the edge takes what a session says: rate, sends in flight, order after a refusal. Pure.

A send is refused only here, before it is accepted; once accepted it stays until a router has answered it.
"""

from collections.abc import Callable

from edge.rate import SendGate, TokenBucket
from edge.rules import FLOOD_FACTOR, RETRY_SECONDS, Rules
from mesh import errors
from tidings.client.v1.frames_pb2 import ClientFrame

# In tokens; every frame not in _COSTS costs one.
_ACKNOWLEDGE_COST = 0.2  # who is sent much must be able to say so
_POSITION_COST = 0.02  # for each position of a frame: each is a row for the store
_NOTIFICATION_COST = 0.1  # for each notification acknowledged: one nobody sent costs a bitmap, and a look in the store
_USER_COST = 0.5  # for each user a frame names to watch: one never heard of comes into being

_COSTS: dict[str, Callable[[ClientFrame, Rules], float]] = {
    "acknowledge": lambda frame, _: _ACKNOWLEDGE_COST + _POSITION_COST * len(frame.acknowledge.positions),
    "acknowledge_notification": lambda frame, _: (
        _ACKNOWLEDGE_COST + _NOTIFICATION_COST * len(frame.acknowledge_notification.notification_ids)
    ),
    # More users than may be watched are refused, whatever the rate.
    "watch_presence": lambda frame, rules: 1.0 + _USER_COST * min(len(frame.watch_presence.user_ids), rules.max_watched),
}


class FloodingError(Exception):
    """The client went on far above its rate after it was told."""


class Admission:
    """One session's right to speak."""

    __slots__ = ("_bucket", "_flood", "_gate", "_limited", "_rules", "in_flight")

    def __init__(self, rules: Rules, now: float) -> None:
        self._rules = rules
        self._bucket = TokenBucket(rules.frames_burst, now)
        self._flood: TokenBucket | None = None
        self._gate: SendGate | None = None
        self._limited = False
        self.in_flight = 0

    def on_frame(self, frame: ClientFrame, arm: str, now: float) -> None:
        """A frame with this arm came in; what follows is about this one.

        Raises:
            FloodingError: close the session.
        """
        rules, cost_of = self._rules, _COSTS.get(arm)
        cost = 1.0 if cost_of is None else min(cost_of(frame, rules), rules.frames_burst)
        self._limited = not self._bucket.take(rules.frames_per_second, rules.frames_burst, now, cost)
        if self._limited:
            self._count_excess(now, max(1.0, cost))

    def check_rate(self) -> None:
        """Refuse the frame when it came too fast.

        Raises:
            TidingsError: RATE_LIMITED.
        """
        if self._limited:
            raise errors.rate_limited(self._pause)

    def check_send(self, conversation_id: str, client_msg_id: str, has_room: bool, now: float) -> None:
        """Accept a send, or refuse it and whatever follows it in its conversation.

        Raises:
            TidingsError: RATE_LIMITED or OVERLOADED; nothing was accepted.
        """
        if self._gate is not None and (wait := self._gate.blocks(conversation_id, client_msg_id, now)):
            raise errors.rate_limited(wait)
        refusal = self._refusal(has_room)
        if refusal is not None:
            self._gate = self._gate or SendGate()
            self._gate.refused(conversation_id, client_msg_id, now)
            raise refusal
        if self._gate is not None:
            self._gate.accepted(conversation_id)
        self.in_flight += 1

    def on_answered(self) -> None:
        """A send was answered."""
        self.in_flight -= 1

    @property
    def _pause(self) -> float:
        """Seconds after which a quarter of the burst is there again."""
        return self._rules.frames_burst / 4 / self._rules.frames_per_second

    def _refusal(self, has_room: bool) -> errors.TidingsError | None:
        if self._limited:
            return errors.rate_limited(self._pause)
        if self.in_flight >= self._rules.max_sends_in_flight:
            return errors.overloaded(RETRY_SECONDS, f"this session has {self.in_flight} sends not yet answered, and")
        return None if has_room else errors.overloaded(RETRY_SECONDS)

    def _count_excess(self, now: float, cost: float) -> None:
        burst = self._rules.frames_burst * FLOOD_FACTOR
        if self._flood is None:
            self._flood = TokenBucket(burst, now)
        if not self._flood.take(self._rules.frames_per_second, burst, now, cost):
            raise FloodingError

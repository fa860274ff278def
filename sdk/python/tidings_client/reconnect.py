"""Whether to connect again, when, and how: a table of what ended the last attempt. Pure: randomness and time are passed in.

Full jitter: the n-th wait is uniform between 0 and min(longest, first * 2^n), so that many clients don't come back at once
(M. Brooker, "Exponential Backoff and Jitter", 2015). What the server asks for (Retry-After, GoAway's appointment) goes before.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tidings.common.v1 import error_pb2
from tidings_client.errors import reason
from tidings_client.model import ConnectionState

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds, until the balancer says otherwise
MAX_REFUSALS = 3  # in a row, of credentials or of our behaviour: more would only be a nuisance
FALLBACK_AFTER = 2  # WebSockets in a row that would not open though the balancer answered


@dataclass(frozen=True, slots=True)
class Ended:
    """How a connection, or the attempt at one, ended.

    Attributes:
        stage: "connect" (the balancer), "open" (the WebSocket or first poll) or "session".
        code: HTTP status while connecting or opening, close code of a session; 0 when the network failed.
        reason: for people.
        retry_after: seconds the server asked to wait; None when it said nothing.
        cut: the edge's WebSocket URL when it had spoken and then, as we heard, the connection was ended without one of our codes:
            it is likely to be there still. Empty otherwise: who fell silent must not cost a second wait.
    """

    stage: str
    code: int
    reason: str
    retry_after: float | None = None
    cut: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """Connect again after `wait` seconds, with a new token if `renew`; at the edge at `straight_to` first, if that is given."""

    wait: float
    renew: bool = False
    straight_to: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Don't connect again."""

    state: ConnectionState
    reason: str


Decision = Again | Stop

_CREDENTIALS = frozenset({401, error_pb2.ERROR_CODE_UNAUTHENTICATED})
_PATIENCE = frozenset({429, 503, error_pb2.ERROR_CODE_TOO_MANY_CONNECTIONS})
_BEHAVIOUR = range(4400, 4500)


class Reconnect:
    """The policy.

    Args:
        uniform: gives a random number between 0 and its argument.
        can_renew: whether a new token can be had; without one, a refused token is final.
    """

    def __init__(self, uniform: Callable[[float], float], *, can_renew: bool) -> None:
        self._uniform = uniform
        self._can_renew = can_renew
        self._first, self._longest = FIRST_WAIT, LONGEST_WAIT
        self._failures = 0
        self._refusals = 0
        self._unopened = 0

    @property
    def prefers_poll(self) -> bool:
        """Whether WebSockets seem to be blocked here."""
        return self._unopened >= FALLBACK_AFTER

    def on_hints(self, first: float, longest: float) -> None:
        """What the balancer says about waiting, in seconds; 0 for nothing."""
        self._first = first or self._first
        self._longest = max(longest or self._longest, self._first)

    def on_opened(self, *, websocket: bool) -> None:
        """A session opened."""
        if websocket:
            self._unopened = 0

    def on_caught_up(self) -> None:
        """The connection proved good."""
        self._failures = self._refusals = 0

    def decide(self, ended: Ended) -> Decision:
        """What to do about an end."""
        if ended.code == error_pb2.ERROR_CODE_SESSION_REPLACED:
            return Stop(ConnectionState.REPLACED, "the same device connected elsewhere")
        if ended.stage == "open":
            if ended.code in _CREDENTIALS:  # a balancer took the token: the ticket was late, or its clock and the edge's differ
                return self._wait(ended.retry_after)
            self._unopened += ended.retry_after is None  # who says when to come again is an edge, and no wall before it
        if ended.code in _CREDENTIALS:
            return self._refused(ended, renew=True)
        if ended.code in _PATIENCE or ended.retry_after is not None:
            return self._wait(ended.retry_after)
        if ended.code in _BEHAVIOUR or (ended.stage == "connect" and 400 <= ended.code < 500):
            return self._refused(ended, renew=False)
        straight_to = "" if self._failures else ended.cut  # one that cuts us off before we have caught up isn't to keep us
        return Again(self._wait(None).wait, straight_to=straight_to)

    def _refused(self, ended: Ended, *, renew: bool) -> Decision:
        self._refusals += 1
        # A session ends when its token runs out, so its refusal is worth one more try even with the same token.
        hopeless = renew and not self._can_renew and ended.stage == "connect"
        if hopeless or self._refusals > MAX_REFUSALS or ended.code == error_pb2.ERROR_CODE_PROTOCOL_ERROR:
            return Stop(ConnectionState.REFUSED, _explain(ended))
        wait = self._wait(ended.retry_after).wait
        return Again(wait, renew)

    def _wait(self, asked: float | None) -> Again:
        longest = min(self._longest, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        if asked is not None:
            return Again(asked + self._uniform(min(self._first, asked)))
        return Again(self._uniform(longest))


def _explain(ended: Ended) -> str:
    name = reason(ended.code) if ended.code >= 4000 else f"HTTP {ended.code}"
    return f"{name}: {ended.reason}" if ended.reason else name

"""How fast one session may talk, and what keeps its order when it is refused. Pure: the time is passed in, in seconds."""

MAX_AWAITED = 1_000  # conversations in which a refused send is awaited; past it the oldest is given up
AWAIT_SECONDS = 5.0  # how long later sends are refused for the sake of an earlier one


class TokenBucket:
    """`rate` tokens a second, at most `burst` at once."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, burst: float, now: float) -> None:
        self._tokens = burst
        self._at = now

    def take(self, rate: float, burst: float, now: float, cost: float = 1.0) -> bool:
        """Take `cost` tokens; False when there are not so many. Rate and burst are the caller's, to keep idle sessions small."""
        tokens = min(burst, self._tokens + (now - self._at) * rate)
        self._at = now
        if tokens < cost:
            self._tokens = tokens
            return False
        self._tokens = tokens - cost
        return True


class SendGate:
    """Keeps one sender's messages of a conversation in order across refusals.

    After a send was refused for want of room, later sends of that conversation are refused too until the refused
    `client_msg_id` comes again, or its sender has let 5 seconds pass.
    """

    __slots__ = ("_awaited",)

    def __init__(self) -> None:
        self._awaited: dict[str, tuple[str, float]] = {}

    def blocks(self, conversation_id: str, client_msg_id: str, now: float) -> float:
        """Seconds for which this send must wait for an earlier one; 0 when it may pass."""
        awaited = self._awaited.get(conversation_id)
        if awaited is None or awaited[0] == client_msg_id:
            return 0.0
        return max(0.0, awaited[1] - now)

    def refused(self, conversation_id: str, client_msg_id: str, now: float) -> None:
        """This send was refused for want of room: it is awaited now."""
        self._awaited.pop(conversation_id, None)
        self._awaited[conversation_id] = (client_msg_id, now + AWAIT_SECONDS)
        if len(self._awaited) > MAX_AWAITED:
            del self._awaited[next(iter(self._awaited))]

    def accepted(self, conversation_id: str) -> None:
        """A send passed: nothing is awaited in this conversation any more."""
        self._awaited.pop(conversation_id, None)

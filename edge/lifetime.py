"""How long a session may last: its client must be heard from, and its token must hold. Pure; seconds of one monotonic clock."""

from edge.rules import TOKEN_WARNING_SECONDS, Rules
from tidings.common.v1 import error_pb2


class Lifetime:
    """The deadlines of an open session.

    Attributes:
        heard: when the client last showed itself.
        expires: when the token runs out.
    """

    __slots__ = ("_limit", "_warned", "expires", "heard")

    def __init__(self, rules: Rules, expires: float, now: float) -> None:
        self._limit = rules.heartbeat_limit
        self._warned = False
        self.expires = expires
        self.heard = now

    @property
    def deadline(self) -> float:
        """When to look again."""
        token = self.expires if self._warned else self.expires - TOKEN_WARNING_SECONDS
        return min(self.heard + self._limit, token)

    def extend(self, expires: float) -> None:
        """A fresh token holds until then."""
        self.expires = expires
        self._warned = False

    def over(self, now: float) -> int | None:
        """The close code when the session has to end now."""
        if now - self.heard >= self._limit:
            return error_pb2.ERROR_CODE_HEARTBEAT_TIMEOUT
        return error_pb2.ERROR_CODE_UNAUTHENTICATED if now >= self.expires else None

    def warn(self, now: float) -> bool:
        """Whether to tell the client now that its token runs out; true once for each token."""
        if self._warned or now < self.expires - TOKEN_WARNING_SECONDS:
            return False
        self._warned = True
        return True

"""What a client says between Welcome and the moment its ordinal is known. Pure; bounded by what it is given."""

from tidings.router.v1 import link_pb2

from edge.ports import Expects
from edge.requests import MAX_POSITIONS
from edge.rules import RETRY_SECONDS
from mesh import errors

Request = tuple[str, link_pb2.ClientEnvelope, Expects]


class Early:
    """Requests in order, and the highest marks.

    Args:
        max_requests: past it requests are refused OVERLOADED.
    """

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self.requests: list[Request] = []
        self.marks: dict[str, tuple[int, int]] = {}

    def ask(self, key: str, envelope: link_pb2.ClientEnvelope, expects: Expects) -> None:
        """Keep a request.

        Raises:
            TidingsError: OVERLOADED.
        """
        if len(self.requests) >= self._max_requests:
            raise errors.overloaded(RETRY_SECONDS, "a session that is still opening")
        self.requests.append((key, envelope, expects))

    def mark(self, conversation_id: str, delivered: int, read: int) -> None:
        """Keep a mark; past 1,000 conversations new ones are lost, and the client is sent those entries again."""
        old = self.marks.get(conversation_id, (0, 0))
        if conversation_id in self.marks or len(self.marks) < MAX_POSITIONS:
            self.marks[conversation_id] = (max(delivered, old[0]), max(read, old[1]))

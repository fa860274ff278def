"""The ClientPort of a session whose connection is gone. One for all: so a session doesn't keep its connection, nor the connection
its session, until the collector finds both."""

from edge.packet import Packet


class NoClient:
    """See `ClientPort`. Takes everything, and does nothing."""

    drained = True

    def write(self, frame: bytes, traffic_class: int, *, asked: bool = False) -> None:
        """See ClientPort."""

    def write_packet(self, packet: Packet) -> None:
        """See ClientPort."""

    def verify_token(self, token: str, request_id: int) -> None:
        """See ClientPort."""

    def close(self, code: int, reason: str) -> None:
        """See ClientPort."""


NOBODY = NoClient()

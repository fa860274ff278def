"""What the session core asks of the world. Nothing here waits, and nothing here fails: outcomes come back as events."""

from collections.abc import Collection
from enum import Enum, auto
from typing import Protocol, TypeVar

from edge.packet import Packet
from tidings.router.v1 import link_pb2

S = TypeVar("S", contravariant=True)  # the session


class Expects(Enum):
    """What will answer a request put to the routers."""

    OPENED = auto()
    SYNC_PAGE = auto()
    STORED = auto()
    PAGE = auto()
    PRESENCE = auto()


class ClientPort(Protocol):
    """The client's connection."""

    @property
    def drained(self) -> bool:
        """Whether everything written so far has left the outbox."""

    def write(self, frame: bytes, traffic_class: int, *, asked: bool = False) -> None:
        """Queue an encoded ServerFrame. `asked`: the session asked for it when the outbox was empty, so it always fits."""

    def write_packet(self, packet: Packet) -> None:
        """Queue all frames of a packet, or write them at once when nothing waits."""

    def verify_token(self, token: str, request_id: int) -> None:
        """Check a token; `Session.on_token` or `Session.on_token_refused` follows."""

    def close(self, code: int, reason: str) -> None:
        """Send what is queued, then close. Nothing is written afterwards."""


class MeshPort(Protocol):
    """The routers, behind their links."""

    @property
    def has_room(self) -> bool:
        """Whether one more request is taken."""

    def ask(self, session: int, key: str, envelope: link_pb2.ClientEnvelope, expects: Expects) -> None:
        """Put a session's request to the owner of `key`, again and again across lost links until it is answered."""

    def tell(self, key: str, envelope: link_pb2.ClientEnvelope) -> None:
        """Put a request that nobody answers to the owner of `key`; it may be lost with its link."""

    def mark(self, session: int, mark: link_pb2.ReceiptDelta) -> None:
        """Move marks; only the newest of a session and conversation is kept until it is sent."""

    def acknowledge_notifications(self, notification_ids: Collection[str], user_ordinal: int) -> None:
        """A device of the user has these notifications."""


class EdgePort(MeshPort, Protocol[S]):
    """The mesh, and the rest of the edge."""

    def enter(self, session: S) -> int:
        """Hello came: the session now counts, and an older one of the same device ends. Gives the user's ordinal, 0 if it isn't
        known here."""

    def announce(self, session: S) -> None:
        """The ordinal is known: announce it on every link; `Session.on_announced` follows."""

    def leave(self, session: S) -> None:
        """The session is over."""

    def refused(self, code: int) -> None:
        """Count a named error or close code."""

"""The store's own values: what goes into a log and what comes out. No SQL here and no protobuf.

Times are integers: microseconds since 1970. A sequence number is 1, 2, 3 … per conversation; 0 means none.
"""

from dataclasses import dataclass
from enum import IntEnum

MAX_SEQ = 2**63 - 1  # what a database's bigint holds; a larger number on the wire means "further than anything"


class Kind(IntEnum):
    """Kinds of log entries, as stored."""

    MESSAGE = 1
    EDIT = 2
    DELETION = 3
    EVENT = 4


class ConversationKind(IntEnum):
    """As in the contract."""

    DIRECT = 1
    GROUP = 2


class Role(IntEnum):
    """As in the contract."""

    OWNER = 1
    ADMIN = 2
    MEMBER = 3


class RetentionKind(IntEnum):
    """As in the contract."""

    FOREVER = 1
    FOR_TIME = 2
    UNTIL_DELIVERED = 3


class Refusal(IntEnum):
    """Why an entry was not stored or a mark not moved: numbers of the contract's ErrorCode, 0 for none."""

    NONE = 0
    INVALID_CHAT_ID = 4001
    INVALID_FIELD = 4002
    NOT_A_MEMBER = 4003
    MESSAGE_NOT_FOUND = 4009
    NOT_YOUR_MESSAGE = 4010
    INTERNAL = 4016


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry to append.

    Attributes:
        conversation_id: where.
        sender: the sender's ordinal.
        client_msg_id: the sender's own id for it.
        target_seq: 0 for a message, else the message to edit or delete.
        body: the encoded content; None for a deletion.
    """

    conversation_id: str
    sender: int
    client_msg_id: str
    target_seq: int
    body: bytes | None

    @property
    def kind(self) -> Kind:
        """What it will be in the log."""
        if self.target_seq == 0:
            return Kind.MESSAGE
        return Kind.DELETION if self.body is None else Kind.EDIT

    @property
    def identity(self) -> tuple[str, int, str]:
        """What makes a repeat a repeat."""
        return self.conversation_id, self.sender, self.client_msg_id


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a draft: its place, or a refusal."""

    seq: int = 0
    stored_at: int = 0
    membership_version: int = 0
    duplicate: bool = False
    refusal: Refusal = Refusal.NONE


@dataclass(frozen=True, slots=True)
class Advance:
    """One device's marks in one conversation, to be moved. Without a device only the member's marks move."""

    conversation_id: str
    user_ordinal: int
    device_id: str
    delivered_seq: int
    read_seq: int


@dataclass(frozen=True, slots=True)
class Marks:
    """A member's marks."""

    delivered_seq: int
    read_seq: int


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of an advance."""

    before: Marks = Marks(0, 0)
    after: Marks = Marks(0, 0)
    refusal: Refusal = Refusal.NONE


@dataclass(frozen=True, slots=True)
class Entry:
    """A log entry as stored. `body` is None for a deletion and for what a deletion erased."""

    conversation_id: str
    seq: int
    kind: Kind
    sender_id: str
    client_msg_id: str
    target_seq: int
    stored_at: int
    body: bytes | None


@dataclass(frozen=True, slots=True)
class User:
    """A user; `last_seen_at` is None for one never seen."""

    user_id: str
    ordinal: int
    last_seen_at: int | None


@dataclass(frozen=True, slots=True)
class Member:
    """A member and their marks."""

    user_id: str
    ordinal: int
    role: Role
    visible_from_seq: int
    delivered_seq: int
    read_seq: int


@dataclass(frozen=True, slots=True)
class Retention:
    """What a conversation keeps; `keep` in microseconds, 0 unless FOR_TIME."""

    kind: RetentionKind = RetentionKind.FOREVER
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation with its present members, by ordinal."""

    conversation_id: str
    kind: ConversationKind
    name: str
    last_seq: int
    retained_from_seq: int
    membership_version: int
    retention: Retention
    created_at: int
    members: tuple[Member, ...] = ()

    def member(self, user_id: str) -> Member | None:
        """The member of that id."""
        return next((member for member in self.members if member.user_id == user_id), None)

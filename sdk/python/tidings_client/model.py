"""What an application gets to see: messages, statuses and events. Nothing here knows sockets or SQL."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum

from google.protobuf.timestamp_pb2 import Timestamp

from tidings.client.v1 import frames_pb2
from tidings.common.v1 import content_pb2
from tidings.common.v1.content_pb2 import Content
from tidings.common.v1.conversation_pb2 import Conversation, LogEntry, MembershipEvent


class Status(IntEnum):
    """How far one's own message has come. It only grows; FAILED is final."""

    SENDING = 1
    """In the outbox: kept here, not yet known to be stored there."""
    SENT = 2
    """Stored by the server."""
    DELIVERED = 3
    """Every other member has it on a device (see `statuses`)."""
    READ = 4
    """Every other member has read it."""
    FAILED = 5
    """Refused for good."""


class Kind(Enum):
    """What a log entry says."""

    MESSAGE = "message"
    EDIT = "edit"
    DELETION = "deletion"
    MEMBERSHIP = "membership"
    UNKNOWN = "unknown"
    """Newer than this software: keep its place and show nothing."""


_KINDS = {"content": Kind.MESSAGE, "edit": Kind.EDIT, "deletion": Kind.DELETION, "membership": Kind.MEMBERSHIP}


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a conversation's log.

    From `messages()` an entry is as it was logged: an edit or deletion is an entry of its own that names its `target_seq`.
    From `history()` a message is as it is now: `edited` and `deleted` say what happened to it.
    """

    conversation_id: str
    seq: int
    message_id: str
    sender_id: str
    client_msg_id: str
    time: datetime
    kind: Kind
    content: Content | None = None
    target_seq: int = 0
    membership: MembershipEvent | None = None
    edited: bool = False
    deleted: bool = False
    status: Status | None = None
    """Of one's own messages, when asked from `history()` or `stored()`."""

    @property
    def text(self) -> str:
        """The text, or empty when the content is something else."""
        return self.content.text.text if self.content is not None else ""


def message_of(entry: LogEntry) -> Message:
    """A log entry as the application sees it."""
    body = entry.WhichOneof("body")
    content, target = None, 0
    if body == "content":
        content = entry.content
    elif body == "edit":
        content, target = entry.edit.content, entry.edit.target_seq
    elif body == "deletion":
        target = entry.deletion.target_seq
    return Message(
        conversation_id=entry.conversation_id,
        seq=entry.seq,
        message_id=entry.message_id,
        sender_id=entry.sender_id,
        client_msg_id=entry.client_msg_id,
        time=entry.store_time.ToDatetime(UTC),
        kind=_KINDS.get(body or "", Kind.UNKNOWN),
        content=content,
        target_seq=target,
        membership=entry.membership if body == "membership" else None,
        deleted=body == "content" and entry.content.WhichOneof("body") is None,
    )


@dataclass(frozen=True, slots=True)
class Notification:
    """A message of the business to this user. It is shown once per device, and not after its expiry."""

    notification_id: str
    type: str
    """What kind of message it is to the application; "notification" unless the business said otherwise."""
    content: Content
    priority: int
    """0 to 9."""
    send_time: datetime | None
    """When it was due."""
    expire_time: datetime | None
    """From then on, by the server's clock, it is void."""

    @property
    def text(self) -> str:
        """The text, or empty when the content is something else."""
        return self.content.text.text


def notification_of(notification: frames_pb2.Notification) -> Notification:
    """A notification as the application sees it.

    Raises:
        ValueError: a time is none.
    """
    return Notification(
        notification_id=notification.notification_id,
        type=notification.type,
        content=notification.content,
        priority=notification.priority,
        send_time=_time_of(notification.send_time) if notification.HasField("send_time") else None,
        expire_time=_time_of(notification.expire_time) if notification.HasField("expire_time") else None,
    )


def _time_of(timestamp: Timestamp) -> datetime:
    try:
        return timestamp.ToDatetime(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def content_of(text_or_content: str | Content) -> Content:
    """What to send, as the contract has it.

    Raises:
        ValueError: it is empty.
    """
    if isinstance(text_or_content, str):
        text_or_content = Content(text=content_pb2.Text(text=text_or_content))
    if text_or_content.WhichOneof("body") is None or (text_or_content.HasField("text") and not text_or_content.text.text):
        raise ValueError("the message is empty: give a text of at least one character, or a Content with a body")
    return text_or_content


class ConnectionState(Enum):
    """Where the client stands. The last three are final until `reconnect()`."""

    CONNECTING = "connecting"
    """Not connected; trying, or waiting to try again."""
    CATCHING_UP = "catching up"
    """Connected; what was missed is coming in."""
    CAUGHT_UP = "caught up"
    """Connected; everything missed has come in."""
    CLOSED = "closed"
    """Closed by the application."""
    REPLACED = "replaced"
    """The same device connected elsewhere; that connection lives on."""
    REFUSED = "refused"
    """The server won't have us as we are; the reason says what to change."""


FINAL_STATES = frozenset({ConnectionState.CLOSED, ConnectionState.REPLACED, ConnectionState.REFUSED})


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """The connection's state changed."""

    state: ConnectionState
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReceiptEvent:
    """A member's marks moved: some device of theirs has, and they have read, everything up to these seqs."""

    conversation_id: str
    user_id: str
    delivered_seq: int
    read_seq: int


@dataclass(frozen=True, slots=True)
class TypingEvent:
    """Someone started or stopped typing."""

    conversation_id: str
    user_id: str
    typing: bool


@dataclass(frozen=True, slots=True)
class PresenceEvent:
    """A watched user came or went; `last_seen` is None while online and for users never seen."""

    user_id: str
    online: bool
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """One's own message came further. `seq` is 0 while it has none; `error` says why it FAILED."""

    conversation_id: str
    client_msg_id: str
    status: Status
    seq: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class ConversationEvent:
    """A conversation appeared, changed, or (`removed`) is no longer the user's; then only its id is filled."""

    conversation: Conversation
    removed: bool


@dataclass(frozen=True, slots=True)
class HistoryGapEvent:
    """Entries `first_seq` to `last_seq` won't come through `messages()`: they were left out or are no longer kept. Those from
    `first_available_seq` on can be read with `history()`."""

    conversation_id: str
    first_seq: int
    last_seq: int
    first_available_seq: int


Event = ConnectionEvent | ReceiptEvent | TypingEvent | PresenceEvent | StatusEvent | ConversationEvent | HistoryGapEvent


def presence_event(presence: frames_pb2.Presence) -> PresenceEvent:
    """A presence as the application sees it."""
    seen = presence.last_seen_time.ToDatetime(UTC) if presence.HasField("last_seen_time") else None
    return PresenceEvent(presence.user_id, presence.state == frames_pb2.PRESENCE_STATE_ONLINE, seen)

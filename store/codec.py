"""Between the store's values and the contract's messages. Bodies are kept as they are encoded: Content for messages and edits,
MembershipEvent for events; nothing for deletions and what they erased."""

from mesh import errors, naming
from mesh.times import SECOND, microseconds, timestamp
from store.group import Change, ChangeKind
from store.model import MAX_SEQ, Conversation, Entry, Kind, Member, Retention, RetentionKind, User
from tidings.common.v1 import conversation_pb2 as common
from tidings.common.v1.content_pb2 import Content
from tidings.store.v1 import user_pb2

_KEEP_LEAST = SECOND
_KEEP_MOST = 10 * 366 * 24 * 3600 * SECOND  # ten years, leap years included


def seq(number: int) -> int:
    """A seq from the wire, where it is an unsigned 64-bit number: one past the database's range is further than anything."""
    return min(number, MAX_SEQ)


def log_entry(entry: Entry) -> common.LogEntry:
    """A log entry."""
    message = common.LogEntry(
        conversation_id=entry.conversation_id,
        seq=entry.seq,
        message_id=naming.message_id(entry.conversation_id, entry.seq),
        sender_id=entry.sender_id,
        client_msg_id=entry.client_msg_id,
        store_time=timestamp(entry.stored_at),
    )
    _fill_body(message, entry)
    return message


def _fill_body(message: common.LogEntry, entry: Entry) -> None:
    if entry.kind is Kind.MESSAGE:
        message.content.MergeFromString(entry.body or b"")
        message.content.SetInParent()
    elif entry.kind is Kind.EDIT:
        message.edit.target_seq = entry.target_seq
        message.edit.content.MergeFromString(entry.body or b"")
        message.edit.content.SetInParent()
    elif entry.kind is Kind.DELETION:
        message.deletion.target_seq = entry.target_seq
    else:
        message.membership.MergeFromString(entry.body or b"")
        message.membership.SetInParent()


def content_bytes(content: Content) -> bytes:
    """A content as kept."""
    return content.SerializeToString()


def event_bytes(change: Change) -> bytes:
    """A membership change as kept."""
    role = change.role if change.kind is ChangeKind.ROLE_CHANGED and change.role else 0
    event = common.MembershipEvent(
        change=common.MembershipChange.ValueType(change.kind),
        user_ids=change.user_ids,
        role=common.Role.ValueType(role),
        name=change.name,
    )
    return event.SerializeToString()


def conversation(value: Conversation) -> common.Conversation:
    """A conversation with its members."""
    message = common.Conversation(
        conversation_id=value.conversation_id,
        kind=common.ConversationKind.ValueType(value.kind),
        name=value.name,
        members=[_member(member) for member in value.members],
        last_seq=value.last_seq,
        retained_from_seq=value.retained_from_seq,
        membership_version=value.membership_version,
        create_time=timestamp(value.created_at),
        retention=common.Retention(kind=common.RetentionKind.ValueType(value.retention.kind)),
    )
    if value.retention.kind is RetentionKind.FOR_TIME:
        message.retention.keep.FromMicroseconds(value.retention.keep)
    return message


def _member(member: Member) -> common.Member:
    return common.Member(
        user_id=member.user_id,
        role=common.Role.ValueType(member.role),
        delivered_seq=member.delivered_seq,
        read_seq=member.read_seq,
        visible_from_seq=member.visible_from_seq,
        user_ordinal=member.ordinal,
    )


def retention(message: common.Retention) -> Retention:
    """A retention rule from the wire.

    Raises:
        TidingsError: INVALID_FIELD.
    """
    if message.kind not in {0, *RetentionKind}:
        raise errors.invalid_field("retention.kind", "FOREVER, FOR_TIME or UNTIL_DELIVERED")
    kind = RetentionKind(message.kind or RetentionKind.FOREVER)
    if kind is not RetentionKind.FOR_TIME:
        return Retention(kind)
    keep = microseconds(message.keep)
    if not _KEEP_LEAST <= keep <= _KEEP_MOST:
        raise errors.invalid_field("retention.keep", "1 second to 10 years")
    return Retention(kind, keep)


def user(value: User) -> user_pb2.User:
    """A user."""
    message = user_pb2.User(user_id=value.user_id, user_ordinal=value.ordinal)
    if value.last_seen_at is not None:
        message.last_seen_time.CopyFrom(timestamp(value.last_seen_at))
    return message

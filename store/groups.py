"""Changes of groups, each in one transaction with the log entry that tells of it. What is allowed is decided in `store.group`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Connection, text

from mesh import errors, naming
from store import group
from store.codec import event_bytes
from store.conversations import find_conversations
from store.group import Change, ChangeKind
from store.model import Conversation, Entry, Kind, Member, Retention, Role, User
from store.sql import Statement
from store.users import ensure_users

_LOCK = Statement("SELECT 1 FROM conversations WHERE conversation_id = :conversation_id {for_update}")
_REQUEST = Statement(
    """
    SELECT conversation_id, request_hash FROM conversations
    WHERE creator_ordinal = :creator_ordinal AND request_id = :request_id
    """
)
_CREATE = Statement(
    """
    INSERT INTO conversations (conversation_id, kind, name, last_seq, retained_from_seq, removed_below_seq, dispatched_seq,
      membership_version, retention_kind, retention_keep, created_at, last_entry_at, creator_ordinal, request_id, request_hash)
    VALUES (:conversation_id, 2, :name, 0, 1, 1, 0, 0, :retention_kind, :retention_keep, :now, :now,
      :creator_ordinal, :request_id, :request_hash)
    ON CONFLICT (creator_ordinal, request_id) DO NOTHING
    """
)
_ADD = Statement(
    """
    INSERT INTO members (conversation_id, user_ordinal, role, visible_from_seq, delivered_seq, read_seq)
    SELECT :conversation_id, user_ordinal, role, visible_from_seq, visible_from_seq - 1, visible_from_seq - 1 FROM {fresh}
    """,
    fresh="user_ordinal integer, role integer, visible_from_seq integer",
)
_SET_ROLE = Statement("UPDATE members SET role = :role WHERE conversation_id = :conversation_id AND user_ordinal = :user_ordinal")
_REMOVE = Statement("DELETE FROM members WHERE conversation_id = :conversation_id AND user_ordinal = :user_ordinal")
_FORGET_CURSORS = Statement("DELETE FROM device_cursors WHERE user_ordinal = :user_ordinal AND conversation_id = :conversation_id")
_RENAME = Statement("UPDATE conversations SET name = :name WHERE conversation_id = :conversation_id")
_RETAIN = Statement(
    """
    UPDATE conversations SET retention_kind = :retention_kind, retention_keep = :retention_keep
    WHERE conversation_id = :conversation_id
    """
)
_TELL = Statement(
    """
    UPDATE conversations SET last_seq = last_seq + 1, membership_version = membership_version + 1,
      last_entry_at = {greatest}(last_entry_at, :now)
    WHERE conversation_id = :conversation_id
    RETURNING last_seq, last_entry_at
    """
)
_ENTRY = text(
    """
    INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
    VALUES (:conversation_id, :seq, :sender_ordinal, NULL, 4, 0, :stored_at, :body)
    """
)


@dataclass(frozen=True, slots=True)
class Changed:
    """A conversation as it is now, and the entry that tells of the change; None when nothing changed."""

    conversation: Conversation
    entry: Entry | None = None
    removed_ordinal: int = 0


@dataclass(frozen=True, slots=True)
class NewGroup:
    """What a group is created from. `request_hash` tells a repeat from a conflict."""

    actor_id: str
    request_id: str
    request_hash: bytes
    name: str
    member_ids: tuple[str, ...]
    retention: Retention

    @property
    def everyone(self) -> tuple[str, ...]:
        """The creator and the others, each once."""
        return tuple(dict.fromkeys((self.actor_id, *self.member_ids)))


def create_group(connection: Connection, new: NewGroup, now: int) -> Changed:
    """Create a group; a repeat of the same request gives the group as it is now, and its first entry again.

    Raises:
        TidingsError: REQUEST_ID_CONFLICT, GROUP_TOO_LARGE.
    """
    if len(new.everyone) > group.MAX_MEMBERS:
        raise errors.group_too_large(group.MAX_MEMBERS)
    users = ensure_users(connection, new.everyone, now)
    conversation_id, fresh = _claim(connection, new, users[new.actor_id], now)
    created = Change(ChangeKind.CREATED, new.everyone, name=new.name)
    if fresh:
        roles = [(users[name].ordinal, int(Role.OWNER if name == new.actor_id else Role.MEMBER), 1) for name in new.everyone]
        _ADD(connection, conversation_id=conversation_id, fresh=roles)
        entry = _tell(connection, conversation_id, users[new.actor_id], created, now)
        return Changed(find_conversations(connection, [conversation_id])[conversation_id], entry)
    conversation = find_conversations(connection, [conversation_id])[conversation_id]
    # The entry may have been removed by retention since, but the request says all that was in it.
    entry = _entry(conversation_id, 1, new.actor_id, conversation.created_at, event_bytes(created))
    return Changed(as_seen_by(conversation, new.actor_id), entry)


def put_member(connection: Connection, conversation_id: str, actor_id: str, member_id: str, role: Role | None, now: int) -> Changed:
    """Add a member or change a role. Raises: see `store.group.put_member`."""
    return _change(connection, conversation_id, actor_id, lambda it: group.put_member(it, actor_id, member_id, role), now)


def remove_member(connection: Connection, conversation_id: str, actor_id: str, member_id: str, now: int) -> Changed:
    """Remove a member or leave. Raises: see `store.group.remove_member`."""
    return _change(connection, conversation_id, actor_id, lambda it: group.remove_member(it, actor_id, member_id), now)


def update_conversation(
    connection: Connection, conversation_id: str, actor_id: str, name: str, retention: Retention | None, now: int
) -> Changed:
    """Rename, unless the name is empty, and change what is kept, unless that is None. Raises: see `store.group.rename`."""

    def decide(conversation: Conversation) -> Change | None:
        if retention is not None:
            group.check_retention_change(conversation, actor_id)
            keep = {"retention_kind": int(retention.kind), "retention_keep": retention.keep}
            _RETAIN(connection, conversation_id=conversation_id, **keep)
        elif not name and conversation.member(actor_id) is None:
            raise errors.not_a_member(conversation_id)
        return group.rename(conversation, actor_id, name) if name else None

    return _change(connection, conversation_id, actor_id, decide, now)


def as_seen_by(conversation: Conversation, user_id: str) -> Conversation:
    """What somebody may learn of a conversation: who is no member learns neither members nor name."""
    return conversation if conversation.member(user_id) else replace(conversation, members=(), name="", last_seq=0)


def _claim(connection: Connection, new: NewGroup, creator: User, now: int) -> tuple[str, bool]:
    """The group of this request: its id, and whether it is new."""
    request = {"creator_ordinal": creator.ordinal, "request_id": new.request_id}
    conversation_id = naming.new_group_id()
    inserted = _CREATE(
        connection,
        conversation_id=conversation_id,
        name=new.name,
        retention_kind=int(new.retention.kind),
        retention_keep=new.retention.keep,
        request_hash=new.request_hash,
        now=now,
        **request,
    )
    if inserted.rowcount:
        return conversation_id, True
    found = _REQUEST(connection, **request).one()
    if bytes(found.request_hash) != new.request_hash:
        raise errors.request_id_conflict(new.request_id)
    return found.conversation_id, False


def _change(
    connection: Connection, conversation_id: str, actor_id: str, decide: Callable[[Conversation], Change | None], now: int
) -> Changed:
    _LOCK(connection, conversation_id=conversation_id)
    before = find_conversations(connection, [conversation_id]).get(conversation_id)
    if before is None:
        raise errors.invalid_chat_id(conversation_id)
    change = decide(before)
    entry, removed = None, 0
    if change is not None:
        removed = _apply(connection, before, change, now)
        entry = _tell(connection, conversation_id, _user(before, actor_id), change, now)
    after = find_conversations(connection, [conversation_id])[conversation_id]
    # Who has just left still learns who remains; who never was there learns nothing.
    return Changed(after if before.member(actor_id) else as_seen_by(after, actor_id), entry, removed)


def _apply(connection: Connection, before: Conversation, change: Change, now: int) -> int:
    """Write what changed; gives the ordinal of a removed member, else 0."""
    where = {"conversation_id": before.conversation_id}
    if change.kind is ChangeKind.RENAMED:
        _RENAME(connection, name=change.name, **where)
        return 0
    user_id = change.user_ids[0]
    if change.kind is ChangeKind.ADDED:
        ordinal = ensure_users(connection, [user_id], now)[user_id].ordinal
        _ADD(connection, fresh=[(ordinal, int(change.role or Role.MEMBER), before.last_seq + 1)], **where)
        return 0
    member = _member(before, user_id)
    if change.kind is ChangeKind.ROLE_CHANGED:
        _SET_ROLE(connection, role=int(change.role or Role.MEMBER), user_ordinal=member.ordinal, **where)
        return 0
    _REMOVE(connection, user_ordinal=member.ordinal, **where)
    _FORGET_CURSORS(connection, user_ordinal=member.ordinal, **where)
    return member.ordinal


def _tell(connection: Connection, conversation_id: str, actor: User, change: Change, now: int) -> Entry:
    """Append the entry that tells of a change."""
    seq, stored_at = _TELL(connection, conversation_id=conversation_id, now=now).one()
    body = event_bytes(change)
    values = {"conversation_id": conversation_id, "seq": seq, "sender_ordinal": actor.ordinal, "stored_at": stored_at}
    connection.execute(_ENTRY, values | {"body": body})
    return _entry(conversation_id, seq, actor.user_id, stored_at, body)


def _entry(conversation_id: str, seq: int, actor_id: str, stored_at: int, body: bytes) -> Entry:
    return Entry(conversation_id, seq, Kind.EVENT, actor_id, "", 0, stored_at, body)


def _user(conversation: Conversation, user_id: str) -> User:
    member = _member(conversation, user_id)
    return User(user_id, member.ordinal, None)


def _member(conversation: Conversation, user_id: str) -> Member:
    member = conversation.member(user_id)
    if member is None:
        raise AssertionError("the change was decided about members")
    return member

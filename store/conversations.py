"""Conversations and their members: reading them, and making direct ones exist."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from mesh import errors, naming
from store.model import MAX_SEQ, Conversation, ConversationKind, Member, Retention, RetentionKind, Role
from store.sql import Statement
from store.users import ensure_users

_TOKEN = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([dg][a-z2-7]{26})")
_FIND = Statement(
    """
    SELECT conversation_id, kind, name, last_seq, retained_from_seq, membership_version, retention_kind, retention_keep, created_at
    FROM conversations WHERE conversation_id IN (SELECT conversation_id FROM {wanted})
    """,
    wanted="conversation_id text",
)
_MEMBERS = Statement(
    """
    SELECT members.conversation_id, users.user_id, members.user_ordinal, members.role,
      members.visible_from_seq, members.delivered_seq, members.read_seq
    FROM members JOIN users ON users.ordinal = members.user_ordinal
    WHERE members.conversation_id IN (SELECT conversation_id FROM {wanted})
    ORDER BY members.conversation_id, members.user_ordinal
    """,
    wanted="conversation_id text",
)
# A conversation that moved to the top while a listing is paged keeps its old place in it: the activity it had as of the first page.
_LIST = Statement(
    """
    SELECT conversation_id, active_at FROM (
      SELECT conversations.conversation_id,
        CASE WHEN last_entry_at <= :as_of THEN last_entry_at ELSE coalesce(
          (SELECT stored_at FROM messages
           WHERE messages.conversation_id = conversations.conversation_id AND stored_at <= :as_of ORDER BY seq DESC LIMIT 1),
          created_at) END AS active_at
      FROM members JOIN conversations ON conversations.conversation_id = members.conversation_id
      WHERE members.user_ordinal = :user_ordinal
    ) AS mine
    WHERE active_at < :after_time OR (active_at = :after_time AND conversation_id > :after_id)
    ORDER BY active_at DESC, conversation_id
    LIMIT :page_size
    """
)
_NEWEST = Statement(
    """
    SELECT users.ordinal, coalesce(max(conversations.last_entry_at), 0) AS active_at
    FROM users
    LEFT JOIN members ON members.user_ordinal = users.ordinal
    LEFT JOIN conversations ON conversations.conversation_id = members.conversation_id
    WHERE users.user_id = :user_id
    GROUP BY users.ordinal
    """
)
_INSERT = Statement(
    """
    INSERT INTO conversations (conversation_id, kind, name, last_seq, retained_from_seq, removed_below_seq, dispatched_seq,
      membership_version, retention_kind, retention_keep, created_at, last_entry_at)
    SELECT conversation_id, 1, '', 0, 1, 1, 0, 1, 1, 0, :now, :now FROM {fresh}
    WHERE true
    ORDER BY conversation_id
    ON CONFLICT (conversation_id) DO NOTHING
    """,
    fresh="conversation_id text",
)
_INSERT_MEMBERS = Statement(
    """
    INSERT INTO members (conversation_id, user_ordinal, role, visible_from_seq, delivered_seq, read_seq)
    SELECT conversation_id, user_ordinal, 3, 1, 0, 0 FROM {fresh}
    WHERE true
    ORDER BY conversation_id, user_ordinal
    ON CONFLICT (conversation_id, user_ordinal) DO NOTHING
    """,
    fresh="conversation_id text, user_ordinal integer",
)


def find_conversations(connection: Connection, conversation_ids: Iterable[str]) -> dict[str, Conversation]:
    """Those that exist, with their members."""
    wanted = [(conversation_id,) for conversation_id in set(conversation_ids)]
    members: defaultdict[str, list[Member]] = defaultdict(list)
    for conversation_id, user_id, ordinal, role, *seqs in _MEMBERS(connection, wanted=wanted):
        members[conversation_id].append(Member(user_id, ordinal, Role(role), *seqs))
    return {
        row.conversation_id: Conversation(
            row.conversation_id,
            ConversationKind(row.kind),
            row.name,
            row.last_seq,
            row.retained_from_seq,
            row.membership_version,
            Retention(RetentionKind(row.retention_kind), row.retention_keep),
            row.created_at,
            tuple(members[row.conversation_id]),
        )
        for row in _FIND(connection, wanted=wanted)
    }


@dataclass(frozen=True, slots=True)
class ListingPlace:
    """Where a listing stands: as of when it is made, and the last conversation given, by its activity then."""

    as_of: int
    active_at: int
    conversation_id: str

    def __str__(self) -> str:
        return f"{self.as_of}.{self.active_at}.{self.conversation_id}"

    @classmethod
    def parse(cls, text: str) -> "ListingPlace":
        """Read a page token.

        Raises:
            TidingsError: INVALID_FIELD.
        """
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise errors.invalid_field("page_token", "the token of the last page, as it was given")
        return cls(int(match[1]), int(match[2]), match[3])


def list_conversations(
    connection: Connection, user_id: str, place: ListingPlace | None, page_size: int
) -> tuple[list[Conversation], ListingPlace | None]:
    """A user's conversations after `place` (None: from the first), the most recently active first; and the place of the next page,
    None after the last."""
    newest = _NEWEST(connection, user_id=user_id).one_or_none()
    if newest is None:
        return [], None
    place = place or ListingPlace(newest.active_at, MAX_SEQ, "")
    rows = _LIST(
        connection,
        user_ordinal=newest.ordinal,
        as_of=place.as_of,
        after_time=place.active_at,
        after_id=place.conversation_id,
        page_size=page_size + 1,
    ).all()
    shown = rows[:page_size]
    found = find_conversations(connection, [row.conversation_id for row in shown])
    page = [found[row.conversation_id] for row in shown]
    more = len(rows) > len(shown)
    return page, ListingPlace(place.as_of, shown[-1].active_at, shown[-1].conversation_id) if more else None


def ensure_direct(connection: Connection, pairs: Sequence[tuple[str, str]], now: int) -> dict[str, Conversation]:
    """Make the direct conversations of these pairs exist; whoever races, there is one per pair. Gives them by id."""
    users = ensure_users(connection, [user_id for pair in pairs for user_id in pair], now)
    named = {naming.direct_conversation_id(*pair): pair for pair in pairs}
    _INSERT(connection, fresh=[(name,) for name in named], now=now)
    _INSERT_MEMBERS(connection, fresh=[(name, users[user_id].ordinal) for name, pair in named.items() for user_id in pair])
    return find_conversations(connection, named)

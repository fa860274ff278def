"""Reading runs of log entries."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from mesh import errors
from store.model import MAX_SEQ, Entry, Kind
from store.sql import Statement

PAGE_BYTES = 4 * 1024 * 1024  # bodies in one page: a quarter of what a gRPC message may hold, the rest is for what wraps them

_COLUMNS = """
    messages.conversation_id, messages.seq, messages.kind, users.user_id, messages.client_msg_id, messages.target_seq,
    messages.stored_at, messages.body
"""
_LOG = Statement(
    """
    SELECT conversations.last_seq, conversations.retained_from_seq, members.visible_from_seq
    FROM conversations
    LEFT JOIN members
      ON members.conversation_id = conversations.conversation_id AND members.user_ordinal = :user_ordinal
    WHERE conversations.conversation_id = :conversation_id
    """
)
_RANGES = Statement(
    f"""
    SELECT {_COLUMNS}
    FROM {{ranges}}
    JOIN messages ON messages.conversation_id = ranges.conversation_id
      AND messages.seq BETWEEN ranges.first_seq AND ranges.final_seq
    JOIN users ON users.ordinal = messages.sender_ordinal
    """,  # noqa: S608  (columns of ours)
    ranges="conversation_id text, first_seq integer, final_seq integer",
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of one log; see ListEntriesResponse in the contract."""

    entries: list[Entry]
    last_seq: int
    first_available_seq: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class Range:
    """Seqs `first` to `final` of one log, both included; empty when `final` is lower."""

    conversation_id: str
    first: int
    final: int


def list_after(connection: Connection, conversation_id: str, user_ordinal: int, after_seq: int, page_size: int) -> Page:
    """Entries with a seq above `after_seq`, from there on; ordinal 0 sees all that is kept.

    Raises:
        TidingsError: INVALID_CHAT_ID, NOT_A_MEMBER.
    """
    last_seq, first_available = _bounds(connection, conversation_id, user_ordinal)
    first = max(after_seq + 1, first_available)
    final = min(first + page_size - 1, last_seq)
    entries = within_bytes(read(connection, [Range(conversation_id, first, final)]))
    reached = entries[-1].seq if entries else final
    return Page(entries, last_seq, first_available, has_more=reached < last_seq)


def list_before(connection: Connection, conversation_id: str, user_ordinal: int, before_seq: int, page_size: int) -> Page:
    """Entries with a seq below `before_seq`, the newest of them; otherwise as `list_after`."""
    last_seq, first_available = _bounds(connection, conversation_id, user_ordinal)
    final = min(before_seq - 1, last_seq)
    first = max(final - page_size + 1, first_available)
    entries = within_bytes(reversed(read(connection, [Range(conversation_id, first, final)])))[::-1]
    reached = entries[0].seq if entries else first
    return Page(entries, last_seq, first_available, has_more=reached > first_available)


def read(connection: Connection, ranges: Sequence[Range]) -> list[Entry]:
    """The entries of these ranges that are there, by conversation and seq."""
    wanted = [(one.conversation_id, one.first, one.final) for one in ranges if one.first <= one.final]
    return sorted(map(_entry, _RANGES(connection, ranges=wanted)), key=place) if wanted else []


def place(entry: Entry) -> tuple[str, int]:
    """Where an entry is."""
    return entry.conversation_id, entry.seq


def within_bytes(entries: Iterable[Entry], limit: int = PAGE_BYTES) -> list[Entry]:
    """As many of the first entries as have bodies of `limit` bytes together; at least one."""
    taken: list[Entry] = []
    for entry in entries:
        limit -= len(entry.body or b"")
        if taken and limit < 0:
            break
        taken.append(entry)
    return taken


def _bounds(connection: Connection, conversation_id: str, user_ordinal: int) -> tuple[int, int]:
    """Last seq of a log, and the first that the user could read."""
    row = _LOG(connection, conversation_id=conversation_id, user_ordinal=min(user_ordinal, MAX_SEQ)).one_or_none()
    if row is None:
        raise errors.invalid_chat_id(conversation_id)
    if user_ordinal == 0:
        return row.last_seq, row.retained_from_seq
    if row.visible_from_seq is None:
        raise errors.not_a_member(conversation_id)
    return row.last_seq, max(row.visible_from_seq, row.retained_from_seq)


def _entry(row: Any) -> Entry:
    conversation_id, seq, kind, sender_id, client_msg_id, target_seq, stored_at, body = row
    body = None if body is None else bytes(body)
    return Entry(conversation_id, seq, Kind(kind), sender_id, client_msg_id or "", target_seq, stored_at, body)

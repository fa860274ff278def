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
    SELECT conversations.last_seq, conversations.retained_from_seq, conversations.last_entry_at, members.visible_from_seq
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
class Question:
    """Which page of which log. User 0 sees all that is kept.

    Attributes:
        seq: where the page is to begin, without the entry itself.
        newer: towards newer entries, else towards older ones.
    """

    conversation_id: str
    user_ordinal: int
    seq: int
    newer: bool
    page_size: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """The first and the last entry that a user could read of a log, and when the last one was stored."""

    first_seq: int
    last_seq: int
    last_entry_at: int


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


def list_entries(connection: Connection, question: Question) -> Page:
    """A page of one log.

    Raises:
        TidingsError: INVALID_CHAT_ID, NOT_A_MEMBER.
    """
    bounds = bounds_of(connection, question)
    return page(question, bounds, read(connection, [span(question, bounds)]))


def bounds_of(connection: Connection, question: Question) -> Bounds:
    """What the user could read of the log; raises as `list_entries`."""
    name, user_ordinal = question.conversation_id, question.user_ordinal
    row = _LOG(connection, conversation_id=name, user_ordinal=min(user_ordinal, MAX_SEQ)).one_or_none()
    if row is None:
        raise errors.invalid_chat_id(name)
    if user_ordinal == 0:
        return Bounds(row.retained_from_seq, row.last_seq, row.last_entry_at)
    if row.visible_from_seq is None:
        raise errors.not_a_member(name)
    return Bounds(max(row.visible_from_seq, row.retained_from_seq), row.last_seq, row.last_entry_at)


def span(question: Question, bounds: Bounds) -> Range:
    """The entries that a page may hold."""
    if question.newer:
        first = max(question.seq + 1, bounds.first_seq)
        return Range(question.conversation_id, first, min(first + question.page_size - 1, bounds.last_seq))
    final = min(question.seq - 1, bounds.last_seq)
    return Range(question.conversation_id, max(final - question.page_size + 1, bounds.first_seq), final)


def page(question: Question, bounds: Bounds, found: Sequence[Entry]) -> Page:
    """The page of what was found in the span: as much of it as a page may hold, from the side the question names."""
    wanted = span(question, bounds)
    if question.newer:
        entries = within_bytes(found)
        reached = entries[-1].seq if entries else wanted.final
        return Page(entries, bounds.last_seq, bounds.first_seq, has_more=reached < bounds.last_seq)
    entries = within_bytes(reversed(found))[::-1]
    reached = entries[0].seq if entries else wanted.first
    return Page(entries, bounds.last_seq, bounds.first_seq, has_more=reached > bounds.first_seq)


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


def _entry(row: Any) -> Entry:
    conversation_id, seq, kind, sender_id, client_msg_id, target_seq, stored_at, body = row
    body = None if body is None else bytes(body)
    return Entry(conversation_id, seq, Kind(kind), sender_id, client_msg_id or "", target_seq, stored_at, body)

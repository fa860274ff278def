"""Moves marks and cursors in one transaction of an engine with one writer, which nobody can interrupt: SQLite."""

from collections.abc import Sequence

from sqlalchemy import Connection

from store.marks import MemberKey, MemberState, device_cursors, member_marks, walk
from store.model import Advance, Marks, Moved
from store.sql import Statement

_LOOK = Statement(
    """
    SELECT wanted.conversation_id, wanted.user_ordinal, conversations.last_seq, members.delivered_seq, members.read_seq
    FROM {wanted}
    JOIN conversations ON conversations.conversation_id = wanted.conversation_id
    LEFT JOIN members
      ON members.conversation_id = wanted.conversation_id AND members.user_ordinal = wanted.user_ordinal
    """,
    wanted="conversation_id text, user_ordinal integer",
)
_MOVE = Statement(
    """
    UPDATE members SET delivered_seq = moved.delivered_seq, read_seq = moved.read_seq
    FROM {moved}
    WHERE members.conversation_id = moved.conversation_id AND members.user_ordinal = moved.user_ordinal
    """,
    moved="conversation_id text, user_ordinal integer, delivered_seq integer, read_seq integer",
)
_CURSORS = Statement(
    """
    INSERT INTO device_cursors (user_ordinal, device_id, conversation_id, seq)
    SELECT user_ordinal, device_id, conversation_id, seq FROM {cursors}
    WHERE true
    ON CONFLICT (user_ordinal, device_id, conversation_id)
    DO UPDATE SET seq = excluded.seq WHERE device_cursors.seq < excluded.seq
    """,
    cursors="user_ordinal integer, device_id text, conversation_id text, seq integer",
)


def advance(connection: Connection, advances: Sequence[Advance]) -> list[Moved]:
    """Move what moves; gives one result per advance, in order."""
    wanted = sorted({(one.conversation_id, one.user_ordinal) for one in advances})
    states = _states(connection, wanted)
    moved = walk(advances, states)
    marks = member_marks(advances, moved)
    if marks:
        _MOVE.rows(connection, moved=marks)
    cursors = device_cursors(advances, moved, states)
    if cursors:
        _CURSORS.rows(connection, cursors=cursors)
    return moved


def _states(connection: Connection, wanted: Sequence[MemberKey]) -> dict[MemberKey, MemberState]:
    return {
        (name, ordinal): MemberState(last_seq, None if delivered is None else Marks(delivered, read))
        for name, ordinal, last_seq, delivered, read in _LOOK.rows(connection, wanted=wanted)
    }

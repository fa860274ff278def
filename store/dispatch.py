"""How far conversations have been fanned out: `dispatched_seq`, kept lazily behind `last_seq`."""

from collections.abc import Mapping

from sqlalchemy import Connection

from store.sql import Statement

_LIST = Statement(
    """
    SELECT conversation_id, dispatched_seq FROM conversations
    WHERE last_seq > dispatched_seq AND last_entry_at <= :until AND conversation_id > :after_id
    ORDER BY conversation_id
    LIMIT :page_size
    """
)
_LOCK = Statement(
    """
    SELECT 1 FROM conversations WHERE conversation_id IN (SELECT conversation_id FROM {positions})
    ORDER BY conversation_id {for_update}
    """,
    positions="conversation_id text, seq integer",
)
_MARK = Statement(
    """
    UPDATE conversations SET dispatched_seq = {least}(positions.seq, conversations.last_seq)
    FROM {positions}
    WHERE conversations.conversation_id = positions.conversation_id
      AND conversations.dispatched_seq < {least}(positions.seq, conversations.last_seq)
    """,
    positions="conversation_id text, seq integer",
)


def list_undispatched(connection: Connection, until: int, after_id: str, page_size: int) -> tuple[list[tuple[str, int]], str]:
    """(conversation id, dispatched seq) of those with newer entries, the last of them stored at `until` or before, by id after
    `after_id`; and the id after which the next page begins, empty on the last."""
    rows = _LIST(connection, until=until, after_id=after_id, page_size=page_size + 1).all()
    page = [(row.conversation_id, row.dispatched_seq) for row in rows[:page_size]]
    return page, page[-1][0] if len(rows) > page_size else ""


def mark_dispatched(connection: Connection, positions: Mapping[str, int]) -> None:
    """Note how far conversations have been fanned out; never goes back, never past the last seq."""
    rows = sorted(positions.items())
    _LOCK(connection, positions=rows)
    _MARK(connection, positions=rows)

"""Appends a batch on either engine, in one transaction: lock, look, plan, write.

The locks come first and in the order of the ids, so that no two appends, in whatever processes, wait for each other; what is read
after them is what the plan will find unchanged when it writes.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from store.append_plan import AppendPlan, Held, Log, Placed, Target
from store.model import Draft, Kind, Outcome
from store.sql import Statement, driver_of

_LOCK = Statement(
    """
    SELECT conversation_id, last_seq, retained_from_seq, last_entry_at, membership_version
    FROM conversations
    WHERE conversation_id IN (SELECT conversation_id FROM {wanted})
    ORDER BY conversation_id
    {for_update}
    """,
    wanted="conversation_id text",
)
_LOOK = Statement(
    """
    SELECT drafts.n, members.user_ordinal IS NOT NULL AS member, stored.seq, stored.stored_at
    FROM {drafts}
    LEFT JOIN members
      ON members.conversation_id = drafts.conversation_id AND members.user_ordinal = drafts.sender
    LEFT JOIN messages AS stored
      ON stored.conversation_id = drafts.conversation_id
      AND stored.sender_ordinal = drafts.sender AND stored.client_msg_id = drafts.client_msg_id
    """,
    drafts="n integer, conversation_id text, sender integer, client_msg_id text",
)
_TARGETS = Statement(
    """
    SELECT messages.conversation_id, messages.seq, messages.sender_ordinal, messages.kind, messages.body IS NULL AS erased
    FROM {targets}
    JOIN messages ON messages.conversation_id = targets.conversation_id AND messages.seq = targets.seq
    """,
    targets="conversation_id text, seq integer",
)
# Bodies are bytes, which the JSON of a `Statement` can't carry: each engine gets the rows the way it takes them fastest.
_INSERT_SQLITE = """
INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_POSTGRESQL = """
INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
SELECT * FROM unnest(
  %b::text[], %b::bigint[], %b::bigint[], %b::text[], %b::smallint[], %b::bigint[], %b::bigint[], %b::bytea[])
"""
_MOVE = Statement(
    """
    UPDATE conversations SET last_seq = moved.seq, last_entry_at = moved.stored_at
    FROM {moved} WHERE conversations.conversation_id = moved.conversation_id
    """,
    moved="conversation_id text, seq integer, stored_at integer",
)
_ERASE_MESSAGES = Statement(
    """
    UPDATE messages SET body = NULL
    FROM {erased}
    WHERE messages.conversation_id = erased.conversation_id AND messages.seq = erased.seq
    """,
    erased="conversation_id text, seq integer",
)
_ERASE_EDITS = Statement(
    """
    UPDATE messages SET body = NULL
    FROM {erased}
    WHERE messages.conversation_id = erased.conversation_id AND messages.target_seq = erased.seq AND messages.kind = 2
    """,
    erased="conversation_id text, seq integer",
)


def append(connection: Connection, drafts: Sequence[Draft], now: int) -> list[Outcome]:
    """Store what can be stored of a batch; gives one outcome per draft, in order."""
    plan = AppendPlan(_held(connection, drafts), now)
    outcomes = plan.decide(drafts)
    if plan.placed:
        _write(connection, plan)
    return outcomes


def _held(connection: Connection, drafts: Sequence[Draft]) -> Held:
    held = Held()
    for conversation_id, *log in _LOCK.rows(connection, wanted=[(name,) for name in {draft.conversation_id for draft in drafts}]):
        held.logs[conversation_id] = Log(*log)
    rows = [(n, draft.conversation_id, draft.sender, draft.client_msg_id) for n, draft in enumerate(drafts)]
    for n, member, seq, stored_at in _LOOK.rows(connection, drafts=rows):
        draft = drafts[n]
        if member:
            held.members.add((draft.conversation_id, draft.sender))
        if seq is not None:
            held.stored[draft.identity] = (seq, stored_at)
    held.targets = _targets(connection, drafts)
    return held


def _targets(connection: Connection, drafts: Sequence[Draft]) -> dict[tuple[str, int], Target]:
    wanted = {(draft.conversation_id, draft.target_seq) for draft in drafts if draft.target_seq}
    if not wanted:
        return {}
    found = _TARGETS.rows(connection, targets=wanted)
    return {(name, seq): Target(sender, Kind(kind), bool(erased)) for name, seq, sender, kind, erased in found}


def _write(connection: Connection, plan: AppendPlan) -> None:
    rows = [_row(placed) for placed in plan.placed]
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_INSERT_POSTGRESQL, tuple(map(list, zip(*rows, strict=True))))
    else:
        driver_of(connection).executemany(_INSERT_SQLITE, rows)
    _MOVE.rows(connection, moved=[(name, log.last_seq, log.last_entry_at) for name, log in plan.moved_logs.items()])
    if plan.erased:
        _ERASE_MESSAGES.rows(connection, erased=plan.erased)
        _ERASE_EDITS.rows(connection, erased=plan.erased)


def _row(placed: Placed) -> tuple[object, ...]:
    draft = placed.draft
    kind = int(draft.kind)
    return (
        draft.conversation_id,
        placed.seq,
        draft.sender,
        draft.client_msg_id,
        kind,
        draft.target_seq,
        placed.stored_at,
        draft.body,
    )

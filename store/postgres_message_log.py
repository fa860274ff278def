"""The message log on PostgreSQL: a batch of messages is one call of a routine, one round trip.

Edits and deletions go the general way (`append_sql`), in more round trips, with all that the batch has for the same conversations.
Both take the conversations' locks in the order of the ids, so any number of stores may append to the same conversations.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy import URL

from store.append_sql import append
from store.marks import MemberState, walk
from store.model import Advance, Draft, Marks, Moved, Outcome, Refusal
from store.postgres_database import PostgresDatabase
from store.postgres_line import PostgresLine, Routine
from store.retrying import passing_faults, retrying

# Seqs are counted over the accepted drafts of a conversation, in the order given. The first of repeats within the batch is
# accepted; the others are answered from it afterwards.
_APPEND = Routine(
    "append_messages",
    {"asked_at": "bigint", "names": "text[]", "senders": "bigint[]", "sender_msg_ids": "text[]", "bodies": "bytea[]"},
    lock="1 FROM conversations WHERE conversation_id = ANY(names) ORDER BY conversation_id FOR UPDATE",
    work="""
WITH judged AS (
  SELECT
    drafts.*, conversations.last_seq, conversations.membership_version,
    members.user_ordinal IS NOT NULL AS is_member, stored.seq AS stored_seq, stored.stored_at,
    greatest(asked_at, conversations.last_entry_at) AS now,
    members.user_ordinal IS NOT NULL AND stored.seq IS NULL
      AND 1 = row_number() OVER (PARTITION BY drafts.conversation_id, sender, drafts.client_msg_id ORDER BY n) AS accepted
  FROM unnest(names, senders, sender_msg_ids, bodies)
    WITH ORDINALITY AS drafts (conversation_id, sender, client_msg_id, body, n)
  LEFT JOIN conversations ON conversations.conversation_id = drafts.conversation_id
  LEFT JOIN members ON members.conversation_id = drafts.conversation_id AND members.user_ordinal = drafts.sender
  LEFT JOIN messages AS stored
    ON stored.conversation_id = drafts.conversation_id
    AND stored.sender_ordinal = drafts.sender AND stored.client_msg_id = drafts.client_msg_id
), placed AS MATERIALIZED (
  SELECT *, last_seq + count(*) FILTER (WHERE accepted) OVER (PARTITION BY conversation_id ORDER BY n) AS seq FROM judged
), inserted AS (
  INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
  SELECT conversation_id, seq, sender, client_msg_id, 1, 0, now, body FROM placed WHERE accepted
), moved AS (
  UPDATE conversations SET last_seq = logs.seq, last_entry_at = logs.now
  FROM (SELECT conversation_id, max(seq) AS seq, max(now) AS now FROM placed WHERE accepted GROUP BY conversation_id) AS logs
  WHERE conversations.conversation_id = logs.conversation_id
)
SELECT accepted, seq, now, stored_seq, stored_at, membership_version, is_member FROM placed ORDER BY n
""",
    columns="accepted boolean, seq bigint, now bigint, stored_seq bigint, stored_at bigint, version bigint, is_member boolean",
)
# For drafts of which each is alone in its conversation, as in most batches of a mesh that isn't pressed: one statement, a sixth
# less work. The update locks what was read without; it passes over conversations whose last_seq is no longer as read, for whoever
# appends or changes the members moves that. Gives what was stored: repeats, refusals and what was passed over are for the other.
_APPEND_APART = Routine(
    "append_messages_apart",
    _APPEND.parameters,
    work="""
WITH drafts AS (
  SELECT asked.*, seen.last_seq AS seen_seq
  FROM unnest(names, senders, sender_msg_ids, bodies) AS asked (conversation_id, sender, client_msg_id, body)
  JOIN conversations AS seen ON seen.conversation_id = asked.conversation_id
  JOIN members ON members.conversation_id = asked.conversation_id AND members.user_ordinal = asked.sender
  LEFT JOIN messages AS stored
    ON stored.conversation_id = asked.conversation_id
    AND stored.sender_ordinal = asked.sender AND stored.client_msg_id = asked.client_msg_id
  WHERE stored.seq IS NULL
), moved AS (
  UPDATE conversations SET last_seq = last_seq + 1, last_entry_at = greatest(asked_at, last_entry_at)
  FROM drafts
  WHERE conversations.conversation_id = drafts.conversation_id AND last_seq = seen_seq
  RETURNING drafts.conversation_id, last_seq, last_entry_at, membership_version, sender, client_msg_id, body
), inserted AS (
  INSERT INTO messages (conversation_id, seq, sender_ordinal, client_msg_id, kind, target_seq, stored_at, body)
  SELECT conversation_id, last_seq, sender, client_msg_id, 1, 0, last_entry_at, body FROM moved
)
SELECT conversation_id, last_seq, last_entry_at, membership_version FROM moved
""",
    columns="conversation_id text, seq bigint, now bigint, version bigint",
)

# Members are looked up one by one, by their key: a planner that joins would compare everybody in a batch with everybody in a group.
_ADVANCE = Routine(
    "advance_marks",
    {"names": "text[]", "users": "bigint[]", "devices": "text[]", "delivered_seqs": "bigint[]", "read_seqs": "bigint[]"},
    lock="""
1 FROM (
  SELECT DISTINCT conversation_id COLLATE "C" AS conversation_id, user_ordinal
  FROM unnest(names, users) AS asked (conversation_id, user_ordinal)
  ORDER BY 1, 2
) AS wanted
CROSS JOIN LATERAL (
  SELECT 1 FROM members
  WHERE members.conversation_id = wanted.conversation_id AND members.user_ordinal = wanted.user_ordinal
  FOR UPDATE
) AS locked
""",
    work="""
WITH advances AS MATERIALIZED (
  SELECT asked.*, greatest(asked.delivered, asked.read) AS reached, logs.last_seq, marks.delivered_seq, marks.read_seq
  FROM unnest(names, users, devices, delivered_seqs, read_seqs)
    AS asked (conversation_id, user_ordinal, device_id, delivered, read)
  CROSS JOIN LATERAL (
    SELECT conversations.last_seq FROM conversations WHERE conversations.conversation_id = asked.conversation_id OFFSET 0
  ) AS logs
  LEFT JOIN LATERAL (
    SELECT members.delivered_seq, members.read_seq FROM members
    WHERE members.conversation_id = asked.conversation_id AND members.user_ordinal = asked.user_ordinal
    OFFSET 0
  ) AS marks ON true
), states AS MATERIALIZED (
  SELECT
    conversation_id, user_ordinal, last_seq, delivered_seq, read_seq,
    greatest(delivered_seq, least(max(reached), last_seq)) AS delivered_now,
    greatest(read_seq, least(max(read), last_seq)) AS read_now
  FROM advances
  GROUP BY conversation_id, user_ordinal, last_seq, delivered_seq, read_seq
), moved AS (
  UPDATE members SET delivered_seq = states.delivered_now, read_seq = states.read_now
  FROM states
  WHERE members.conversation_id = states.conversation_id AND members.user_ordinal = states.user_ordinal
    AND (states.delivered_now > states.delivered_seq OR states.read_now > states.read_seq)
), cursors AS (
  INSERT INTO device_cursors (user_ordinal, device_id, conversation_id, seq)
  SELECT user_ordinal, device_id, conversation_id, max(least(reached, last_seq))
  FROM advances
  WHERE device_id <> '' AND delivered_seq IS NOT NULL AND least(reached, last_seq) > 0
  GROUP BY user_ordinal, device_id, conversation_id
  ORDER BY user_ordinal, device_id, conversation_id
  ON CONFLICT (user_ordinal, device_id, conversation_id)
  DO UPDATE SET seq = excluded.seq WHERE device_cursors.seq < excluded.seq
)
SELECT conversation_id, user_ordinal, last_seq, delivered_seq, read_seq FROM states
""",
    columns="conversation_id text, user_ordinal bigint, last_seq bigint, delivered_seq bigint, read_seq bigint",
)


class PostgresMessageLog:
    """See `store.ports.MessageLog`.

    Args:
        database: for what goes the general way.
        conninfo: for the two connections of its own, one for entries and one for marks.
        clock: microseconds since 1970.
    """

    def __init__(self, database: PostgresDatabase, conninfo: str, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._entries = PostgresLine(conninfo, _APPEND, _APPEND_APART)
        self._marks = PostgresLine(conninfo, _ADVANCE)
        self._marks_turn = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, database: PostgresDatabase, url: URL, clock: Callable[[], int]) -> AsyncIterator["PostgresMessageLog"]:
        """Use connections of its own until the context ends."""
        conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        log = cls(database, conninfo, clock)
        try:
            await log._entries.open()
            await log._marks.open()
            yield log
        finally:
            await log._entries.close()
            await log._marks.close()

    async def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See `store.ports.MessageLog`. One call at a time.

        The logs that get an edit or deletion are one transaction, the others another: each log's order is kept.
        """
        special = {draft.conversation_id for draft in drafts if draft.target_seq}
        if not special:
            return await self._append_messages(drafts)
        outcomes: dict[int, Outcome] = {}
        for way, chosen in ((self._append_generally, True), (self._append_messages, False)):
            places = [n for n, draft in enumerate(drafts) if (draft.conversation_id in special) is chosen]
            if places:
                outcomes |= zip(places, await way([drafts[n] for n in places]), strict=True)
        return [outcomes[n] for n in range(len(drafts))]

    async def _append_generally(self, drafts: Sequence[Draft]) -> list[Outcome]:
        with passing_faults():
            return await self._database.write_once(partial(append, drafts=drafts, now=self._clock()))

    async def _append_messages(self, drafts: Sequence[Draft]) -> list[Outcome]:
        if len({draft.conversation_id for draft in drafts}) < len(drafts):
            return _outcomes(drafts, await self._entries.run(_APPEND, self._values(drafts)))
        # In the order of the ids, as the other takes its locks: the plan takes them as they come.
        ordered = sorted(drafts, key=lambda draft: draft.conversation_id)
        rows = await self._entries.run(_APPEND_APART, self._values(ordered))
        outcomes = {name: Outcome(seq, now, version) for name, seq, now, version in rows}
        left = [draft for draft in ordered if draft.conversation_id not in outcomes]
        if left:
            rows = await self._entries.run(_APPEND, self._values(left))
            outcomes |= zip((draft.conversation_id for draft in left), _outcomes(left, rows), strict=True)
        return [outcomes[draft.conversation_id] for draft in drafts]

    def _values(self, drafts: Sequence[Draft]) -> tuple[object, ...]:
        """Of `_APPEND`'s parameters."""
        names = [draft.conversation_id for draft in drafts]
        senders = [draft.sender for draft in drafts]
        ids = [draft.client_msg_id for draft in drafts]
        return self._clock(), names, senders, ids, [draft.body for draft in drafts]

    async def advance(self, advances: Sequence[Advance]) -> list[Moved]:
        """See `store.ports.MessageLog`."""
        names = [one.conversation_id for one in advances]
        users = [one.user_ordinal for one in advances]
        devices = [one.device_id for one in advances]
        marks = ([one.delivered_seq for one in advances], [one.read_seq for one in advances])
        async with self._marks_turn:
            rows = await retrying(lambda: self._marks.run(_ADVANCE, (names, users, devices, *marks)))
        return walk(advances, {(name, user): _state(*state) for name, user, *state in rows})


def _state(last_seq: int, delivered_seq: int | None, read_seq: int) -> MemberState:
    return MemberState(last_seq, None if delivered_seq is None else Marks(delivered_seq, read_seq))


def _outcomes(drafts: Sequence[Draft], rows: Sequence[tuple[Any, ...]]) -> list[Outcome]:
    """Rows are of `_APPEND`. A draft that is neither accepted nor refused is a repeat."""
    outcomes: list[Outcome] = []
    firsts: dict[tuple[str, int, str], tuple[int, int]] = {}
    for draft, (accepted, seq, now, stored_seq, stored_at, version, is_member) in zip(drafts, rows, strict=True):
        if accepted:
            firsts[draft.identity] = (seq, now)
            outcomes.append(Outcome(seq, now, version))
        elif version is None:
            outcomes.append(Outcome(refusal=Refusal.INVALID_CHAT_ID))
        elif stored_seq is not None:
            outcomes.append(Outcome(stored_seq, stored_at, version, duplicate=True))
        elif not is_member:
            outcomes.append(Outcome(membership_version=version, refusal=Refusal.NOT_A_MEMBER))
        else:
            outcomes.append(Outcome(*firsts[draft.identity], version, duplicate=True))
    return outcomes

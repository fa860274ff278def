"""Retention: removes what conversations need not keep any more.

Two steps, each in small transactions, one conversation at a time. First the entries below a mark go out of sight
(`retained_from_seq`) and their bodies are erased. Their rows stay for a while as the memory of their client_msg_ids: a sender who
never heard `stored` may send the same message again days later, and it must not appear twice. After that the rows go
(`removed_below_seq`). Seqs are never used again. Several stores may sweep at once: each looks again under the conversation's lock.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy import Connection

from mesh.errors import TidingsError
from store.ports import Database
from store.sql import Statement

_CONVERSATIONS = 100  # looked for at a time
_ENTRIES = 1_000  # of one conversation in one transaction: an append waits for no longer than these take
_log = structlog.get_logger(__name__)

# The mark of each conversation with a rule: everything below may go. `floor` is where it stands now.
_MARKS = """
    SELECT conversation_id, retained_from_seq AS floor,
      CASE retention_kind
        WHEN 2 THEN coalesce(
          (SELECT max(seq) + 1 FROM (
             SELECT seq, stored_at FROM messages
             WHERE messages.conversation_id = conversations.conversation_id AND seq >= retained_from_seq
             ORDER BY seq LIMIT :entries) AS oldest
           WHERE stored_at <= :now - retention_keep), retained_from_seq)
        ELSE {least}(
          coalesce(
            (SELECT min(delivered_seq) FROM members WHERE members.conversation_id = conversations.conversation_id), last_seq),
          last_seq, retained_from_seq - 1 + :entries) + 1
      END AS mark
    FROM conversations
    WHERE retention_kind <> 1
"""
_DUE = Statement(
    f"""
    SELECT conversation_id FROM ({_MARKS}) AS marks
    WHERE mark > floor AND conversation_id > :after_id
    ORDER BY conversation_id LIMIT :conversations
    """  # noqa: S608
)
_LOCK = Statement("SELECT retained_from_seq FROM conversations WHERE conversation_id = :conversation_id {for_update}")
_MARK = Statement(f"SELECT floor, mark FROM ({_MARKS} AND conversation_id = :conversation_id) AS marks")  # noqa: S608
_ERASE = Statement(
    """
    UPDATE messages SET body = NULL
    WHERE conversation_id = :conversation_id AND seq >= :floor AND seq < :mark AND body IS NOT NULL
    """
)
_HIDE = Statement("UPDATE conversations SET retained_from_seq = :mark WHERE conversation_id = :conversation_id")
_OLD = Statement(
    """
    SELECT conversation_id FROM conversations
    WHERE retention_kind <> 1 AND retained_from_seq > removed_below_seq AND conversation_id > :after_id
      AND (SELECT stored_at FROM messages
           WHERE messages.conversation_id = conversations.conversation_id AND seq >= removed_below_seq
           ORDER BY seq LIMIT 1) <= :until
    ORDER BY conversation_id LIMIT :conversations
    """
)
_FORGOTTEN = Statement(
    """
    SELECT coalesce(max(seq), 0) + 1 FROM (
      SELECT seq, stored_at FROM messages
      WHERE conversation_id = :conversation_id
        AND seq < (SELECT retained_from_seq FROM conversations WHERE conversation_id = :conversation_id)
      ORDER BY seq LIMIT :entries) AS oldest
    WHERE stored_at <= :until
    """
)
_REMOVE = Statement("DELETE FROM messages WHERE conversation_id = :conversation_id AND seq < :mark")
_REMOVED = Statement("UPDATE conversations SET removed_below_seq = :mark WHERE conversation_id = :conversation_id")


class Sweeper:
    """Sweeps a database.

    Args:
        database: which.
        clock: microseconds since 1970.
        resend: microseconds for which a removed message's client_msg_id is known.
    """

    def __init__(self, database: Database, clock: Callable[[], int], resend: int) -> None:
        self._database = database
        self._clock = clock
        self._resend = resend

    async def run(self, pause: float) -> None:
        """Sweep, wait `pause` seconds, again. Runs until cancelled."""
        while True:
            try:
                await self.sweep(self._clock())
            except TidingsError as error:
                _log.warning("sweep given up till the next round", error=error.message)
            await asyncio.sleep(pause)

    async def sweep(self, now: int) -> int:
        """Remove everything that may go at `now`; gives how many entries went out of sight."""
        hidden = await self._each(partial(_due, now=now), partial(_hide, now=now))
        await self._each(partial(_old, until=now - self._resend), partial(_remove, until=now - self._resend))
        return hidden

    async def _each(self, find: Callable[..., list[str]], handle: Callable[..., int]) -> int:
        """Handle every conversation that `find` finds until nothing is left to do in it; gives the sum."""
        total, after_id = 0, ""
        while found := await self._database.read(partial(find, after_id=after_id)):
            for after_id in found:
                while number := await self._database.write(partial(handle, conversation_id=after_id)):
                    total += number
        return total


def _due(connection: Connection, after_id: str, now: int) -> list[str]:
    rows = _DUE(connection, now=now, after_id=after_id, conversations=_CONVERSATIONS, entries=_ENTRIES)
    return list(rows.scalars())


def _hide(connection: Connection, conversation_id: str, now: int) -> int:
    _LOCK(connection, conversation_id=conversation_id)
    found = _MARK(connection, conversation_id=conversation_id, now=now, entries=_ENTRIES).one_or_none()
    if found is None or found.mark <= found.floor:
        return 0
    _ERASE(connection, conversation_id=conversation_id, floor=found.floor, mark=found.mark)
    _HIDE(connection, conversation_id=conversation_id, mark=found.mark)
    return int(found.mark - found.floor)


def _old(connection: Connection, after_id: str, until: int) -> list[str]:
    return list(_OLD(connection, until=until, after_id=after_id, conversations=_CONVERSATIONS).scalars())


def _remove(connection: Connection, conversation_id: str, until: int) -> int:
    _LOCK(connection, conversation_id=conversation_id)
    mark = _FORGOTTEN(connection, conversation_id=conversation_id, until=until, entries=_ENTRIES).scalar_one()
    removed = _REMOVE(connection, conversation_id=conversation_id, mark=mark).rowcount
    if removed:
        _REMOVED(connection, conversation_id=conversation_id, mark=mark)
    return int(removed)

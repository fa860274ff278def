"""Fetches what devices missed: two statements for any number of devices that begin, one more for those that go on, on one
snapshot."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from store.entries import Range, read
from store.model import Entry
from store.sql import Statement
from store.sync import Budget, DevicePlan, Question, Standing, SyncPage, Token, page, plan, window

_PENDING = Statement(
    """
    SELECT devices.n, conversations.conversation_id, conversations.last_seq, conversations.retained_from_seq,
      members.visible_from_seq, cursors.seq AS cursor_seq, conversations.last_entry_at
    FROM {devices}
    JOIN members ON members.user_ordinal = devices.user_ordinal
    JOIN conversations ON conversations.conversation_id = members.conversation_id
    LEFT JOIN device_cursors AS cursors
      ON cursors.user_ordinal = devices.user_ordinal AND cursors.device_id = devices.device_id
      AND cursors.conversation_id = members.conversation_id
    LEFT JOIN {positions} ON positions.n = devices.n AND positions.conversation_id = members.conversation_id
    WHERE conversations.last_seq >= members.visible_from_seq
      AND conversations.last_seq > coalesce(positions.seq, cursors.seq, 0)
    ORDER BY devices.n, conversations.last_entry_at DESC, conversations.conversation_id
    """,
    devices="n integer, user_ordinal integer, device_id text",
    positions="n integer, conversation_id text, seq integer",
)
_STANDINGS = Statement(
    """
    SELECT wanted.n, wanted.conversation_id, conversations.last_seq, conversations.retained_from_seq, members.visible_from_seq,
      cursors.seq AS cursor_seq, conversations.last_entry_at
    FROM {wanted}
    JOIN members ON members.conversation_id = wanted.conversation_id AND members.user_ordinal = wanted.user_ordinal
    JOIN conversations ON conversations.conversation_id = wanted.conversation_id
    LEFT JOIN device_cursors AS cursors
      ON cursors.user_ordinal = wanted.user_ordinal AND cursors.device_id = wanted.device_id
      AND cursors.conversation_id = wanted.conversation_id
    """,
    wanted="n integer, user_ordinal integer, device_id text, conversation_id text",
)


@dataclass(frozen=True, slots=True)
class Plans:
    """What makes the answer to several questions, before its entries are read; `budget` is what is left for them."""

    plans: list[DevicePlan]
    budget: Budget

    @property
    def ranges(self) -> list[Range]:
        """What to read, each once."""
        return list(dict.fromkeys(one for chosen in self.plans for one in chosen.ranges))


def sync_devices(connection: Connection, questions: Sequence[Question]) -> list[SyncPage]:
    """One page per question, in order."""
    plans = plan_devices(connection, questions)
    return pages(plans, read(connection, plans.ranges))


def plan_devices(connection: Connection, questions: Sequence[Question]) -> Plans:
    """What these questions need to have read."""
    standings = _begun(connection, questions)
    tokens = [question.token or Token(tuple(standings[n])) for n, question in enumerate(questions)]
    _go_on(connection, questions, standings)
    budget = Budget()
    plans = [plan(question, token, standings[n], budget) for n, (question, token) in enumerate(zip(questions, tokens, strict=True))]
    return Plans(plans, budget)


def pages(plans: Plans, entries: Iterable[Entry]) -> list[SyncPage]:
    """One page per question of what was read."""
    found: defaultdict[str, dict[int, Entry]] = defaultdict(dict)
    for entry in entries:
        found[entry.conversation_id][entry.seq] = entry
    return [page(chosen, _cut(chosen, found), plans.budget) for chosen in plans.plans]


def _begun(connection: Connection, questions: Sequence[Question]) -> list[dict[str, Standing]]:
    """Where the devices that ask for their first page stand, in all conversations of which they missed something, in the order in
    which these are to be sent; nothing for the others."""
    first = [(n, question) for n, question in enumerate(questions) if question.token is None]
    devices = [(n, question.user_ordinal, question.device_id) for n, question in first]
    positions = [(n, name, seq) for n, question in first for name, seq in question.positions.items()]
    standings: list[dict[str, Standing]] = [{} for _ in questions]
    for n, name, *stands in _PENDING.rows(connection, devices=devices, positions=positions) if devices else ():
        standings[n][name] = _standing(*stands)
    return standings


def _go_on(connection: Connection, questions: Sequence[Question], standings: list[dict[str, Standing]]) -> None:
    """Add where the devices that ask for a further page stand now, in the conversations of its window."""
    wanted = [
        (n, question.user_ordinal, question.device_id, conversation_id)
        for n, question in enumerate(questions)
        if question.token is not None
        for conversation_id in window(question, question.token)
    ]
    for n, name, *stands in _STANDINGS.rows(connection, wanted=wanted) if wanted else ():
        standings[n][name] = _standing(*stands)


def _standing(last_seq: int, retained_from: int, visible_from: int, cursor: int | None, last_entry_at: int) -> Standing:
    return Standing(last_seq, max(retained_from, visible_from), visible_from, cursor, last_entry_at)


def _cut(chosen: DevicePlan, found: dict[str, dict[int, Entry]]) -> dict[str, list[Entry]]:
    """A plan's own entries out of those that were read for all plans."""
    cut = {}
    for one in chosen.ranges:
        entries = found.get(one.conversation_id, {})
        cut[one.conversation_id] = [entries[seq] for seq in range(one.first, one.final + 1) if seq in entries]
    return cut

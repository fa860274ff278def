"""Entries read from the cache where it holds them, from the database where it doesn't; who may read what, always from the database.

The first transaction says what may be read, and reads what lies too far back for the cache. Then the cache is asked; a second
transaction reads what is missing, which is kept for the next. `RecentLog` keeps, by and by, what is stored in logs that were read
lately: keeping an entry costs the store more than storing it, and most are never read again. Losing anything of it costs a reading,
nothing else.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from itertools import chain

from sqlalchemy import Connection

from mesh.batching import Batcher
from mesh.cache import Cache
from mesh.patience import drain
from mesh.telemetry import Telemetry
from store import recent_entries, sync, sync_sql
from store.entries import Bounds, Page, Question, Range, bounds_of, page, read, span
from store.model import Advance, Draft, Entry, Moved, Outcome
from store.ports import Database, MessageLog
from store.recent_entries import Found, Readership, Tail
from store.sync_sql import Plans
from store.users import list_users

KEEP_SECONDS = 3600.0  # so long after its last entry a conversation is not recent any more
BATCHES = 1_000  # stored batches waiting to be kept; past it the newest is not, and is read from the database when asked for
TOGETHER = 16  # of those kept at once
READ_SECONDS = 60.0  # so long after a reading the next is expected
READ_LOGS = 20_000  # logs of which it is known when they were read
NAMES = 100_000  # ids of senders remembered: about 15 MB


class RecentHistory:
    """See `store.ports.History`.

    Args:
        database: the truth.
        cache: where recent entries are kept.
        size: entries kept of each conversation.
        telemetry: counts the ranges that were found there.

    Attributes:
        readership: which logs were read lately.
    """

    def __init__(self, database: Database, cache: Cache, size: int, telemetry: Telemetry) -> None:
        self._database = database
        self._cache = cache
        self._size = size
        self.readership = Readership(READ_SECONDS, READ_LOGS)
        description = "Ranges of recent entries that were read, by where they were found"
        self._ranges = telemetry.counter("store_recent_ranges_total", description)

    async def list_entries(self, question: Question) -> Page:
        """See `store.ports.History`."""
        bounds, tail, found = await self._database.read(partial(self._looked_up, question=question))
        return page(question, bounds, await self._entries([tail]) if found is None else found)

    async def sync_devices(self, questions: Sequence[sync.Question]) -> list[sync.SyncPage]:
        """See `store.ports.History`."""
        plans, recent, older = await self._database.read(partial(self._planned, questions=questions))
        return sync_sql.pages(plans, [*older, *await self._entries(recent)])

    def _looked_up(self, connection: Connection, question: Question) -> tuple[Bounds, Tail, list[Entry] | None]:
        """What may be read, and the entries unless the cache is to be asked for them."""
        bounds = bounds_of(connection, question)
        tail = Tail(span(question, bounds), bounds.last_seq, bounds.last_entry_at)
        return bounds, tail, None if self._recent(tail) else read(connection, [tail.range])

    def _planned(self, connection: Connection, questions: Sequence[sync.Question]) -> tuple[Plans, list[Tail], list[Entry]]:
        """What is wanted, what of it the cache is to be asked for, and the other entries."""
        plans = sync_sql.plan_devices(connection, questions)
        stretches = chain.from_iterable(chosen.stretches for chosen in plans.plans)
        tails = {one.range: Tail(one.range, one.standing.last_seq, one.standing.last_entry_at) for one in stretches}
        recent = [tail for tail in tails.values() if self._recent(tail)]
        held = {tail.range for tail in recent}
        return plans, recent, read(connection, [one for one in plans.ranges if one not in held])

    def _recent(self, tail: Tail) -> bool:
        """Whether the cache may hold it."""
        return self._cache.up and tail.range.first <= tail.range.final and len(tail.seqs) <= self._size

    async def _entries(self, tails: Sequence[Tail]) -> list[Entry]:
        if not tails:
            return []
        now = time.monotonic()
        for tail in tails:
            self.readership.read(tail.range.conversation_id, now)
        found = await self._found(tails)
        gaps = [self._gap(tail, one) for tail, one in zip(tails, found, strict=True)]
        stored = await self._stored(gaps)
        for tail, one in zip(tails, found, strict=True):
            one.update(stored.get(tail.range.conversation_id, {}))
        return [entry for tail, one in zip(tails, found, strict=True) for entry in recent_entries.chosen(tail, one)]

    async def _found(self, tails: Sequence[Tail]) -> list[Found]:
        wanted = [(tail.range.conversation_id, [seq % self._size for seq in tail.seqs]) for tail in tails]
        kept = await self._cache.recent.get(wanted)
        if kept is None:
            return [{} for _ in tails]
        return [recent_entries.believed(tail, one) for tail, one in zip(tails, kept, strict=True)]

    def _gap(self, tail: Tail, found: Found) -> Range:
        """What the database is to be asked for: never more than if there were no cache."""
        gap = recent_entries.missing(tail, found)
        outcome = "hit" if gap.final < gap.first else "partial"
        if gap.final - gap.first >= tail.range.final - tail.range.first:
            gap, outcome = tail.range, "missed"
            found.clear()
        self._ranges.add(1, {"outcome": outcome})
        return gap

    async def _stored(self, gaps: Sequence[Range]) -> dict[str, Found]:
        """Entries from the database, which are kept for the next who asks."""
        wanted = [gap for gap in gaps if gap.first <= gap.final]
        entries = await self._database.read(partial(read, ranges=wanted)) if wanted else []
        if entries:
            self._cache.recent.put(recent_entries.slots(entries, self._size), KEEP_SECONDS)
        by_log: dict[str, Found] = {}
        for entry in entries:
            by_log.setdefault(entry.conversation_id, {})[entry.seq] = entry
        return by_log


class RecentLog:
    """The message log, whose entries are kept in the cache once they are stored; see `store.ports.MessageLog`.

    Args:
        log: the log itself.
        database: names the senders.
        cache: where entries are kept.
        size: entries kept of each conversation.
        readership: which logs' entries are worth it.
    """

    def __init__(self, log: MessageLog, database: Database, cache: Cache, size: int, readership: Readership) -> None:
        self._message_log = log
        self._database = database
        self._cache = cache
        self._size = size
        self._readership = readership
        self._names: OrderedDict[int, str] = OrderedDict()  # the one unused for longest first
        self._queue: Batcher[list[tuple[Draft, Outcome]]] = Batcher(BATCHES, TOGETHER)

    async def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """See `store.ports.MessageLog`."""
        outcomes = await self._message_log.append(drafts)
        if self._cache.up:
            self._offer(drafts, outcomes)
        return outcomes

    def _offer(self, drafts: Sequence[Draft], outcomes: Sequence[Outcome]) -> None:
        lately, now = self._readership.lately, time.monotonic()
        pairs = zip(drafts, outcomes, strict=True)
        worth = [(draft, one) for draft, one in pairs if one.seq and not one.duplicate and lately(draft.conversation_id, now)]
        if worth:
            self._queue.offer(worth)

    async def advance(self, advances: Sequence[Advance]) -> list[Moved]:
        """See `store.ports.MessageLog`."""
        return await self._message_log.advance(advances)

    async def run(self) -> None:
        """Keep what was stored, until cancelled."""
        await drain(self._queue, self._keep)

    async def _keep(self, batches: list[list[tuple[Draft, Outcome]]]) -> None:
        stored = [one for batch in batches for one in batch]
        await self._learn_names({draft.sender for draft, _ in stored})
        entries = [_entry(draft, one, self._names[draft.sender]) for draft, one in stored if draft.sender in self._names]
        self._cache.recent.put(recent_entries.slots(entries, self._size), KEEP_SECONDS)

    async def _learn_names(self, ordinals: set[int]) -> None:
        """Know the ids of all these, and forget those unused for longest."""
        for ordinal in ordinals & self._names.keys():
            self._names.move_to_end(ordinal)
        unknown = ordinals - self._names.keys()
        if unknown:
            users = await self._database.read(partial(list_users, ordinals=unknown))
            self._names.update({ordinal: user.user_id for ordinal, user in users.items()})
        while len(self._names) > NAMES:
            self._names.popitem(last=False)


def _entry(draft: Draft, outcome: Outcome, sender_id: str) -> Entry:
    place = (draft.conversation_id, outcome.seq, draft.kind, sender_id, draft.client_msg_id)
    return Entry(*place, draft.target_seq, outcome.stored_at, draft.body)

"""Nothing stored stays unsaid: notes what has been fanned out, and fans out what a router left behind when it crashed.

Entries are read from the log as the mesh itself and pushed to whoever may see them now; clients drop what they have.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable

import structlog

from mesh import batching, errors, patience
from router import frames
from router.directory import Directory, chunks
from router.dispatch import DispatchMarks
from router.fan_out import FanOut
from router.link import EdgeLink
from router.peers import Peers
from router.ports import MessageLog
from tidings.common.v1.conversation_pb2 import Position
from tidings.store.v1.message_log_pb2 import (
    ListEntriesRequest,
    ListEntriesResponse,
    ListUndispatchedRequest,
    MarkDispatchedRequest,
)

_CONVERSATIONS = 200  # in one page of the search
_ENTRIES = 200  # in one page of a log
_AGAIN = 10_000  # entries waiting to be fanned out again; when full, left to the search
_log = structlog.get_logger(__name__)


class Redispatch:
    """Keeps `dispatched_seq`, and the promise behind it.

    Args:
        period: seconds between two searches.
        age: seconds an entry must be old to count as left behind.
    """

    def __init__(
        self,
        log: MessageLog,
        directory: Directory,
        fan_out: FanOut,
        marks: DispatchMarks[EdgeLink],
        peers: Peers,
        period: float,
        age: float,
    ) -> None:
        self._log = log
        self._directory = directory
        self._fan_out = fan_out
        self._marks = marks
        self._peers = peers
        self._period = period
        self._age = age
        self._again: batching.Batcher[tuple[str, int]] = batching.Batcher(_AGAIN, 500)

    def again(self, conversation_id: str, seq: int) -> None:
        """Fan out one entry from the log."""
        self._again.offer((conversation_id, seq))

    async def repeat(self) -> None:
        """Fan out entries named to `again`, until cancelled."""
        await patience.drain(self._again, self._repeat)

    async def note(self, links: Iterable[EdgeLink], every: float) -> None:
        """Note what has been fanned out to all links there are, until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self._note(links)

    async def note_all(self, links: Iterable[EdgeLink]) -> None:
        """Note what may be noted before this router stops; what may not, another fans out again."""
        await self._note(links)
        await self._note(links)

    async def _note(self, links: Iterable[EdgeLink]) -> None:
        here = list(links)
        done = self._marks.turn({link: link.outbox.horizon for link in here}, {link: link.outbox.settled for link in here})
        for part in chunks(done.items()):
            positions = [Position(conversation_id=conversation_id, seq=seq) for conversation_id, seq in part]
            try:
                await self._log.mark_dispatched(MarkDispatchedRequest(positions=positions))
            except errors.TidingsError:
                self._marks.put_back(dict(part))

    async def search(self) -> None:
        """Look for entries left behind: whenever the set of routers or links first settles or changes, and from time to time."""
        while True:
            self._peers.changed.clear()
            await asyncio.sleep(self._age)  # what the others left has this age by then
            try:
                await self._search_once()
            except errors.TidingsError as error:
                _log.warning("search for undispatched entries failed", reason=error.reason, error=error.message)
            except Exception:
                _log.exception("search for undispatched entries failed")
            try:
                await asyncio.wait_for(self._peers.changed.wait(), self._period)
            except TimeoutError:
                continue

    async def _search_once(self) -> None:
        token = ""
        while True:
            request = ListUndispatchedRequest(page_size=_CONVERSATIONS, page_token=token, minimum_age_ms=int(self._age * 1000))
            found = await self._log.list_undispatched(request)
            mine = [one for one in found.positions if self._peers.owns(one.conversation_id)]
            if mine:
                _log.info("fanning out what was left behind", conversations=len(mine))
                await self._directory.load({one.conversation_id for one in mine})
            for position in mine:
                await self._dispatch(position)
            token = found.next_page_token
            if not token:
                return

    async def _dispatch(self, dispatched: Position) -> None:
        """Fan out a conversation's entries after a position."""
        after = dispatched.seq
        while True:
            page = await self._fan_out_page(dispatched.conversation_id, after, _ENTRIES)
            if not page.entries:
                self._marks.fanned_out(dispatched.conversation_id, page.last_seq)  # the rest is not kept any more
            if not page.entries or not page.has_more:
                return
            after = page.entries[-1].seq

    async def _repeat(self, batch: list[tuple[str, int]]) -> None:
        wanted: dict[str, set[int]] = defaultdict(set)
        for conversation_id, seq in batch:
            wanted[conversation_id].add(seq)
        await self._directory.missing(wanted)
        for conversation_id, seqs in wanted.items():
            for seq in sorted(seqs):
                try:
                    await self._fan_out_page(conversation_id, seq - 1, 1)
                except errors.TidingsError as error:
                    _log.warning("entry not fanned out again", conversation=conversation_id, seq=seq, reason=error.reason)

    async def _fan_out_page(self, conversation_id: str, after: int, size: int) -> ListEntriesResponse:
        request = ListEntriesRequest(conversation_id=conversation_id, after_seq=after, page_size=size)
        page = await self._log.list_entries(request)
        conversation = self._directory.get(conversation_id)
        if conversation is not None and page.entries and page.entries[-1].seq > conversation.last_seq:
            await self._directory.load([conversation_id])  # who is held may have left before the newest of these was written
            conversation = self._directory.get(conversation_id)
        if conversation is None:
            return page
        for entry in page.entries:
            self._fan_out.entry(conversation, entry.seq, frames.log_entry(entry))
        return page

"""Nothing stored stays unsaid: notes what has been fanned out, and fans out what a router left behind when it crashed.

Entries come from the log (`log_fan_out`) to whoever may see them now; clients drop what they have. One that can't be told is put
aside: it holds up neither the search for others nor comes again for ever.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable

import structlog

from mesh import batching, errors, patience
from router.dead_letters import may_pass
from router.directory import Directory, chunks
from router.dispatch import DispatchMarks
from router.link import EdgeLink
from router.log_fan_out import LogFanOut
from router.peers import Peers
from router.ports import MessageLog
from tidings.common.v1.conversation_pb2 import Position
from tidings.store.v1.message_log_pb2 import ListUndispatchedRequest, MarkDispatchedRequest

_CONVERSATIONS = 200  # in one page of the search
_AGAIN = 10_000  # entries waiting to be fanned out again; when full, left to the search
_log = structlog.get_logger(__name__)


class Redispatch:
    """Keeps `dispatched_seq`, and the promise behind it.

    Args:
        entries: fans out, and tells `marks` how far.
        period: seconds between two searches.
        age: seconds an entry must be old to count as left behind.
    """

    def __init__(
        self,
        log: MessageLog,
        directory: Directory,
        entries: LogFanOut,
        marks: DispatchMarks[EdgeLink],
        peers: Peers,
        period: float,
        age: float,
    ) -> None:
        self._log = log
        self._directory = directory
        self._entries = entries
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
                await self._refresh({one.conversation_id for one in mine})
            for position in mine:
                await self._entries.run(position.conversation_id, position.seq)
            token = found.next_page_token
            if not token:
                return

    async def _refresh(self, conversation_ids: set[str]) -> None:
        """Learn who is in these now. One that can't be learnt must not fail the others: it is looked at when its turn comes."""
        try:
            await self._directory.load(conversation_ids)
        except errors.TidingsError as error:
            if may_pass(error):
                raise
            _log.warning("memberships not loaded together", count=len(conversation_ids), reason=error.reason, error=error.message)

    async def _repeat(self, batch: list[tuple[str, int]]) -> None:
        wanted: dict[str, set[int]] = defaultdict(set)
        for conversation_id, seq in batch:
            wanted[conversation_id].add(seq)
        for conversation_id, seqs in wanted.items():
            for seq in sorted(seqs):
                try:
                    await self._entries.run(conversation_id, seq - 1, seq)
                except errors.TidingsError as error:
                    _log.warning("entry not fanned out again", conversation=conversation_id, seq=seq, reason=error.reason)

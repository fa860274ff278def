"""Fanning out from the log: runs of entries of one conversation, read as the mesh itself and pushed to whoever may see them now.

Rules: an entry that can't be told holds up neither those after it nor other conversations: it is put aside as a dead letter, and
only then passed over. What fails for a passing reason isn't done, and nothing is passed over.
"""

import structlog

from mesh import errors
from router import frames
from router.dead_letters import DeadLetters, insist, may_pass
from router.directory import Directory
from router.dispatch import DispatchMarks
from router.fan_out import FanOut
from router.link import EdgeLink
from router.membership import Membership
from router.ports import MessageLog
from tidings.store.v1.message_log_pb2 import ListEntriesRequest, ListEntriesResponse

END = 2**63 - 1  # the seq after all others
_ENTRIES = 200  # in one page of a log
_MISSES = 5  # entries in a row that can't be told, after which the rest of the run is put aside with them
_log = structlog.get_logger(__name__)


class LogFanOut:
    """See above.

    Args:
        marks: told what has been fanned out, or put aside.
        letters: where the rest goes.
    """

    def __init__(
        self, log: MessageLog, directory: Directory, fan_out: FanOut, marks: DispatchMarks[EdgeLink], letters: DeadLetters
    ) -> None:
        self._log = log
        self._directory = directory
        self._fan_out = fan_out
        self._marks = marks
        self._letters = letters

    async def run(self, conversation_id: str, after: int, until: int = END) -> bool:
        """Fan out a conversation's entries after one seq, up to another.

        Returns:
            Whether all of them were told or put aside; else the letters are not to be had.

        Raises:
            TidingsError: a reason that may pass, while the rest is still to be done.
        """
        try:
            await insist(lambda: self._members(conversation_id))
        except Exception as error:
            if may_pass(error):
                raise
            return await self._put_aside(conversation_id, after, until, error)
        return await self._run(conversation_id, after, until)

    async def _run(self, conversation_id: str, after: int, until: int) -> bool:
        size, misses = _ENTRIES, 0
        while after < until:
            size = min(size, until - after)
            try:
                page = await self._attempt(conversation_id, after, size)
            except Exception as error:
                if may_pass(error):
                    raise
                if size > 1:  # a smaller page shows which entry it is
                    size //= 2
                    continue
                misses += 1
                upto = after + 1 if misses < _MISSES else self._last(conversation_id, after, until)
                if not await self._put_aside(conversation_id, after, upto, error):
                    return False
                after = upto
                continue
            size, misses = min(2 * size, _ENTRIES), 0
            if not page.entries:
                self._marks.fanned_out(conversation_id, min(page.last_seq, until))  # the rest is not kept any more
            if not page.entries or not page.has_more:
                break
            after = page.entries[-1].seq
        return True

    def _last(self, conversation_id: str, after: int, until: int) -> int:
        """The last entry that is known of."""
        held = self._directory.get(conversation_id)
        return min(until, held.last_seq) if held is not None and held.last_seq > after else until

    async def _put_aside(self, conversation_id: str, after: int, upto: int, error: Exception) -> bool:
        _log.error("entries can't be fanned out", conversation=conversation_id, after=after, upto=upto, error=repr(error))
        if not await self._letters.put_dispatch(conversation_id, after + 1, 0 if upto == END else upto, error):
            return False
        self._marks.fanned_out(conversation_id, upto)
        return True

    async def _attempt(self, conversation_id: str, after: int, size: int) -> ListEntriesResponse:
        if size > 1:
            return await self._page(conversation_id, after, size)
        return await insist(lambda: self._page(conversation_id, after, 1))

    async def _page(self, conversation_id: str, after: int, size: int) -> ListEntriesResponse:
        request = ListEntriesRequest(conversation_id=conversation_id, after_seq=after, page_size=size)
        page = await self._log.list_entries(request)
        if page.entries:
            conversation = await self._members(conversation_id, page.entries[-1].seq)
            for entry in page.entries:
                self._fan_out.entry(conversation, entry.seq, frames.log_entry(entry, conversation.acknowledge_within_ms))
        return page

    async def _members(self, conversation_id: str, seq: int = 0) -> Membership:
        """Who is in it: of those who are held, some may have left before the newest of the entries was written."""
        held = self._directory.get(conversation_id)
        if held is None or held.last_seq < seq:
            await self._directory.load([conversation_id])
            held = self._directory.get(conversation_id)
        if held is None:
            raise errors.invalid_chat_id(conversation_id)
        return held

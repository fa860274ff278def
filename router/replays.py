"""Telling entries that were put aside and are to be told after all: takes up the dead letters that an operator wants replayed.

Rules: a letter goes only after every link that was up when its entries were queued has acted on them, or is gone; a router that
dies before leaves it to the next. One that fails again is put aside again, and stays. How far the conversation has been fanned out
isn't touched: what others say of that can't undo a replay.
"""

import asyncio
from collections.abc import Iterable

import structlog

from mesh import errors
from mesh.times import microseconds, timestamp
from router.dispatch import DispatchMarks
from router.link import EdgeLink
from router.log_fan_out import END, LogFanOut
from router.peers import Peers
from router.ports import DeadLetterStore
from tidings.store.v1.dead_letter_pb2 import (
    DEAD_LETTER_KIND_DISPATCH,
    DeadLetter,
    DiscardDeadLetterRequest,
    ListDeadLettersRequest,
)

_PAGE = 200  # letters taken up at once
_log = structlog.get_logger(__name__)


class Replays:
    """See above.

    Args:
        entries: fans out, without noting how far.
        period: seconds between two looks.
        capacity: letters told and not noted yet; past it one is told again, which loses nothing.
    """

    def __init__(self, store: DeadLetterStore, entries: LogFanOut, peers: Peers, period: float, capacity: int = 10_000) -> None:
        self._store = store
        self._entries = entries
        self._peers = peers
        self._period = period
        self._told: DispatchMarks[EdgeLink] = DispatchMarks(capacity)  # letter id -> when it was put, as a seq

    async def run(self) -> None:
        """Look for letters and tell their entries until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            try:
                await self._take_up()
            except errors.TidingsError as error:
                _log.debug("replays wait", reason=error.reason, error=error.message)
            except Exception:
                _log.exception("search for replays failed")

    async def note(self, links: Iterable[EdgeLink], every: float) -> None:
        """Let letters go whose entries have been told, until cancelled."""
        while True:
            await asyncio.sleep(every)
            here = list(links)
            done = self._told.turn({link: link.outbox.horizon for link in here}, {link: link.outbox.settled for link in here})
            for dead_letter_id, put_at in done.items():
                await self._discard(dead_letter_id, put_at)

    async def _take_up(self) -> None:
        request = ListDeadLettersRequest(kind=DEAD_LETTER_KIND_DISPATCH, replaying=True, page_size=_PAGE)
        while True:
            found = await self._store.list_dead_letters(request)
            for letter in found.dead_letters:
                if self._peers.owns(letter.subject):
                    await self._replay(letter)
            request.page_token = found.next_page_token
            if not found.next_page_token:
                return

    async def _replay(self, letter: DeadLetter) -> None:
        _log.info("telling again what was put aside", dead_letter=letter.dead_letter_id, conversation=letter.subject)
        if await self._entries.run(letter.subject, letter.from_seq - 1, letter.to_seq or END):
            self._told.fanned_out(letter.dead_letter_id, microseconds(letter.update_time))

    async def _discard(self, dead_letter_id: str, put_at: int) -> None:
        """Unless it was put again meanwhile."""
        request = DiscardDeadLetterRequest(dead_letter_id=dead_letter_id, update_time=timestamp(put_at))
        try:
            await self._store.discard_dead_letter(request)
        except errors.TidingsError as error:
            _log.warning("told, but not let go: it is told once more", dead_letter=dead_letter_id, reason=error.reason)

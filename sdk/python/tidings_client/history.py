"""A conversation's past: what is kept here, with its holes filled from the server's log. Messages come as they are now."""

import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from itertools import count

from tidings.client.v1 import frames_pb2 as pb
from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.common.v1 import error_pb2
from tidings_client.errors import NotConnected, RequestFailed
from tidings_client.model import Message, Status, message_of
from tidings_client.state import Kept, State

PAGE = 100  # entries read or asked for at once
MAX_PAGES = 100  # of one call: past it, ask again from where the answer ended
ENDLESS = 2**62  # above every seq

Ask = Callable[[ClientFrame], Awaitable[ServerFrame]]


class History:
    """Reads pages.

    Args:
        ask: sends a request and gives its answer.
        status: how far one's own message has come; None for somebody else's.
        page_limit: how many entries the server gives at once.
    """

    def __init__(self, state: State, ask: Ask, status: Callable[[Message], Status | None], page_limit: Callable[[], int]) -> None:
        self._page_limit = page_limit
        self._state = state
        self._ask = ask
        self._status = status
        self._floors: dict[str, int] = {}  # lowest seq the server still has for us, where known

    async def read(self, conversation_id: str, before: int | None, after: int | None, limit: int, *, raw: bool) -> list[Message]:
        """See `Client.history`."""
        upwards = after is not None and before is None
        low, high = after or 0, ENDLESS if before is None else before
        found: list[Message] = []
        bound = low if upwards else self._top(conversation_id, high)
        for _ in range(MAX_PAGES):
            page = await self._page(conversation_id, bound, upwards=upwards)
            inside = [kept for kept in page if low < kept.entry.seq < high and (raw or kept.shown)]
            found += [self._message(kept, raw=raw) for kept in inside]
            if not page or len(found) >= limit or page[-1].entry.seq <= low:
                break
            bound = page[-1].entry.seq
        found = found[: max(0, limit)]
        return found if upwards else found[::-1]

    def _top(self, conversation_id: str, high: int) -> int:
        """Where to begin downwards: at most behind the last entry this device has come to."""
        position = self._state.position(conversation_id)
        return high if position is None else min(high, position + 1)

    async def _page(self, conversation_id: str, bound: int, *, upwards: bool) -> list[Kept]:
        """The entries next to `bound`, nearest first, without a hole among them unless offline."""
        rows = self._rows(conversation_id, bound, upwards)
        run = _dense(rows, bound, upwards)
        if run or self._at_end(conversation_id, bound, upwards):
            return run
        try:
            page = await self._fetch(conversation_id, bound, upwards)
        except NotConnected:
            return rows
        except RequestFailed as error:
            if rows or error.code == error_pb2.ERROR_CODE_INVALID_CHAT_ID:  # no longer ours to fetch; or nothing said yet
                return rows
            raise
        self._floors[conversation_id] = page.first_available_seq
        if not page.entries:
            return []
        self._state.keep_history(page.entries)
        edge = page.entries[0].seq - 1 if upwards else page.entries[-1].seq + 1
        return _dense(self._rows(conversation_id, edge, upwards), edge, upwards)

    def _rows(self, conversation_id: str, bound: int, upwards: bool) -> list[Kept]:
        read = self._state.after if upwards else self._state.before
        return read(conversation_id, bound, PAGE)

    def _at_end(self, conversation_id: str, bound: int, upwards: bool) -> bool:
        if not upwards:
            return bound <= max(1, self._floors.get(conversation_id, 1))
        position = self._state.position(conversation_id)
        return position is not None and bound >= position

    async def _fetch(self, conversation_id: str, bound: int, upwards: bool) -> pb.MessagePage:
        ask = pb.FetchMessages(conversation_id=conversation_id, limit=min(PAGE, self._page_limit()))
        if upwards:
            ask.after_seq = bound
        elif bound < ENDLESS:
            ask.before_seq = bound
        return (await self._ask(ClientFrame(fetch_messages=ask))).message_page

    def _message(self, kept: Kept, *, raw: bool) -> Message:
        message = message_of(kept.entry)
        if kept.amended_by and not raw:
            deleted = kept.content is None
            message = dataclasses.replace(message, content=kept.content, edited=not deleted, deleted=deleted)
        return dataclasses.replace(message, status=self._status(message))


def _dense(rows: Iterable[Kept], bound: int, upwards: bool) -> list[Kept]:
    """The rows that follow `bound` without a hole."""
    step = 1 if upwards else -1
    run = []
    for kept, seq in zip(rows, count(bound + step, step), strict=False):
        if kept.entry.seq != seq:
            break
        run.append(kept)
    return run

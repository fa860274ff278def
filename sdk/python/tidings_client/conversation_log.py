"""One conversation's log as it comes in: in order, once each, without holes.

Rules: an entry is emitted when all before it were. One that skips ahead is held (bounded) and `missing` says what to fetch. What
the server can't or won't give is jumped over, never silently: a `Gap` is emitted in its place. Pure: time is passed in, and it
must not know sockets, files or other conversations.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tidings.client.v1.frames_pb2 import MessagePage
from tidings.common.v1.conversation_pb2 import LogEntry

MAX_HELD = 1_000  # entries held while a gap is fetched; what is past it is fetched afterwards
FETCH_TIMEOUT = 10.0  # seconds; an answer takes milliseconds, so by then it was lost
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between fetches that brought nothing


@dataclass(frozen=True, slots=True)
class Gap:
    """Seqs that were jumped over, first and last included; those from `first_available_seq` on can still be fetched."""

    first_seq: int
    last_seq: int
    first_available_seq: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask for `limit` entries after `after_seq`."""

    after_seq: int
    limit: int


Emitted = LogEntry | Gap


class ConversationLog:
    """The log of one conversation.

    Args:
        position: up to where this device has kept it; None when it knows nothing of it.
        history_limit: how far before the first entry heard of an unknown log is read.
        max_held: most entries held; when full the highest are dropped and fetched later.
    """

    def __init__(self, position: int | None, history_limit: int, max_held: int = MAX_HELD) -> None:
        self.position = position
        self._history_limit = history_limit
        self._max_held = max_held
        self.reset()

    def reset(self) -> None:
        """The connection ended: forget what isn't kept; the server sends again what wasn't acknowledged."""
        self._held: dict[int, LogEntry] = {}
        self._heard = 0  # highest seq known to exist
        self._asked: Fetch | None = None
        self._fetch_at = 0.0  # when the outstanding fetch is given up, or the next may go
        self._wait = _FIRST_WAIT

    def on_entry(self, entry: LogEntry) -> list[Emitted]:
        """A live entry, or one's own that was just stored."""
        if not self._held and self.position is not None and entry.seq == self.position + 1:
            self.position = entry.seq
            return [entry]
        self._hold(entry)
        return self._release()

    def on_page(self, page: MessagePage) -> list[Emitted]:
        """What the server sends by itself after connecting."""
        before_page = page.entries[0].seq - 1 if page.entries else page.first_available_seq - 1
        emitted: list[Emitted] = []
        if self.position is None and page.entries:
            emitted = self._begin(before_page, page.first_available_seq, announce=page.truncated)
        elif page.truncated:
            emitted = self._jump(before_page, page.first_available_seq)
        return emitted + self._take_in(page.entries, page.first_available_seq)

    def on_fetched(self, page: MessagePage, now: float) -> list[Emitted]:
        """The answer to a `Fetch`."""
        asked, self._asked = self._asked, None
        before = self.position
        emitted: list[Emitted] = []
        if self.position is None and asked is not None:
            left_out = asked.after_seq >= max(1, page.first_available_seq)
            start = max(asked.after_seq, page.first_available_seq - 1)
            emitted = self._begin(start, page.first_available_seq, announce=left_out)
        emitted += self._take_in(page.entries, page.first_available_seq)
        self._pace(self.position != before, now)
        return emitted

    def on_fetch_failed(self, now: float, retry_after: float | None) -> None:
        """The fetch was refused; None means for good: what is held will never be wanted."""
        self._asked = None
        self._fetch_at = now + (retry_after or 0.0)
        if retry_after is None:
            self._held.clear()
            self._heard = self.position or 0

    def missing(self, now: float, page_limit: int) -> Fetch | None:
        """What to fetch now, once; None when nothing is missing, or an answer is awaited, or it isn't time yet."""
        if now < self._fetch_at:
            return None
        target = min(self._held) - 1 if self._held else self._heard
        after = self.position if self.position is not None else max(0, target - self._history_limit)
        if target <= after:
            return None
        self._asked = Fetch(after, min(target - after, page_limit))
        self._fetch_at = now + FETCH_TIMEOUT
        return self._asked

    def deadline(self) -> float | None:
        """When to ask `missing` again; None when nothing is missing."""
        behind = self._held or self._heard > (self.position or 0)
        return self._fetch_at if behind else None

    def _hold(self, entry: LogEntry) -> None:
        if entry.seq <= (self.position or 0):
            return  # had already
        self._heard = max(self._heard, entry.seq)
        self._held[entry.seq] = entry
        if len(self._held) > self._max_held and entry.seq != (self.position or 0) + 1:
            del self._held[max(self._held)]

    def _release(self) -> list[Emitted]:
        if self.position is None and 1 in self._held:
            self.position = 0
        emitted: list[Emitted] = []
        while self.position is not None and (entry := self._held.pop(self.position + 1, None)) is not None:
            emitted.append(entry)
            self.position += 1
        return emitted

    def _take_in(self, entries: Iterable[LogEntry], first_available_seq: int) -> list[Emitted]:
        """Entries of a page, after stepping over what nobody can have any more."""
        emitted = self._jump(first_available_seq - 1, first_available_seq) if self.position is not None else []
        for entry in entries:
            self._hold(entry)
            emitted += self._release()
        return emitted

    def _begin(self, position: int, first_available_seq: int, *, announce: bool) -> list[Emitted]:
        self.position = position
        held, self._held = self._held, {seq: entry for seq, entry in self._held.items() if seq > position}
        early = min((seq for seq in held if seq <= position), default=None)
        if early is not None:  # our own, stored before what the page begins with
            self.position = early - 1
            self._held = held
        first = first_available_seq if 0 < first_available_seq <= self.position else 1
        announced: list[Emitted] = [Gap(first, self.position, first_available_seq)] if announce and self.position >= first else []
        return announced + self._release()

    def _jump(self, target: int, first_available_seq: int) -> list[Emitted]:
        """Go forward to `target`, emitting held entries on the way and a `Gap` for each hole."""
        emitted = self._release()
        while self.position is not None and self.position < target:
            stop = min((seq for seq in self._held if seq <= target), default=target + 1) - 1
            if stop > self.position:
                emitted.append(Gap(self.position + 1, stop, first_available_seq))
                self.position = stop
            emitted += self._release()
        return emitted

    def _pace(self, progress: bool, now: float) -> None:
        self._wait = _FIRST_WAIT if progress else min(self._wait * 2, _LONGEST_WAIT)
        self._fetch_at = now if progress else now + self._wait

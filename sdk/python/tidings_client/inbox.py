"""Everything that comes in from conversations' logs, over all of them: which entries may be kept now, what to fetch, what to
acknowledge. Pure: time is passed in; positions come from the state through a function.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tidings.client.v1.frames_pb2 import MessagePage
from tidings.common.v1.conversation_pb2 import LogEntry
from tidings_client.conversation_log import ConversationLog, Emitted, Fetch, Gap
from tidings_client.model import HistoryGapEvent

DEFAULT_PAGE = 100  # entries of one fetch until Welcome says how many are allowed
DEFAULT_HISTORY = 1_000  # entries; what the contract names as the server's default


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What may be kept now: entries in order, how far each conversation has come, and the holes that were jumped over."""

    entries: list[LogEntry]
    positions: dict[str, int]
    gaps: list[HistoryGapEvent]


class Inbox:
    """The logs of one device.

    Args:
        kept_position: gives a conversation's kept position, None when there is none.
        history_limit: how much of an unknown conversation's past is read; 0 for the default.
    """

    def __init__(self, kept_position: Callable[[str], int | None], history_limit: int = 0) -> None:
        self._kept_position = kept_position
        self._history_limit = history_limit or DEFAULT_HISTORY
        self._logs: dict[str, ConversationLog] = {}
        self._behind: set[str] = set()  # conversations with something missing
        self._caught_up = False
        self._entries: list[LogEntry] = []
        self._positions: dict[str, int] = {}
        self._gaps: list[HistoryGapEvent] = []
        self.page_limit = DEFAULT_PAGE

    def position(self, conversation_id: str) -> int | None:
        """Up to where a conversation has come in."""
        return self._log(conversation_id).position

    def on_entry(self, entry: LogEntry) -> None:
        """A live entry, or one's own that was just stored."""
        self._emit(entry.conversation_id, self._log(entry.conversation_id).on_entry(entry))

    def on_page(self, page: MessagePage) -> None:
        """What the server sends by itself after connecting."""
        self._emit(page.conversation_id, self._log(page.conversation_id).on_page(page))

    def on_fetched(self, page: MessagePage, now: float) -> None:
        """The answer to a fetch of `fetches`."""
        self._emit(page.conversation_id, self._log(page.conversation_id).on_fetched(page, now))

    def on_fetch_failed(self, conversation_id: str, now: float, retry_after: float | None) -> None:
        """A fetch of `fetches` was refused; None means for good."""
        self._log(conversation_id).on_fetch_failed(now, retry_after)

    def on_caught_up(self) -> None:
        """The server has sent all by itself; from now on holes are asked for."""
        self._caught_up = True

    def on_disconnected(self) -> None:
        """What isn't kept comes again, if it is not what the application is to keep; so memory holds nothing more."""
        self._caught_up = False
        self._logs.clear()
        self._behind.clear()
        self._entries, self._positions, self._gaps = [], {}, []

    def take(self) -> Arrivals:
        """What may be kept since the last call."""
        arrivals = Arrivals(self._entries, self._positions, self._gaps)
        self._entries, self._positions, self._gaps = [], {}, []
        return arrivals

    def fetches(self, now: float, limit: int) -> list[tuple[str, Fetch]]:
        """What to ask the server for now, at most one range a conversation."""
        asked: list[tuple[str, Fetch]] = []
        if not self._caught_up:
            return asked
        for name in list(self._behind):
            if len(asked) >= limit:
                break
            fetch = self._logs[name].missing(now, self.page_limit)
            if fetch is not None:
                asked.append((name, fetch))
            elif self._logs[name].deadline() is None:
                self._behind.discard(name)
        return asked

    def deadline(self) -> float | None:
        """When to call `fetches` again; None when nothing is missing."""
        if not self._caught_up:
            return None
        times = (self._logs[name].deadline() for name in self._behind)
        return min((at for at in times if at is not None), default=None)

    def _log(self, conversation_id: str) -> ConversationLog:
        log = self._logs.get(conversation_id)
        if log is None:
            log = ConversationLog(self._kept_position(conversation_id), self._history_limit)
            self._logs[conversation_id] = log
        return log

    def _emit(self, conversation_id: str, emitted: Iterable[Emitted]) -> None:
        log = self._logs[conversation_id]
        for one in emitted:
            if isinstance(one, Gap):
                gap = HistoryGapEvent(conversation_id, one.first_seq, one.last_seq, one.first_available_seq)
                self._gaps.append(gap)
            else:
                self._entries.append(one)
        if log.position is not None:
            self._positions[conversation_id] = log.position
        if log.deadline() is not None:
            self._behind.add(conversation_id)

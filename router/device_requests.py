"""What devices ask of the log: their ordinal, what they missed, a page of history.

Rules: questions gather while a call is under way and go together; each queue is bounded and refuses with OVERLOADED when full, as
is an edge that doesn't read what it was answered, for answers are large. A question waits for a store only so long, then
UNAVAILABLE. One device's question never fails another's.
"""

import asyncio

import structlog

from mesh import batching, errors, patience
from router import frames
from router.directory import Ordinals
from router.link import EdgeLink
from router.ports import MessageLog
from tidings.client.v1.frames_pb2 import MessagePage
from tidings.common.v1.conversation_pb2 import Position
from tidings.common.v1.error_pb2 import ERROR_CODE_INTERNAL
from tidings.router.v1.link_pb2 import ClientEnvelope, SessionOpened, SyncPage
from tidings.store.v1.message_log_pb2 import ConversationRun, DeviceSync, DeviceSyncPage, ListEntriesRequest, SyncDevicesRequest

_QUEUE = 50_000  # devices waiting to sync: an edge's worth coming back at once
_DEVICES = 100  # devices in one call: the store bounds its answer, so that those behind come with their next pages
_FETCHES = 5_000  # pages of history asked for and not yet begun
_READERS = 8  # pages of history read at once
_DEFAULT_PAGE = 100  # entries, when a client names no limit
_log = structlog.get_logger(__name__)
_Asked = tuple[EdgeLink, ClientEnvelope]


class DeviceRequests:
    """open_session, sync_device and fetch_entries.

    Args:
        history_limit: entries for a conversation without a cursor, when the device names no number.
        page_entries: entries in one page of a sync.
        max_page_entries: entries in one page of history.
        within: seconds a question may wait for a store.
    """

    def __init__(
        self, log: MessageLog, ordinals: Ordinals, history_limit: int, page_entries: int, max_page_entries: int, within: float
    ) -> None:
        self._log = log
        self._ordinals = ordinals
        self._history_limit = history_limit
        self._page_entries = page_entries
        self._max_page_entries = max_page_entries
        self._within = within
        self._syncs: batching.Batcher[_Asked] = batching.Batcher(_QUEUE, _DEVICES)
        self._fetches: asyncio.Queue[_Asked] = asyncio.Queue(_FETCHES)

    async def open_session(self, link: EdgeLink, envelope: ClientEnvelope) -> None:
        """Tell a user's ordinal, when it is known."""

        def on_known(known: "asyncio.Future[int]") -> None:
            if known.cancelled():
                return
            error = known.exception()
            if error is None:
                link.answer_opened(envelope, SessionOpened(user_ordinal=known.result()))
            else:
                link.refuse(envelope, error if isinstance(error, errors.TidingsError) else errors.internal(str(error)))

        self._ordinals.ask(envelope.user_id).add_done_callback(on_known)

    async def sync_device(self, link: EdgeLink, envelope: ClientEnvelope) -> None:
        """Queue a device's question."""
        if not self._syncs.offer((link, envelope)):
            link.refuse(envelope, errors.overloaded(1.0, "the sync of devices"))

    async def fetch_entries(self, link: EdgeLink, envelope: ClientEnvelope) -> None:
        """Queue a question for history."""
        try:
            self._fetches.put_nowait((link, envelope))
        except asyncio.QueueFull:
            link.refuse(envelope, errors.overloaded(1.0, "history"))

    async def run_syncs(self) -> None:
        """Answer syncs until cancelled."""
        await patience.drain(self._syncs, self._sync_all)

    async def run_fetches(self) -> None:
        """Answer questions for history until cancelled."""
        await asyncio.gather(*(self._fetch_forever() for _ in range(_READERS)))

    async def _sync_all(self, batch: list[_Asked]) -> None:
        asked = [one for one in batch if _wanted(*one)]
        try:
            await self._sync(asked, self._page_entries)
        except Exception:
            _log.exception("devices could not be synced", devices=len(asked))
            for link, envelope in asked:
                link.refuse(envelope, errors.internal("an unforeseen fault"))

    async def _sync(self, batch: list[_Asked], page_entries: int) -> None:
        """Answer these; where the store refuses them as a whole, by halves, then (a page too large to carry) with smaller pages."""
        if not batch:
            return
        try:
            request = SyncDevicesRequest(devices=[self._device(envelope, page_entries) for _, envelope in batch])
            response = await patience.until_done(lambda: self._log.sync_devices(request), self._within)
        except errors.TidingsError as error:
            await self._sync_less(batch, page_entries, error)
            return
        for (link, envelope), page in zip(batch, response.pages, strict=True):
            link.answer_sync(envelope, _sync_page(page))

    async def _sync_less(self, batch: list[_Asked], page_entries: int, error: errors.TidingsError) -> None:
        if error.code not in patience.PASSING and len(batch) > 1:
            middle = len(batch) // 2
            await self._sync(batch[:middle], page_entries)
            await self._sync(batch[middle:], page_entries)
        elif error.code == ERROR_CODE_INTERNAL and page_entries > 1:
            await self._sync(batch, page_entries // 4 or 1)
        else:
            for link, envelope in batch:
                link.refuse(envelope, error)

    def _device(self, envelope: ClientEnvelope, page_entries: int) -> DeviceSync:
        asked = envelope.sync_device
        return DeviceSync(
            user_ordinal=envelope.user_ordinal,
            device_id=asked.device_id,
            positions=asked.positions,
            history_limit=asked.history_limit or self._history_limit,
            page_token=asked.page_token,
            page_size=page_entries,
        )

    async def _fetch_forever(self) -> None:
        while True:
            link, envelope = await self._fetches.get()
            if not _wanted(link, envelope):
                continue
            try:
                link.answer(envelope, await self._fetch(envelope))
            except errors.TidingsError as error:
                link.refuse(envelope, error)
            except Exception:
                _log.exception("history could not be read", conversation=envelope.fetch_entries.conversation_id)
                link.refuse(envelope, errors.internal("an unforeseen fault"))

    async def _fetch(self, envelope: ClientEnvelope) -> bytes:
        asked = envelope.fetch_entries
        request = ListEntriesRequest(
            conversation_id=asked.conversation_id,
            user_ordinal=envelope.user_ordinal,
            page_size=min(asked.limit or _DEFAULT_PAGE, self._max_page_entries),
        )
        match asked.WhichOneof("position"):
            case "after_seq":
                request.after_seq = asked.after_seq
            case "before_seq":
                request.before_seq = asked.before_seq
        found = await patience.until_done(lambda: self._log.list_entries(request), self._within)
        said = MessagePage(
            conversation_id=asked.conversation_id,
            entries=found.entries,
            last_seq=found.last_seq,
            first_available_seq=found.first_available_seq,
            has_more=found.has_more,
        )
        return frames.page(envelope.request_id, said)


def _wanted(link: EdgeLink, envelope: ClientEnvelope) -> bool:
    """Whether to look for an answer; refuses it to an edge that has too many."""
    if link.crowded and not link.gone:
        link.refuse(envelope, errors.overloaded(1.0, "the link to this edge"))
    return not (link.gone or link.crowded)


def _sync_page(page: DeviceSyncPage) -> SyncPage:
    return SyncPage(
        frames=[frames.page(0, _message_page(run)) for run in page.runs],
        positions=[Position(conversation_id=run.conversation_id, seq=run.entries[-1].seq) for run in page.runs if run.entries],
        next_page_token=page.next_page_token,
    )


def _message_page(run: ConversationRun) -> MessagePage:
    return MessagePage(
        conversation_id=run.conversation_id,
        entries=run.entries,
        last_seq=run.last_seq,
        first_available_seq=run.first_available_seq,
        truncated=run.truncated,
    )

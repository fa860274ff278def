"""One user of the generator: decodes what comes, keeps the accounts, acknowledges as the SDK does.

Acknowledgements name the highest seq per conversation: a lone one goes at once, then at most one frame in `ACKNOWLEDGE_SECONDS`.
"""

import asyncio
import time
from collections.abc import Callable

from bench import frames
from bench.ledger import Ledger
from bench.wire import WireConnection, connect
from tidings.client.v1.frames_pb2 import ServerFrame
from tidings.common.v1.conversation_pb2 import LogEntry

ACKNOWLEDGE_SECONDS = 0.020  # as tidings_client does


class BenchUser:
    """A connected user.

    Args:
        index: its number in the run.
        user_id: its id.
        ledger: the accounts of the run.
    """

    def __init__(self, index: int, user_id: str, ledger: Ledger) -> None:
        self.index = index
        self.user_id = user_id
        self.close_code = 0
        self.errors: dict[int, int] = {}  # code -> how often
        self.acknowledged = 0
        self._ledger = ledger
        self._marks: dict[str, int] = {}
        self._flush: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._page_entries = 100
        self._connection: WireConnection | None = None
        self._caught_up = asyncio.Event()
        self._page: asyncio.Future[list[LogEntry]] | None = None
        self._loop = asyncio.get_running_loop()
        self._handlers: dict[str, Callable[[ServerFrame], None]] = {
            "new_message": self._on_new_message,
            "welcome": self._on_welcome,
            "message_stored": self._on_stored,
            "receipt": self._on_receipt,
            "message_page": self._on_page,
            "caught_up": lambda frame: self._caught_up.set(),
            "error": self._on_error,
        }

    async def open(self, url: str, timeout: float) -> None:
        """Connect and wait until caught up.

        Raises:
            TimeoutError: the server did not get that far.
        """
        async with asyncio.timeout(timeout):
            self._connection = await connect(url, self._on_frame, self._on_close)
            self._connection.send(frames.hello("bench"))
            await self._caught_up.wait()

    def send(self, frame: bytes) -> None:
        """Send a frame made by `bench.frames`."""
        if self._connection is not None:
            self._connection.send(frame)

    def close(self) -> None:
        """Leave."""
        if self._flush is not None:
            self._flush.cancel()
        if self._connection is not None:
            self._connection.close()

    async def page_after(self, conversation: str, seq: int, timeout: float) -> list[LogEntry]:
        """The page of history after `seq`, as long as the server allows; one request at a time."""
        self._page = self._loop.create_future()
        self.send(frames.fetch_after(conversation, seq, self._page_entries))
        async with asyncio.timeout(timeout):
            return await self._page

    def _on_frame(self, payload: bytes) -> None:
        frame = ServerFrame.FromString(payload)
        handler = self._handlers.get(frame.WhichOneof("body") or "")
        if handler is not None:
            handler(frame)

    def _on_new_message(self, frame: ServerFrame) -> None:
        entry = frame.new_message.entry
        where, seq, name = entry.conversation_id, entry.seq, entry.client_msg_id
        number = int(name) if name else -1  # a membership event has none
        self._ledger.on_given(self.index, where, seq, number, time.monotonic())
        self._acknowledge(where, seq)

    def _acknowledge(self, where: str, seq: int) -> None:
        self.acknowledged += 1
        self._marks[where] = max(seq, self._marks.get(where, 0))
        if self._flush is None:
            wait = self._flushed_at + ACKNOWLEDGE_SECONDS - self._loop.time()
            self._flush = self._loop.call_later(max(0.0, wait), self._send_marks)

    def _send_marks(self) -> None:
        self._flush, self._flushed_at = None, self._loop.time()
        self.send(frames.acknowledge(self._marks.items()))
        self._marks.clear()

    def _on_welcome(self, frame: ServerFrame) -> None:
        self._page_entries = frame.welcome.limits.max_page_entries or self._page_entries

    def _on_stored(self, frame: ServerFrame) -> None:
        stored = frame.message_stored
        self._ledger.on_stored(int(stored.client_msg_id), stored.seq, time.monotonic())

    def _on_receipt(self, frame: ServerFrame) -> None:
        receipt, now = frame.receipt, time.monotonic()
        for mark in receipt.watermarks:
            if mark.user_id != self.user_id:
                self._ledger.on_receipt(self.index, receipt.conversation_id, mark.delivered_seq, now)

    def _on_page(self, frame: ServerFrame) -> None:
        if frame.request_id and self._page is not None and not self._page.done():
            self._page.set_result(list(frame.message_page.entries))
            return
        for entry in frame.message_page.entries:
            number = int(entry.client_msg_id) if entry.client_msg_id else -1
            self._ledger.on_given(self.index, entry.conversation_id, entry.seq, number, time.monotonic())
            self._acknowledge(entry.conversation_id, entry.seq)

    def _on_error(self, frame: ServerFrame) -> None:
        error = frame.error
        self.errors[error.code] = self.errors.get(error.code, 0) + 1
        if error.client_msg_id:
            self._ledger.on_refused(int(error.client_msg_id), error.code)

    def _on_close(self, code: int) -> None:
        self.close_code = code

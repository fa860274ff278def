"""One device under test: an SDK client with a state file, whose every send, receipt and return is recorded.

It can leave and come back with the same state file, as an application that is closed and opened again.
"""

import asyncio
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

from tests.checker.api import change_name
from tests.checker.history import CaughtUp, Entry, Failure, Kept, Opened, Receipt, Receive, Send, Shown
from tests.checker.recorder import Recorder
from tidings_client import (
    Client,
    ClientStopped,
    HistoryGapEvent,
    Message,
    Notification,
    Outgoing,
    ReceiptEvent,
    RequestFailed,
    SendFailed,
)

_CATCH_UP_SECONDS = 60.0


class Device:
    """See the module.

    Args:
        name: of the device in the history.
        user: its user id.
        url: the balancer's.
        token: the user's.
        state: its state file.
    """

    def __init__(self, name: str, user: str, url: str, token: str, state: Path, recorder: Recorder) -> None:
        self.name, self.user = name, user
        self._url, self._token, self._state, self._recorder = url, token, state, recorder
        self._numbers = 0
        self._life: AsyncExitStack | None = None
        self._client: Client | None = None
        self._back = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._truncated: dict[str, int] = {}
        self.own: dict[str, list[int]] = {}  # conversation -> seqs of own stored messages, for edits
        self.unanswered = 0
        recorder.add(Opened(name, user, recorder.now()))

    @property
    def client(self) -> Client | None:
        """The SDK's client; None while the device is away."""
        return self._client

    async def open(self) -> None:
        """Come (back): connects on its own, and records when it has caught up."""
        invoked = self._recorder.now()
        client = Client(self._url, self._token, device_id=self.name.replace("/", "."), state=self._state, user_id=self.user)
        client.on(ReceiptEvent, self._on_receipt)
        client.on(HistoryGapEvent, self._on_gap)
        client.on(Notification, self._on_notification)
        self._life = AsyncExitStack()
        self._client = await self._life.enter_async_context(client)
        self._reading = asyncio.create_task(self._read(client))
        self._spawn(self._catch_up(client, invoked))
        self._back.set()

    async def close(self) -> None:
        """Leave in order; what is not stored stays in the state file."""
        if self._life is not None:
            self._back.clear()
            life, self._life, self._client = self._life, None, None
            await life.aclose()
            if self._reading is not None:
                await self._reading

    def _record_kept(self) -> None:
        """Record the notifications that are in its state file, which an open client has for itself."""
        with closing(sqlite3.connect(f"file:{self._state}?mode=ro", uri=True)) as state:
            for (name,) in state.execute("SELECT notification_id FROM notification").fetchall():
                self._recorder.add(Kept(self.name, self.user, name))

    async def finish(self) -> None:
        """Leave for good; record which notifications it has."""
        await self.close()
        self._record_kept()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, conversation: str, to: str, text: str) -> None:
        """Send; the answer is recorded when it comes.

        Args:
            conversation: where it will end up.
            to: that, or the other user.
            text: what.
        """
        if self._client is not None:
            name, place = self._begin(conversation, text, 0)
            self._spawn(self._follow(place, self._client.send(to, text, client_msg_id=name), conversation))

    async def _follow(self, place: int, outgoing: Outgoing | None, conversation: str) -> None:
        """Wait for the answer, through as many lives of the device as it takes."""
        self.unanswered += 1
        try:
            while outgoing is not None:
                try:
                    message = await outgoing.stored()
                except ClientStopped:
                    outgoing = await self._found_again(outgoing.client_msg_id)
                    continue
                self.own.setdefault(conversation, []).append(message.seq)
                self._recorder.complete(place, outcome="stored", seq=message.seq, message_id=message.message_id)
                return
        except SendFailed as error:
            self._refused(place, error)
        finally:
            self.unanswered -= 1

    async def _found_again(self, name: str) -> Outgoing | None:
        await self._back.wait()
        waiting = self._client.outgoing() if self._client is not None else []
        return next((one for one in waiting if one.client_msg_id == name), None)

    def amend(self, conversation: str, seq: int, text: str | None) -> None:
        """Edit one's own message, or delete it when there is no text; a failure other than a refusal leaves it indeterminate."""
        if self._client is not None:
            self._spawn(self._amend(self._client, conversation, seq, text))

    async def _amend(self, client: Client, conversation: str, seq: int, text: str | None) -> None:
        _, place = self._begin(conversation, text or "", seq)
        try:
            done = await (client.delete(conversation, seq) if text is None else client.edit(conversation, seq, text))
        except SendFailed as error:
            self._refused(place, error)
        except ClientStopped:
            return
        else:
            answer = {"outcome": "stored", "seq": done.seq, "message_id": done.message_id, "client_msg_id": done.client_msg_id}
            self._recorder.complete(place, **answer)

    def _begin(self, conversation: str, text: str, target: int) -> tuple[str, int]:
        self._numbers += 1
        name, now = f"{self.name.replace('/', '.')}-{self._numbers}", self._recorder.now()
        send = Send(self.name, self.user, self._numbers, conversation, name, text, now, target_seq=target)
        return name, self._recorder.add(send)

    def _refused(self, place: int, error: RequestFailed) -> None:
        self._recorder.complete(place, outcome="refused", error=error.reason)
        failure = Failure(self.name, "send", error.reason, error.retry_after, str(error), self._recorder.now())
        self._recorder.add(failure)

    async def _read(self, client: Client) -> None:
        async for message in client.messages():
            where, now = message.conversation_id, self._recorder.now()
            self._recorder.add(Receive(self.name, self.user, where, entry_of_message(message), now))

    async def _catch_up(self, client: Client, invoked: float) -> None:
        try:
            await client.caught_up(_CATCH_UP_SECONDS)
        except (ClientStopped, TimeoutError):
            return
        for _ in range(3):  # what has come is with the client now; let the reader hand it to the application
            await asyncio.sleep(0)
        told = CaughtUp(self.name, self.user, invoked, self._recorder.now(), dict(self._truncated))
        self._recorder.add(told)

    def _on_receipt(self, event: ReceiptEvent) -> None:
        marks = event.delivered_seq, event.read_seq
        receipt = Receipt(self.name, self.user, event.conversation_id, event.user_id, *marks, self._recorder.now())
        self._recorder.add(receipt)

    def _on_notification(self, shown: Notification) -> None:
        self._recorder.add(Shown(self.name, self.user, shown.notification_id, self._recorder.now()))

    def _on_gap(self, event: HistoryGapEvent) -> None:
        self._truncated[event.conversation_id] = max(self._truncated.get(event.conversation_id, 0), event.last_seq + 1)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def entry_of_message(message: Message) -> Entry:
    """A message of the SDK as histories keep it."""
    event = message.membership
    return Entry(
        seq=message.seq,
        message_id=message.message_id,
        sender=message.sender_id,
        client_msg_id=message.client_msg_id,
        content=message.text,
        kind=message.kind.value,
        target_seq=message.target_seq,
        change=change_name(event.change) if event is not None else "",
        users=tuple(event.user_ids) if event is not None else (),
    )

"""The hot path: from what clients send to stored, answered, fanned out.

All links' sends go into one natural batcher. One loop drains it, loads what it does not know, refuses what it may, and hands the
batch to the appender; a second loop takes the results in the same order, answers, and fans out. So the store writes one batch
while the router handles another, and the order of every sender's messages is kept. While one is being written, a small batch waits
for what else comes: what is under way is sooner done when little is, and each batch costs as much as many messages in it.

Rules: nothing is answered before it is durable. A send accepted here is never refused for a passing reason. Refusals come from
what the store just said, never from an old copy. No task, log line or call per message.
"""

import asyncio
from collections.abc import Callable, Iterator

import structlog

from mesh import batching, errors, patience
from mesh.naming import USER_ID, direct_conversation_id
from router import frames
from router.append_stream import MAX_BYTES
from router.directory import Directory
from router.fan_out import FanOut
from router.link import EdgeLink
from router.meters import Meters
from router.ports import Appender
from router.typing_notices import TypingNotices
from tidings.common.v1 import error_pb2
from tidings.router.v1.link_pb2 import ClientEnvelope
from tidings.store.v1.message_log_pb2 import AppendResult, NewEntry

_SUBMITTED = 8  # batches stored, or being stored, and not yet told; when full, no further ones are stored
_log = structlog.get_logger(__name__)


class Send:
    """One entry on its way: who asks, and where the answer goes (a link, or a future)."""

    __slots__ = ("answer", "answered", "conversation_id", "envelope", "link")

    def __init__(
        self, envelope: ClientEnvelope, link: EdgeLink | None, answer: "asyncio.Future[AppendResult] | None" = None
    ) -> None:
        asked = envelope.append_entry
        self.envelope = envelope
        self.link = link
        self.answer = answer
        self.answered = False
        self.conversation_id = asked.conversation_id or direct_conversation_id(envelope.user_id, asked.recipient_id)


class AppendPipeline:
    """Stores and fans out what clients send.

    Args:
        capacity: sends waiting. When full, whoever brings more waits, and so reads no further from its link.
        max_batch: most entries of one append.
        again: told (conversation id, seq) of an entry that was in the log already, to be fanned out from there.
    """

    def __init__(
        self,
        capacity: int,
        max_batch: int,
        directory: Directory,
        appender: Appender,
        fan_out: FanOut,
        typing: TypingNotices,
        again: Callable[[str, int], None],
        meters: Meters,
    ) -> None:
        self._capacity = capacity
        self._max_batch = max_batch
        self._queue: batching.Batcher[Send] = batching.Batcher(capacity, max_batch)
        self._directory = directory
        self._appender = appender
        self._fan_out = fan_out
        self._typing = typing
        self._again = again
        self._meters = meters
        self._submitted: asyncio.Queue[tuple[list[Send], asyncio.Future[list[AppendResult]]]] = asyncio.Queue(_SUBMITTED)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return self._under_way

    @property
    def fullness(self) -> float:
        """How much of the capacity is under way; what is being stored counts on top of it."""
        return self._under_way / self._capacity

    async def accept(self, link: EdgeLink, envelope: ClientEnvelope) -> None:
        """Take a client's send, waiting for room."""
        await self._put(Send(envelope, link))

    async def store(self, envelope: ClientEnvelope) -> AppendResult:
        """Store an entry for someone without a session.

        Raises:
            TidingsError: why it was refused.
        """
        answer: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()
        await self._put(Send(envelope, None, answer))
        return await answer

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        await self._idle.wait()

    async def feed(self) -> None:
        """Hand batches to the appender until cancelled."""
        await patience.drain(self._queue, self._feed)

    async def settle(self) -> None:
        """Answer and fan out what was stored until cancelled."""
        while True:
            sends, results = await self._submitted.get()
            try:
                await self._settle(sends, await results)
            except errors.TidingsError as error:
                self._refuse_all(sends, error)
            except Exception:
                _log.exception("results of a batch could not be told; they will be sent again from the log", size=len(sends))
                self._refuse_all(sends, errors.internal("an unforeseen fault"))
            finally:
                self._finished(len(sends))

    async def _put(self, send: Send) -> None:
        if not self._queue.offer(send):
            await self._queue.put(send)
        self._under_way += 1
        self._idle.clear()

    async def _feed(self, batch: list[Send]) -> None:
        await self._appender.room(len(batch))
        batch += self._queue.take_now(self._max_batch - len(batch))
        try:
            ready = await self._prepare(batch)
        except Exception:
            _log.exception("a batch could not be prepared", size=len(batch))
            self._refuse_all(batch, errors.internal("an unforeseen fault"))
            ready = []
        self._finished(len(batch) - len(ready))
        for part in _parts(ready):
            results = await self._appender.submit([entry for _, entry in part])
            await self._submitted.put(([send for send, _ in part], results))

    async def _prepare(self, batch: list[Send]) -> list[tuple[Send, NewEntry]]:
        """What of a batch is to be stored; the rest is refused."""
        fresh = await self._load(batch)
        ready = []
        for send in batch:
            try:
                error = self._objection(send, fresh)
                if error is None:
                    ready.append((send, _entry(send)))
                    continue
            except Exception:
                _log.exception("a send could not be prepared", conversation=send.conversation_id)
                error = errors.internal("an unforeseen fault")
            self._refuse(send, error)
        return ready

    async def _load(self, batch: list[Send]) -> set[str]:
        """Learn the batch's unknown conversations, in one call for each kind; gives their ids."""
        unknown = {one.conversation_id: one for one in batch if self._directory.get(one.conversation_id) is None}
        if not unknown:
            return set()
        named = {
            one.conversation_id: one for one in batch if one.envelope.append_entry.recipient_id and one.conversation_id in unknown
        }
        pairs = [(s.envelope.user_id, s.envelope.append_entry.recipient_id) for s in named.values() if _good_recipient(s)]
        await asyncio.gather(self._ensure_direct(pairs), self._directory.missing(unknown.keys() - named.keys()))
        return set(unknown)

    async def _ensure_direct(self, pairs: list[tuple[str, str]]) -> None:
        """One refused pair must not fail its neighbours."""
        try:
            await self._directory.ensure_direct(pairs)
        except errors.TidingsError as error:
            if len(pairs) == 1:
                _log.warning("direct conversation refused", reason=error.reason, error=error.message)
                return
            for pair in pairs:
                await self._ensure_direct([pair])

    def _objection(self, send: Send, fresh: set[str]) -> errors.TidingsError | None:
        """Why a send is refused without asking the log; None when it is for the log to say."""
        asked = send.envelope.append_entry
        if not asked.target_seq and not asked.HasField("content"):
            return errors.invalid_field("content", "a message needs some")
        conversation = self._directory.get(send.conversation_id)
        if conversation is not None:
            outside = send.conversation_id in fresh and send.envelope.user_ordinal not in conversation
            return errors.not_a_member(send.conversation_id) if outside else None
        # Without a recipient it may be there, and forgotten by a cache that this batch alone fills: the log says.
        return errors.invalid_recipient(asked.recipient_id) if asked.recipient_id and not _good_recipient(send) else None

    async def _settle(self, sends: list[Send], results: list[AppendResult]) -> None:
        versions: dict[str, int] = {}
        for send, result in zip(sends, results, strict=True):
            self._answer(send, result)
            held = self._directory.get(send.conversation_id)
            if result.membership_version and (held is None or held.version < result.membership_version):  # 0: there is none
                versions[send.conversation_id] = max(result.membership_version, versions.get(send.conversation_id, 0))
        self._meters.received(sum(1 for result in results if result.seq))
        unknown = await self._directory.at_least(versions) if versions else set()
        for send, result in zip(sends, results, strict=True):
            if not result.seq or send.conversation_id in unknown:
                continue
            try:
                self._tell(send, result)
            except Exception:
                _log.exception("an entry could not be fanned out", conversation=send.conversation_id, seq=result.seq)
                self._again(send.conversation_id, result.seq)

    def _tell(self, send: Send, result: AppendResult) -> None:
        """Fan out one stored entry. One that had been stored before is read from the log, whose content counts."""
        if result.duplicate:
            self._again(send.conversation_id, result.seq)
            return
        conversation = self._directory.get(send.conversation_id)
        if conversation is None:
            return  # forgotten within this batch, which touched more than the cache holds: the search for undispatched finds it
        envelope, seq = send.envelope, result.seq
        conversation.wrote(seq, envelope.user_ordinal)
        within_ms = conversation.acknowledge_within_ms
        frame = frames.new_message(send.conversation_id, seq, envelope.user_id, envelope.append_entry, result.store_time, within_ms)
        self._fan_out.entry(conversation, seq, frame, send.link, envelope.session)
        if self._typing.anyone:
            self._typing.sent(conversation, envelope.user_ordinal)

    def _answer(self, send: Send, result: AppendResult) -> None:
        if not result.seq:
            self._refuse(send, _refusal(send, result))
            return
        if send.link is not None:
            envelope, asked = send.envelope, send.envelope.append_entry
            frame = frames.stored(envelope.request_id, asked.client_msg_id, send.conversation_id, result.seq, result.store_time)
            send.link.answer_to(envelope.envelope_id, envelope.session, frame)
        elif send.answer is not None and not send.answer.done():
            send.answer.set_result(result)
        send.answered = True

    def _refuse(self, send: Send, error: errors.TidingsError) -> None:
        if send.link is not None:
            send.link.refuse(send.envelope, error, send.envelope.append_entry.client_msg_id)
        elif send.answer is not None and not send.answer.done():
            self._meters.refused(error.reason)
            send.answer.set_exception(error)
        send.answered = True

    def _refuse_all(self, sends: list[Send], error: errors.TidingsError) -> None:
        """Refuse those that have no answer yet."""
        for send in sends:
            if not send.answered:
                self._refuse(send, error)

    def _finished(self, count: int) -> None:
        self._under_way -= count
        if self._under_way == 0:
            self._idle.set()


def _good_recipient(send: Send) -> bool:
    recipient = send.envelope.append_entry.recipient_id
    sender = send.envelope.user_id
    well_formed = recipient != sender and USER_ID.fullmatch(recipient) is not None
    return well_formed and send.conversation_id == direct_conversation_id(sender, recipient)


def _entry(send: Send) -> NewEntry:
    asked = send.envelope.append_entry
    return NewEntry(
        conversation_id=send.conversation_id,
        sender_ordinal=send.envelope.user_ordinal,
        client_msg_id=asked.client_msg_id,
        target_seq=asked.target_seq,
        content=asked.content if asked.HasField("content") else None,
    )


def _parts(ready: list[tuple[Send, NewEntry]]) -> Iterator[list[tuple[Send, NewEntry]]]:
    """Cut a batch so that no part is too large for one request."""
    part: list[tuple[Send, NewEntry]] = []
    size = 0
    for one in ready:
        bytes_more = one[1].ByteSize()
        if part and size + bytes_more > MAX_BYTES:
            yield part
            part, size = [], 0
        part.append(one)
        size += bytes_more
    if part:
        yield part


def _refusal(send: Send, result: AppendResult) -> errors.TidingsError:
    target = send.envelope.append_entry.target_seq
    match result.refusal:
        case error_pb2.ERROR_CODE_INVALID_CHAT_ID:
            return errors.invalid_chat_id(send.conversation_id)
        case error_pb2.ERROR_CODE_NOT_A_MEMBER:
            return errors.not_a_member(send.conversation_id)
        case error_pb2.ERROR_CODE_MESSAGE_NOT_FOUND:
            return errors.message_not_found(send.conversation_id, target)
        case error_pb2.ERROR_CODE_NOT_YOUR_MESSAGE:
            return errors.not_your_message(send.conversation_id, target)
        case error_pb2.ERROR_CODE_INVALID_FIELD:
            return errors.invalid_field("send_message", "client_msg_id of 1-64 printable ASCII characters, and some content")
        case error_pb2.ERROR_CODE_UNSPECIFIED | error_pb2.ERROR_CODE_INTERNAL:
            return errors.internal("the stores can't take this entry")
        case other:
            return errors.TidingsError(other, "the store refused this entry")

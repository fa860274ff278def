"""Receipts: devices' marks to the store, and then to those whom they concern.

Rules: marks are told only after they are durable, as the store has them, so they never go back nor past the log. All deltas that
gather while a call is under way make one call. One frame per conversation tells all its marks that moved. Many are told a few at a
time, and messages have their turn between: a receipt may be late, and telling sixty takes as long as several messages need in all.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable

import structlog

from mesh import batching, errors, patience
from router import frames
from router.dead_letters import DeadLetters, insist, unforeseen
from router.directory import STORE_BATCH, Directory, chunks
from router.fan_out import FanOut
from router.membership import Membership
from router.ports import MessageLog
from tidings.client.v1.frames_pb2 import Watermark
from tidings.router.v1.link_pb2 import TRAFFIC_CLASS_RECEIPT, ReceiptDelta
from tidings.store.v1.message_log_pb2 import AdvanceMarksRequest, AdvanceMarksResponse, MarkAdvance, MemberMarks

_BATCH = 4 * STORE_BATCH  # deltas taken at once: coalescing leaves far fewer
_AT_ONCE = 8  # conversations told without a pause; of many more, a tenth
_TURNS = 10
PAUSE_SECONDS = 0.002
_log = structlog.get_logger(__name__)


def coalesce(deltas: Iterable[ReceiptDelta]) -> list[ReceiptDelta]:
    """One delta per (user, device, conversation), with the highest marks, in the order of first mention."""
    newest: dict[tuple[int, str, str], ReceiptDelta] = {}
    for delta in deltas:
        known = newest.setdefault((delta.user_ordinal, delta.device_id, delta.conversation_id), delta)
        if known is not delta:
            known.delivered_seq = max(known.delivered_seq, delta.delivered_seq)
            known.read_seq = max(known.read_seq, delta.read_seq)
    return list(newest.values())


def concerned(conversation: Membership, reader: int, marks: MemberMarks) -> set[int]:
    """Whom a member's moved marks concern: the senders of the entries passed over, and for a read mark the reader's own devices.

    When not all senders are remembered, all members of a small conversation.
    """
    told: set[int] = set()
    moves = [(marks.previous_delivered_seq, marks.delivered_seq), (marks.previous_read_seq, marks.read_seq)]
    for before, now in moves:
        if now <= before:
            continue
        senders = conversation.senders(before, now)
        if senders is None:
            senders = set(conversation.user_ids) if conversation.small else conversation.recent_senders(before, now)
        told |= senders
    told = {one for one in told if one in conversation}  # who wrote and left since is told nothing
    told.discard(reader)
    if marks.read_seq > marks.previous_read_seq:
        told.add(reader)
    return told


def senders_concerned(conversation: Membership, moved: Iterable[MemberMarks]) -> set[int]:
    """Whom the moved marks of many members of a large conversation concern: the senders of all that any of them passed over."""
    delivered = [(marks.previous_delivered_seq, marks.delivered_seq) for marks in moved]
    read = [(marks.previous_read_seq, marks.read_seq) for marks in moved]
    passed = [(before, now) for before, now in delivered + read if now > before]
    if not passed:
        return set()
    senders = conversation.recent_senders(min(before for before, _ in passed), max(now for _, now in passed))
    return {one for one in senders if one in conversation}


class Receipts:
    """From receipt deltas to receipt frames.

    Args:
        capacity: deltas waiting. When full, whoever brings more waits, and so reads no further from its link.
    """

    def __init__(self, capacity: int, log: MessageLog, directory: Directory, fan_out: FanOut, letters: DeadLetters) -> None:
        self._capacity = capacity
        self._queue: batching.Batcher[ReceiptDelta] = batching.Batcher(capacity, _BATCH)
        self._log = log
        self._directory = directory
        self._fan_out = fan_out
        self._letters = letters
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return self._under_way

    def room_for(self, count: int) -> bool:
        """Whether so many deltas are taken without waiting."""
        return len(self._queue) + count <= self._capacity

    async def accept(self, deltas: Iterable[ReceiptDelta]) -> None:
        """Take deltas, waiting for room."""
        for delta in deltas:
            if not self._queue.offer(delta):
                await self._queue.put(delta)
            self._under_way += 1
            self._idle.clear()

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        await self._idle.wait()

    async def run(self) -> None:
        """Advance and tell until cancelled."""
        await patience.drain(self._queue, self._handle)

    async def _handle(self, batch: list[ReceiptDelta]) -> None:
        try:
            await self._advance(batch)
        finally:
            self._under_way -= len(batch)
            if not self._under_way:
                self._idle.set()

    async def _advance(self, batch: list[ReceiptDelta]) -> None:
        for part in chunks(coalesce(batch)):
            await self._tell([(delta, marks) for delta, marks in await self._marks(part) if _moved(marks)])

    async def _marks(self, part: list[ReceiptDelta]) -> list[tuple[ReceiptDelta, MemberMarks]]:
        """Advance a part, waiting for a store for ever; one delta that stores refuse must not fail its neighbours."""
        request = AdvanceMarksRequest(advances=[_advance(delta) for delta in part])

        async def attempt() -> AdvanceMarksResponse:
            return await patience.until_done(lambda: self._log.advance_marks(request))

        try:
            response = await (insist(attempt) if len(part) == 1 else attempt())
        except errors.TidingsError as error:
            if len(part) == 1:
                await self._refused(part[0], error)
                return []
            middle = len(part) // 2
            return await self._marks(part[:middle]) + await self._marks(part[middle:])
        return list(zip(part, response.marks, strict=True))

    async def _refused(self, delta: ReceiptDelta, error: errors.TidingsError) -> None:
        """What is a fault of ours is put aside; any other refusal is what a client may get by asking for it."""
        _log.warning("receipt refused", reason=error.reason, error=error.message, user=delta.user_id)
        if unforeseen(error):
            await self._letters.put_marks(_advance(delta), error)

    async def _tell(self, moved: list[tuple[ReceiptDelta, MemberMarks]]) -> None:
        await self._directory.missing(delta.conversation_id for delta, _ in moved)
        by_conversation: dict[str, list[tuple[ReceiptDelta, MemberMarks]]] = defaultdict(list)
        for delta, marks in moved:
            by_conversation[delta.conversation_id].append((delta, marks))
        held = ((self._directory.get(conversation_id), marks) for conversation_id, marks in by_conversation.items())
        found = [(conversation, marks) for conversation, marks in held if conversation is not None]
        size = max(_AT_ONCE, math.ceil(len(found) / _TURNS))
        for number, part in enumerate(chunks(found, size)):
            if number and len(self._queue) < len(found):  # else there is no time for it
                await asyncio.sleep(PAUSE_SECONDS)
            for conversation, marks_moved in part:
                self._tell_one(conversation, marks_moved)

    def _tell_one(self, conversation: Membership, moved: list[tuple[ReceiptDelta, MemberMarks]]) -> None:
        watermarks = {delta.user_id: _watermark(delta, marks) for delta, marks in moved}  # of several devices the last counts
        if conversation.large:
            told = senders_concerned(conversation, [marks for _, marks in moved])
            self._tell_readers(conversation, [(delta, marks) for delta, marks in moved if delta.user_ordinal not in told])
        else:
            told = set[int]().union(*(concerned(conversation, delta.user_ordinal, marks) for delta, marks in moved))
        if told:
            self._fan_out.to_users(told, frames.receipt(conversation.conversation_id, watermarks.values()), TRAFFIC_CLASS_RECEIPT)

    def _tell_readers(self, conversation: Membership, moved: list[tuple[ReceiptDelta, MemberMarks]]) -> None:
        """To a reader's own devices only the reader's own mark: all the others' would be thousands to each of thousands."""
        for delta, marks in moved:
            if marks.read_seq > marks.previous_read_seq:
                frame = frames.receipt(conversation.conversation_id, [_watermark(delta, marks)])
                self._fan_out.to_users([delta.user_ordinal], frame, TRAFFIC_CLASS_RECEIPT)


def _advance(delta: ReceiptDelta) -> MarkAdvance:
    return MarkAdvance(
        conversation_id=delta.conversation_id,
        user_ordinal=delta.user_ordinal,
        device_id=delta.device_id,
        delivered_seq=delta.delivered_seq,
        read_seq=delta.read_seq,
    )


def _watermark(delta: ReceiptDelta, marks: MemberMarks) -> Watermark:
    return Watermark(user_id=delta.user_id, delivered_seq=marks.delivered_seq, read_seq=marks.read_seq)


def _moved(marks: MemberMarks) -> bool:
    return marks.delivered_seq > marks.previous_delivered_seq or marks.read_seq > marks.previous_read_seq

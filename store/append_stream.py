"""One stream of batches: read ahead, answered in order.

While a transaction is under way the stream goes on being read, so that what comes meanwhile shares the next one. At most `_AHEAD`
batches are under way; past that the stream is not read, and the caller feels it.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from mesh.batching import Closed
from mesh.times import timestamp
from store import checks, codec
from store.appender import Appender
from store.model import Draft, Outcome, Refusal
from tidings.common.v1.error_pb2 import ErrorCode
from tidings.store.v1 import message_log_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]
_CALLER_LEFT = (grpc.aio.InternalError, grpc.aio.UsageError)  # what a write says then
_AHEAD = 32  # batches of one stream: enough to fill a transaction, few enough that one stream can't fill the appender's queue


@dataclass(frozen=True, slots=True)
class _UnderWay:
    batch_id: int
    refusals: Sequence[Refusal]
    answer: "asyncio.Future[list[Outcome]]"


class AppendStream:
    """Answers the batches of one stream."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._room = asyncio.Semaphore(_AHEAD)
        self._under_way: deque[_UnderWay] = deque()
        self._news = asyncio.Event()  # something is answered, or nothing more will be read
        self._reader: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Read no more; it ends once what was read is answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def serve(self, context: Context) -> None:
        """One response per request, in order, until the caller sends no more.

        Raises:
            TidingsError: INVALID_FIELD for a batch that is too long; those before it have been answered.
        """
        self._reader = reader = asyncio.create_task(self._read(context))
        reader.add_done_callback(self._tell)
        try:
            while self._under_way or not reader.done():
                await self._news.wait()
                self._news.clear()
                while self._under_way and self._under_way[0].answer.done():
                    await context.write(_response(self._under_way.popleft()))
                    self._room.release()
            with contextlib.suppress(asyncio.CancelledError, Closed):
                reader.result()
        except _CALLER_LEFT:
            return
        finally:
            reader.cancel()

    async def _read(self, context: Context) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await self._room.acquire()
            one = await self._submitted(request)
            self._under_way.append(one)
            one.answer.add_done_callback(self._tell)

    def _tell(self, _: object) -> None:
        self._news.set()

    async def _submitted(self, request: pb.AppendRequest) -> _UnderWay:
        checks.listed("entries", request.entries)
        drafts = [_draft(entry) for entry in request.entries]
        refusals = [checks.draft_refusal(draft) for draft in drafts]
        sound = [draft for draft, refusal in zip(drafts, refusals, strict=True) if not refusal]
        return _UnderWay(request.batch_id, refusals, await self._appender.submit(sound))


def _draft(entry: pb.NewEntry) -> Draft:
    body = codec.content_bytes(entry.content) if entry.HasField("content") else None
    return Draft(entry.conversation_id, entry.sender_ordinal, entry.client_msg_id, codec.seq(entry.target_seq), body)


def _response(one: _UnderWay) -> pb.AppendResponse:
    position = iter(one.answer.result())
    results = [_result(Outcome(refusal=refusal) if refusal else next(position)) for refusal in one.refusals]
    return pb.AppendResponse(batch_id=one.batch_id, results=results)


def _result(outcome: Outcome) -> pb.AppendResult:
    result = pb.AppendResult(
        seq=outcome.seq,
        membership_version=outcome.membership_version,
        duplicate=outcome.duplicate,
        refusal=ErrorCode.ValueType(outcome.refusal),
    )
    if outcome.seq:
        result.store_time.CopyFrom(timestamp(outcome.stored_at))
    return result

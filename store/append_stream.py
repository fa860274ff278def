"""One stream of batches: read ahead, answered in order.

While a transaction is under way the stream goes on being read, so that what comes meanwhile shares the next one. At most `_AHEAD`
batches are under way; past that the stream is not read, and the caller feels it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from mesh import errors
from mesh.batching import Closed
from mesh.times import timestamp
from store import checks, codec
from store.appender import Appender
from store.model import Draft, Outcome, Refusal
from tidings.common.v1.error_pb2 import ErrorCode
from tidings.store.v1 import message_log_pb2 as pb

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
        self._under_way: asyncio.Queue[_UnderWay | errors.TidingsError | None] = asyncio.Queue(_AHEAD)
        self._reader: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Read no more; the responses end once what was read is answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def responses(self, requests: AsyncIterator[pb.AppendRequest]) -> AsyncIterator[pb.AppendResponse]:
        """One response per request, in order.

        Raises:
            TidingsError: INVALID_FIELD for a batch that is too long; those before it have been answered.
        """
        self._reader = asyncio.create_task(self._read(requests))
        try:
            while (one := await self._under_way.get()) is not None:
                if isinstance(one, errors.TidingsError):
                    raise one
                yield _response(one, await one.answer)
        finally:
            self._reader.cancel()

    async def _read(self, requests: AsyncIterator[pb.AppendRequest]) -> None:
        with contextlib.suppress(asyncio.CancelledError, Closed):
            try:
                async for request in requests:
                    await self._under_way.put(await self._submitted(request))
            except errors.TidingsError as error:
                await self._under_way.put(error)
        await self._under_way.put(None)

    async def _submitted(self, request: pb.AppendRequest) -> _UnderWay:
        checks.listed("entries", request.entries)
        drafts = [_draft(entry) for entry in request.entries]
        refusals = [checks.draft_refusal(draft) for draft in drafts]
        sound = [draft for draft, refusal in zip(drafts, refusals, strict=True) if not refusal]
        return _UnderWay(request.batch_id, refusals, await self._appender.submit(sound))


def _draft(entry: pb.NewEntry) -> Draft:
    body = codec.content_bytes(entry.content) if entry.HasField("content") else None
    return Draft(entry.conversation_id, entry.sender_ordinal, entry.client_msg_id, codec.seq(entry.target_seq), body)


def _response(one: _UnderWay, outcomes: Sequence[Outcome]) -> pb.AppendResponse:
    position = iter(outcomes)
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

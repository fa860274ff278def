"""The way into the log: one long-lived Append stream, with a few batches in flight.

Rules: batches are stored in the order of their submission. When the stream fails, all that is in flight goes again, in order, with
the same ids, to any live store, until it is answered; the store takes a repetition as the same entries. A store that is silent is
left for another after a second or two, for it may be frozen with its connections open; when that one is silent too, it is the
database that is slow, and each further move takes twice as long. A store that wakes up appends once more what it held, which
changes nothing: by then the log has it, and all that came before. One in this very process is returned to when the pool says that
it is near again. Only a batch that stores keep refusing while they answer others (a poisoned one) is cut in halves, down to the
single entry, which is then given up.
It must not know what the entries mean.
"""

import asyncio
import contextlib
import itertools
import time
from collections import deque
from functools import partial

import grpc
import structlog

from mesh import errors, patience, process
from mesh.breaker import State
from mesh.node import Node
from mesh.nodes import NodePool
from mesh.patience import PASSING
from router.meters import Meters
from tidings.store.v1.message_log_pb2 import AppendRequest, AppendResponse, AppendResult, NewEntry
from tidings.store.v1.message_log_pb2_grpc import MessageLogServiceStub

DEPTH = 2  # batches in flight: the store writes one while the router handles another; more would only make batches smaller
FULL = 100  # entries: a batch of so many needn't wait to become larger, what each of them costs is most of what it costs
MAX_BYTES = 8 * 1024 * 1024  # of one request: half of gRPC's limit
STRIKES = 5  # refusals of a batch at the head, before it is held to be poisoned; with backoff, about a second
_ANSWER_SECONDS = 15.0  # the only store is given up when it answers nothing for so long; its keepalive takes as long
_PATIENCE_SECONDS = 1.5  # likewise while there is another; doubles up to the above until a store answers
_SUSPECT_SECONDS = 0.5  # likewise when other calls have found it silent
_WATCH_SECONDS = 0.25  # how often to look for that, and for a store that leaves
_log = structlog.get_logger(__name__)
Answer = asyncio.Future[list[AppendResult]]


class _Batch:
    """Entries in flight, and the future of their results."""

    __slots__ = ("answer", "batch_id", "entries", "since", "strikes")

    def __init__(self, batch_id: int, entries: list[NewEntry], answer: Answer) -> None:
        self.batch_id = batch_id
        self.entries = entries
        self.answer = answer
        self.since = time.monotonic()
        self.strikes = 0


class AppendStream:
    """`Appender` over gRPC."""

    def __init__(self, pool: NodePool, meters: Meters) -> None:
        self._pool = pool
        self._meters = meters
        self._in_flight: deque[_Batch] = deque()
        self._sent = 0
        self._patience = _PATIENCE_SECONDS
        self._ids = itertools.count(1)
        self._fewer = asyncio.Event()  # in flight
        self._writing = asyncio.Lock()
        self._call: grpc.aio.StreamStreamCall[AppendRequest, AppendResponse] | None = None
        self._finishing = False  # whether nothing more is written on it
        self._node: Node | None = None

    async def room(self, entries: int) -> None:
        """See `Appender`."""
        await self._below(DEPTH if entries >= FULL else 1)

    async def submit(self, entries: list[NewEntry]) -> Answer:
        """See `Appender`."""
        await self._below(DEPTH)
        answer: Answer = asyncio.get_running_loop().create_future()
        self._in_flight.append(_Batch(next(self._ids), entries, answer))
        await self._push()
        return answer

    async def run(self) -> None:
        """Keep a stream to some store until cancelled."""
        async with process.background(self._watch()):
            delays = patience.delays()
            while True:
                answered = self._next_id()
                try:
                    await self._stream(self._pool.pick())
                except errors.TidingsError as error:
                    self._failed(error)
                if self._next_id() > answered:
                    delays = patience.delays()
                await asyncio.sleep(next(delays))

    async def _below(self, most: int) -> None:
        """Wait until fewer are in flight."""
        while len(self._in_flight) >= most:
            self._fewer.clear()
            await self._fewer.wait()

    def _next_id(self) -> int:
        return self._in_flight[0].batch_id if self._in_flight else 1 << 62

    async def _stream(self, node: Node) -> None:
        """Serve one stream until it ends or fails."""
        node.breaker.on_asked(time.monotonic())
        call = node.stub(MessageLogServiceStub).Append()
        self._call, self._node, self._sent, self._finishing = call, node, 0, False
        for batch in self._in_flight:
            batch.since = time.monotonic()
        try:
            await self._push()
            while (response := await _read(call)) is not None:
                node.answered()
                self._on_response(response)
        except errors.TidingsError as error:
            node.failed(error)
            raise
        except Exception as fault:
            _log.exception("append stream failed in an unforeseen way", store=node.instance_id)
            raise errors.unavailable(f"the stream to the store failed: {fault!r}") from fault
        finally:
            self._call = self._node = None
            call.cancel()

    async def _push(self) -> None:
        """Write what is in flight and not yet on this stream. A failing write is noticed where answers are read.

        One that takes too long ends here: gRPC's own goes on for ever when its call is cancelled before there is a connection, as
        there is none to a store that was frozen when first it was called.
        """
        async with self._writing:
            while (call := self._call) is not None and not self._finishing and self._sent < len(self._in_flight):
                batch = self._in_flight[self._sent]
                self._sent += 1
                try:
                    async with asyncio.timeout(self._patience_with(self._node)):
                        await call.write(AppendRequest(batch_id=batch.batch_id, entries=batch.entries))
                except TimeoutError:
                    call.cancel()
                    return
                except (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
                    return
                except asyncio.CancelledError:
                    if not call.cancelled() or _being_cancelled():
                        raise
                    return

    def _on_response(self, response: AppendResponse) -> None:
        batch = self._in_flight[0] if self._in_flight else None
        if batch is None or response.batch_id != batch.batch_id or len(response.results) != len(batch.entries):
            raise errors.internal(f"the store answered batch {response.batch_id} out of turn or in part")
        self._in_flight.popleft()
        self._sent -= 1
        self._patience = _PATIENCE_SECONDS
        if not batch.answer.done():
            batch.answer.set_result(list(response.results))
        self._fewer.set()

    def _failed(self, error: errors.TidingsError) -> None:
        self._meters.retried()
        tell = _log.warning if self._in_flight else _log.debug  # while nothing waits, nobody is harmed
        tell("append stream failed", reason=error.reason, error=error.message, in_flight=len(self._in_flight))
        if error.code in PASSING or not self._in_flight:
            return
        head = self._in_flight[0]
        head.strikes += 1
        if head.strikes >= STRIKES:
            self._isolate(self._in_flight.popleft(), error)

    def _isolate(self, poisoned: _Batch, error: errors.TidingsError) -> None:
        """Cut the batch that stores refuse; a single entry is given up."""
        entries, answer = poisoned.entries, poisoned.answer
        if len(entries) == 1:
            answer.set_exception(error)
            self._fewer.set()
            return
        middle = len(entries) // 2
        halves: list[Answer] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        joined = asyncio.gather(*(_or_refusals(half, n) for half, n in zip(halves, (middle, len(entries) - middle), strict=True)))
        joined.add_done_callback(partial(_join, answer))
        first = _Batch(poisoned.batch_id, entries[:middle], halves[0])
        second = _Batch(next(self._ids), entries[middle:], halves[1])
        first.strikes = second.strikes = STRIKES - 2
        self._in_flight.extendleft([second, first])

    async def _watch(self) -> None:
        """Leave a store that answers nothing any more, or that leaves, or for which there is a nearer one."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            call, node = self._call, self._node
            if call is None or node is None:
                continue
            if self._in_flight and time.monotonic() - self._in_flight[0].since > self._patience_with(node):
                self._patience = min(2 * self._patience, _ANSWER_SECONDS)
                call.cancel()
            elif (node.leaving.is_set() or self._pool.nearer(node)) and not self._finishing:
                with contextlib.suppress(TimeoutError):  # while a write stands still: look again, for silence too
                    async with asyncio.timeout(_WATCH_SECONDS):
                        await self._finish(call)

    def _patience_with(self, node: Node | None) -> float:
        """Seconds for which it may answer nothing."""
        if node is None or not self._pool.others(node):
            return _ANSWER_SECONDS
        return _SUSPECT_SECONDS if node.breaker.state is State.OPEN else self._patience

    async def _finish(self, call: "grpc.aio.StreamStreamCall[AppendRequest, AppendResponse]") -> None:
        """Write nothing more on this stream; it ends when what it holds is answered, or as any other when nothing comes."""
        async with self._writing:
            if self._call is call:
                self._finishing = True
                with contextlib.suppress(grpc.aio.InternalError):  # noticed where answers are read
                    await call.done_writing()


async def _read(call: "grpc.aio.StreamStreamCall[AppendRequest, AppendResponse]") -> AppendResponse | None:
    """The next answer; None when the store ended the stream well."""
    try:
        response = await call.read()
        if response is not grpc.aio.EOF:
            return response  # type: ignore[return-value]
        if await call.code() is grpc.StatusCode.OK:
            return None
        raise errors.unavailable(f"the store ended the stream: {await call.details()}")
    except grpc.RpcError as error:
        raise errors.from_rpc_error(error) from error
    except asyncio.CancelledError:
        if _being_cancelled():
            raise
        raise errors.unavailable("the store took too long") from TimeoutError()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _join(answer: Answer, halves: "asyncio.Future[list[list[AppendResult]]]") -> None:
    if not answer.done() and not halves.cancelled():
        first, second = halves.result()
        answer.set_result(first + second)


async def _or_refusals(half: Answer, count: int) -> list[AppendResult]:
    """A half's results; when it was given up, one unstored result per entry."""
    try:
        return await half
    except errors.TidingsError as error:
        return [AppendResult(refusal=error.code)] * count

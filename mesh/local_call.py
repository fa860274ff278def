"""The caller's end of a call within one process. All four kinds of method have the same one, for one message is a stream of one.

As in `grpc.aio`, a read or write that is cancelled cancels the call, and so does dropping it.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from typing import Any, TypeVar

import grpc
import structlog

from mesh.local_exchange import LOCALLY_CANCELLED, Exchange

T = TypeVar("T")
Requests = AsyncIterable[Any] | Iterable[Any]
_ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)  # what a write says when the call has ended
_log = structlog.get_logger(__name__)


class LocalCall(grpc.aio.Call):
    """See the module, and `grpc.aio.StreamStreamCall`."""

    def __init__(self, exchange: Exchange, serialize: Callable[[Any], bytes] | None, parse: Callable[[bytes], Any] | None) -> None:
        self._exchange = exchange
        self._serialize = serialize or bytes
        self._parse = parse or bytes
        self._half_closed = False
        self._response: Any = None
        self._feeding: asyncio.Task[None] | None = None

    def __del__(self) -> None:
        if self._exchange.abandonable:
            self.cancel()

    def cancelled(self) -> bool:
        """Whether it ended by being cancelled, by either side."""
        ending = self._exchange.ending
        return self.done() and ending is not None and ending.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether it has ended, and what came before has been read."""
        return self._exchange.over.is_set()

    def cancel(self) -> bool:
        """End it; whether it had not ended."""
        if self.done():
            return False
        self._exchange.break_off(LOCALLY_CANCELLED)
        if self._feeding is not None:
            self._feeding.cancel()
        return True

    def time_remaining(self) -> float | None:
        """Seconds until its deadline; None without one."""
        return self._exchange.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have it called, with this, once it has ended."""
        self._exchange.when_over(lambda: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """What the server began with, once it has begun."""
        return grpc.aio.Metadata(*await self._exchange.begun())

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What the server ended with, once it has ended."""
        return grpc.aio.Metadata(*(await self._exchange.ended()).trailing)

    async def code(self) -> grpc.StatusCode:
        """How it ended, once it has ended."""
        return (await self._exchange.ended()).code

    async def details(self) -> str:
        """Why it ended so, once it has ended."""
        return (await self._exchange.ended()).details

    async def wait_for_connection(self) -> None:
        """Return at once, unless it has failed already."""
        if self.done():
            self._raise_for_ending()

    def ask(self, request: Any) -> None:
        """Send the only request."""
        self._half_closed = True
        self._exchange.ask(self._serialize(request))

    def feed(self, requests: Requests) -> None:
        """Write what an iterator gives, then write no more."""
        self._feeding = asyncio.create_task(self._feed(requests))

    async def write(self, request: Any) -> None:
        """Send a request, when there is room.

        Raises:
            AioRpcError, InvalidStateError: the call has ended.
        """
        if self.done() or self._half_closed:
            raise asyncio.InvalidStateError("the call has ended, or `done_writing` was called")
        if not await self._cancelling(self._exchange.send(self._exchange.requests, self._serialize(request))):
            if self._exchange.ending is not None:
                self._raise_for_ending()
            raise asyncio.InvalidStateError("the server has ended the call")

    async def done_writing(self) -> None:
        """Send nothing more."""
        self._half_closed = True
        self._exchange.requests.end()

    async def read(self) -> Any:
        """The next response, or `grpc.aio.EOF`.

        Raises:
            AioRpcError: the call failed.
            CancelledError: it was cancelled here.
        """
        data = await self._cancelling(self._exchange.receive())
        if data is not None:
            return self._parse(data)
        self._raise_for_ending()
        return grpc.aio.EOF

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (response := await self.read()) is not grpc.aio.EOF:
            yield response

    def __await__(self) -> Generator[Any, None, Any]:
        return self._only_response().__await__()

    async def _only_response(self) -> Any:
        if self._response is None:
            response = await self.read()
            if response is grpc.aio.EOF:
                raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, details="the server ended the call without a response")
            self._response = response
        return self._response

    async def _feed(self, requests: Requests) -> None:
        try:
            async for request in _each(requests):
                await self.write(request)
            await self.done_writing()
        except _ENDED:
            return  # noticed where responses are read
        except Exception:
            _log.exception("the requests of a call failed", method=self._exchange.method)
            self.cancel()

    async def _cancelling(self, waited: Awaitable[T]) -> T:
        try:
            return await waited
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _raise_for_ending(self) -> None:
        code, details, trailing = ending = self._exchange.ending or LOCALLY_CANCELLED
        if ending is LOCALLY_CANCELLED:
            raise asyncio.CancelledError
        if code is not grpc.StatusCode.OK:
            begun = grpc.aio.Metadata(*(self._exchange.initial or ()))
            raise grpc.aio.AioRpcError(code, begun, grpc.aio.Metadata(*trailing), details)


async def _each(requests: Requests) -> AsyncIterator[Any]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request

"""Calls as a business makes them: each carries its key and a deadline, and fails with a `BusinessError`.

A channel that wraps gRPC's, so that every stub made over it behaves so, unary or streaming, iterated, read or written. It knows no
method's meaning and repeats nothing: who repeats a call decides that it may be repeated.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Generator, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import grpc
from grpc.aio import AioRpcError

from tidings_client.business_errors import from_status

STATUS_SECONDS = 1.0  # for a server's status to come after its stream's end; it takes milliseconds
_STATUS_STEP = 0.005  # seconds between looks; nothing tells


class BusinessChannel(grpc.aio.Channel):
    """See the top of this file.

    Args:
        channel: carries the bytes.
        address: whom it leads to, for messages.
        metadata: added to every call.
        timeout: seconds a unary call may take that names no timeout of its own; streams last as long as they last.
    """

    def __init__(self, channel: grpc.aio.Channel, address: str, metadata: tuple[tuple[str, str], ...], timeout: float) -> None:
        self._channel, self._address = channel, address
        self._metadata, self._timeout = metadata, timeout

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """See `grpc.aio.Channel`."""
        inner = self._channel.unary_unary(method, *arguments, **options)

        def start(request: Any, **given: Any) -> _Call:
            given["timeout"] = self._timeout if given.get("timeout") is None else given["timeout"]
            return _Call(inner(request, **self._with_key(given)), self._address + method)

        return start

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """See `grpc.aio.Channel`."""
        inner = self._channel.unary_stream(method, *arguments, **options)
        return lambda request, **given: _Call(inner(request, **self._with_key(given)), self._address + method)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return self._streaming(method, self._channel.stream_unary(method, *arguments, **options))

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """See `grpc.aio.Channel`."""
        return self._streaming(method, self._channel.stream_stream(method, *arguments, **options))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See `grpc.aio.Channel`."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See `grpc.aio.Channel`."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See `grpc.aio.Channel`."""
        await self._channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """See `grpc.aio.Channel`."""
        await self._channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _streaming(self, method: str, inner: Any) -> Any:
        def start(requests: AsyncIterable[Any] | Iterable[Any] | None = None, **given: Any) -> _Call:
            watched = _Requests(requests) if requests is not None else None
            return _Call(inner(watched, **self._with_key(given)), self._address + method, watched, streams=True)

        return start

    def _with_key(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "metadata": (*(given.get("metadata") or ()), *self._metadata)}


class _Requests(AsyncIterable[Any]):
    """The caller's requests on their way into a stream; remembers what went wrong with them."""

    def __init__(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        self._requests = requests
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            if isinstance(self._requests, AsyncIterable):
                async for request in self._requests:
                    yield request
            else:
                for request in self._requests:
                    yield request
        except Exception as error:
            self.failure = error
            raise


class _Call:
    """A call under way. What isn't here is gRPC's call's.

    Where a server ends a stream of requests while one is being written, gRPC puts an INTERNAL of its own in the place of the
    server's status, before or after that comes (grpc/grpc#36066). So the first status is noted, and one that may follow waited for.
    """

    def __init__(self, call: Any, where: str, requests: _Requests | None = None, *, streams: bool = False) -> None:
        self._call, self._where, self._requests, self._streams = call, where, requests, streams
        self._first: AioRpcError | None = None
        if streams:
            call.add_done_callback(self._on_done)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        async with self._named():
            async for response in self._call:
                yield response

    async def read(self) -> Any:
        """The next response, or `grpc.aio.EOF`."""
        async with self._named():
            return await self._call.read()

    async def write(self, request: Any) -> None:
        """Send a request."""
        async with self._named():
            try:
                await self._call.write(request)
            except asyncio.InvalidStateError:  # says that the call is over, not why
                if self._call.done() and not self._call.cancelled() and await self._call.code() is not grpc.StatusCode.OK:
                    raise await _status_of(self._call) from None
                raise

    async def _answer(self) -> Any:
        async with self._named():
            return await self._call

    @asynccontextmanager
    async def _named(self) -> AsyncIterator[None]:
        try:
            yield
        except AioRpcError as error:
            raise from_status(await self._servers(error), self._where) from error
        except asyncio.CancelledError:
            if self._requests is not None and self._requests.failure is not None:
                raise self._requests.failure from None  # gRPC says only that it cancelled the call
            raise

    async def _servers(self, error: AioRpcError) -> AioRpcError:
        """The server's status, if gRPC's own may stand in its place."""
        if not self._streams or error.code() is not grpc.StatusCode.INTERNAL:
            return error
        if self._first is not None and self._first.code() is not grpc.StatusCode.INTERNAL:
            return self._first
        for _ in range(int(STATUS_SECONDS / _STATUS_STEP)):
            if await self._call.code() is not grpc.StatusCode.INTERNAL:
                return await _status_of(self._call)
            await asyncio.sleep(_STATUS_STEP)
        return error

    def _on_done(self, call: Any) -> None:
        self._first = _at_once(_status_of(call))


async def _status_of(call: Any) -> AioRpcError:
    first, last = await call.initial_metadata(), await call.trailing_metadata()
    return AioRpcError(await call.code(), first, last, await call.details())


def _at_once(work: Coroutine[Any, Any, AioRpcError]) -> AioRpcError | None:
    """What a coroutine gives that has nothing to wait for; None when it has."""
    try:
        work.send(None)
    except StopIteration as done:
        result: AioRpcError = done.value
        return result
    finally:
        work.close()
    return None

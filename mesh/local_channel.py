"""A channel to a server in this very process: to whom calls all is as with `grpc.aio`, without a socket and its threads.

The same states, exceptions and statuses: `tests/mesh/test_transports.py` holds both transports to one table. What `grpc.aio` has
only for the wire (compression, waiting for a connection) changes nothing here; what isn't known here is refused, not skipped.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Self
from weakref import WeakSet

import grpc

from mesh.local_call import LocalCall, Requests
from mesh.local_exchange import Exchange
from mesh.local_server import LocalServer

Serialize = Callable[[Any], bytes] | None
Parse = Callable[[bytes], Any] | None
Metadata = grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]
NOTHING_SHOWN: Mapping[str, Sequence[bytes]] = MappingProxyType({})


class LocalChannel(grpc.aio.Channel):
    """See the module.

    Args:
        server: whom it leads to.
        interceptors: of calls with one request and one response, the first outermost.
        shown: the certificate that the caller would show on the wire, as gRPC's `auth_context` has it.

    Raises:
        TypeError: an interceptor of another kind.
    """

    def __init__(
        self,
        server: LocalServer,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        shown: Mapping[str, Sequence[bytes]] = NOTHING_SHOWN,
    ) -> None:
        for one in interceptors:
            if not isinstance(one, grpc.aio.UnaryUnaryClientInterceptor):
                raise TypeError(f"{type(one).__name__}: a local channel can only have interceptors of unary calls")
        self._server = server
        self._interceptors = interceptors
        self._shown = shown
        self._calls: WeakSet[LocalCall] = WeakSet()
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        await self.close()
        return None

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls; cancel those that have not ended after so many seconds."""
        self._closed.set()
        ending = [asyncio.create_task(call.code()) for call in self._calls] if grace else []
        try:
            if ending:
                await asyncio.wait(ending, timeout=grace)
        finally:
            for late in ending:
                late.cancel()
            for call in list(self._calls):
                call.cancel()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """READY until it is closed."""
        return grpc.ChannelConnectivity.SHUTDOWN if self._closed.is_set() else grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return once the state is another."""
        if self.get_state() is last_observed_state:
            await self._closed.wait()

    async def channel_ready(self) -> None:
        """Return at once."""

    def unary_unary(
        self,
        method: str,
        request_serializer: Serialize = None,
        response_deserializer: Parse = None,
        _registered_method: bool = False,
    ) -> Any:
        """See `grpc.aio.Channel`."""
        begin = partial(self._begin, method, request_serializer, response_deserializer)
        return _OneRequest(begin) if not self._interceptors else _Intercepted(method, _OneRequest(begin), self._interceptors)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serialize = None,
        response_deserializer: Parse = None,
        _registered_method: bool = False,
    ) -> Any:
        """See `grpc.aio.Channel`."""
        return _OneRequest(partial(self._begin, method, request_serializer, response_deserializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: Serialize = None,
        response_deserializer: Parse = None,
        _registered_method: bool = False,
    ) -> Any:
        """See `grpc.aio.Channel`."""
        return _ManyRequests(partial(self._begin, method, request_serializer, response_deserializer))

    def stream_stream(
        self,
        method: str,
        request_serializer: Serialize = None,
        response_deserializer: Parse = None,
        _registered_method: bool = False,
    ) -> Any:
        """See `grpc.aio.Channel`."""
        return _ManyRequests(partial(self._begin, method, request_serializer, response_deserializer))

    def _begin(
        self, method: str, serialize: Serialize, parse: Parse, timeout: float | None, metadata: Metadata | None
    ) -> LocalCall:
        if self._closed.is_set():
            raise grpc.aio.UsageError("Channel is closed.")
        exchange = Exchange(method, tuple(metadata or ()), timeout, self._server.largest_message, self._shown)
        self._server.begin(exchange)
        call = LocalCall(exchange, serialize, parse)
        self._calls.add(call)
        return call


class _OneRequest:
    def __init__(self, begin: Callable[[float | None, Metadata | None], LocalCall]) -> None:
        self._begin = begin

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> LocalCall:
        call = self._begin(timeout, metadata)
        call.ask(request)
        return call


class _ManyRequests:
    def __init__(self, begin: Callable[[float | None, Metadata | None], LocalCall]) -> None:
        self._begin = begin

    def __call__(
        self,
        request_iterator: Requests | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> LocalCall:
        call = self._begin(timeout, metadata)
        if request_iterator is not None:
            call.feed(request_iterator)
        return call


class _Intercepted:
    """A method whose calls go through interceptors first."""

    def __init__(self, method: str, inner: _OneRequest, interceptors: Sequence[Any]) -> None:
        self._method = method
        self._inner = inner
        self._interceptors = interceptors

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> "_InterceptedCall":
        details = grpc.aio.ClientCallDetails(self._method, timeout, grpc.aio.Metadata(*(metadata or ())), None, wait_for_ready)
        go_on: Callable[..., Any] = self._call
        for one in reversed(self._interceptors):
            go_on = partial(one.intercept_unary_unary, go_on)
        return _InterceptedCall(partial(go_on, details, request))

    async def _call(self, details: grpc.aio.ClientCallDetails, request: Any) -> LocalCall:
        return self._inner(request, timeout=details.timeout, metadata=details.metadata)


class _InterceptedCall(grpc.aio.InterceptedUnaryUnaryCall):  # type: ignore[type-arg]  # generic in its stub alone
    """A call that interceptors may still be about to make. All of it is gRPC's; the call they end in is ours."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, LocalCall]]) -> None:
        self._make = make
        loop: Any = asyncio.get_running_loop()
        nothing: Any = None  # of what is asked for here, `_invoke` needs none
        super().__init__((), nothing, None, nothing, None, None, nothing, nothing, nothing, nothing, loop)

    async def _invoke(self, *_: Any) -> Any:
        return await self._make()

"""A server for callers in its own process: the servicers and interceptors of a `grpc.aio.Server`, without a port.

A call is served by a task of its own on the same loop, in the context the server was started in: nothing of the caller's comes
along but what the call carries. A caller has no address (`peer`), so a door that asks for one lets nobody in. It shows the
certificate that it would show on the wire (`auth_context`); nobody verifies it, for what is in the process has its keys.
"""

import asyncio
import contextvars
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

import grpc
import structlog

from mesh.handlers import Handler
from mesh.local_context import LocalContext
from mesh.local_exchange import Ending, Exchange, Metadata

_UNKNOWN = Ending(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
_STOPPED = Ending(grpc.StatusCode.UNAVAILABLE, "the server has stopped")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: Metadata


class LocalServer(grpc.aio.Server):
    """See the module.

    Args:
        interceptors: the first outermost.
        largest_message: bytes.
    """

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor], largest_message: int) -> None:
        self.largest_message = largest_message
        self._interceptors = interceptors
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._registered: dict[str, Mapping[str, Handler]] = {}
        self._under_way: dict[asyncio.Task[None], Exchange] = {}
        self._context: contextvars.Context | None = None  # while it serves

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """See `grpc.aio.Server`."""
        self._handlers.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Nothing here: whoever registers methods adds them as generic handlers, too."""
        self._registered[service_name] = method_handlers

    def share(self, server: grpc.aio.Server) -> None:
        """Have another server serve the same servicers."""
        server.add_generic_rpc_handlers(tuple(self._handlers))
        for name, methods in self._registered.items():
            server.add_registered_method_handlers(name, methods)

    def add_insecure_port(self, address: str) -> int:
        """There is no port."""
        raise NotImplementedError("a local server has no port")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """There is no port."""
        raise NotImplementedError("a local server has no port")

    async def start(self) -> None:
        """Take calls."""
        self._context = contextvars.copy_context()

    async def stop(self, grace: float | None) -> None:
        """Take no more calls; end those that have not ended after so many seconds."""
        self._context = None
        if grace and self._under_way:
            await asyncio.wait(self._under_way, timeout=grace)
        under_way = dict(self._under_way)
        for exchange in under_way.values():
            exchange.break_off(_STOPPED)
        await asyncio.gather(*under_way, return_exceptions=True)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Nobody waits for this one."""
        raise NotImplementedError("wait for the server that has the port")

    def begin(self, exchange: Exchange) -> None:
        """Serve a call."""
        if self._context is None:
            exchange.break_off(_STOPPED)
            return
        task = asyncio.get_running_loop().create_task(self._serve(exchange), name=exchange.method, context=self._context.copy())
        exchange.serving = task
        self._under_way[task] = exchange
        task.add_done_callback(self._under_way.pop)

    async def _serve(self, exchange: Exchange) -> None:
        context = LocalContext(exchange)
        try:
            handler = await self._handler(_Details(exchange.method, exchange.metadata), self._interceptors)
            if handler is None:
                exchange.answer(_UNKNOWN)
            else:
                await _run(handler, context)
                context.end()
        except (grpc.aio.AbortError, asyncio.CancelledError):
            exchange.answer(Ending(grpc.StatusCode.CANCELLED))  # unless it has ended, as an aborted one has
        except Exception as fault:
            _log.exception("a call failed past all that maps errors", method=exchange.method)
            exchange.answer(Ending(grpc.StatusCode.UNKNOWN, f"Unexpected {type(fault)}: {fault}"))

    async def _handler(self, details: grpc.HandlerCallDetails, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> Handler:
        if interceptors:
            return await interceptors[0].intercept_service(lambda passed: self._handler(passed, interceptors[1:]), details)
        found = (handler.service(details) for handler in self._handlers)
        return next((one for one in found if one is not None), None)


class LocalServers:
    """The servers of one process, by the addresses (host:port) that they have for everybody else."""

    def __init__(self) -> None:
        self._servers: dict[str, LocalServer] = {}

    @contextmanager
    def listed(self, address: str, server: LocalServer) -> Iterator[None]:
        """Have it found until the context ends.

        Raises:
            ValueError: another one has the address.
        """
        if address in self._servers:
            raise ValueError(f"two servers of this process are to be known as {address}: give each an advertised port of its own")
        self._servers[address] = server
        try:
            yield
        finally:
            del self._servers[address]

    def find(self, address: str) -> LocalServer | None:
        """The one behind an address of this process; None when none is, and it is to be dialled."""
        return self._servers.get(address)


async def _run(handler: Handler, context: LocalContext) -> None:
    context.speak(handler)
    behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    given = context.requests() if handler.request_streaming else await context.read()
    if not handler.response_streaming:
        await context.respond(await behaviour(given, context))
    elif inspect.isasyncgenfunction(behaviour):
        async with aclosing(behaviour(given, context)) as responses:
            async for response in responses:
                await context.write(response)
    else:
        await behaviour(given, context)

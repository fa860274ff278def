"""gRPC, as every service uses it: one way to serve, one way to call. Within one process without a socket, and else the same.

Server: health, reflection in development, keepalive, size limits; domain errors become statuses in one place; calls are counted
and traced. Client: one channel per node, deadlines that shrink from hop to hop, trace context passed on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry import context as trace_context
from opentelemetry import propagate, trace

from mesh import errors
from mesh.bulkhead import Bulkheads
from mesh.business import BusinessDoor
from mesh.certificates import dns_name
from mesh.handlers import Context, Handler, Reading, around
from mesh.local_channel import NOTHING_SHOWN, LocalChannel
from mesh.local_server import LocalServer, LocalServers
from mesh.mutual_tls import MeshDoor, MutualTls
from mesh.telemetry import Telemetry

MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # a batch of 1,000 envelopes of 16 KiB
_SIZE = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
_SERVER_OPTIONS = [
    *_SIZE,
    ("grpc.so_reuseport", 0),  # two processes on one port by mistake is an error, not a coin toss
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # without it a peer that is frozen is waited for a minute longer
    ("grpc.keepalive_permit_without_calls", 1),
]
_CHANNEL_OPTIONS = [
    *_SIZE,
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),  # a channel of one's own is a connection of one's own
]
_HOP_MARGIN = 0.9  # a callee gets this share of the caller's remaining time, so that its error still comes in time

_deadline: ContextVar[float | None] = ContextVar("tidings_deadline", default=None)
_log = structlog.get_logger(__name__)

AddServicer = Callable[[grpc.aio.Server], None]


@asynccontextmanager
async def serve(
    address: str,
    servicers: dict[str, AddServicer],
    telemetry: Telemetry,
    *,
    reflect: bool,
    drain_seconds: float,
    door: BusinessDoor | MeshDoor | None = None,
    local: LocalServers | None = None,
    known_as: Callable[[int], str] | None = None,
) -> AsyncIterator[int]:
    """Serve until the context ends; gives the port.

    Args:
        address: host:port; port 0 picks a free one.
        servicers: full service name -> function that adds its servicer to the server.
        telemetry: counts and traces the calls.
        reflect: list the services to tools that ask.
        drain_seconds: how long calls under way may take when the context ends.
        door: who may call; None for whoever reaches the port.
        local: where callers in this process find the same servicers, behind the same interceptors, without the port.
        known_as: the address, host:port, that the registry gives for the port; None for the one it has here.
    """
    interceptors = [_ServerInterceptor(telemetry), *([] if door is None else [door]), Bulkheads(telemetry), Reading()]
    server = grpc.aio.server(options=_SERVER_OPTIONS, interceptors=interceptors)
    nearby = LocalServer(interceptors, MAX_MESSAGE_BYTES)
    status = health.aio.HealthServicer()
    for add in servicers.values():
        add(nearby)
    health_pb2_grpc.add_HealthServicer_to_server(status, nearby)
    nearby.share(server)
    if reflect:
        names = [*servicers, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, server)
    credentials = None if door is None else door.credentials()
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    await asyncio.gather(server.start(), nearby.start())
    for name in ["", *servicers]:
        await status.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        known = known_as(port) if known_as is not None else f"{address.rpartition(':')[0]}:{port}"
        with nullcontext() if local is None else local.listed(known, nearby):
            yield port
    finally:
        await status.enter_graceful_shutdown()
        await asyncio.gather(server.stop(drain_seconds), nearby.stop(drain_seconds))


def channel(
    address: str, telemetry: Telemetry, service: str = "", tls: MutualTls | None = None, local: LocalServers | None = None
) -> grpc.aio.Channel:
    """A channel to one node. Close it explicitly, in the loop that made it.

    Args:
        address: host:port.
        telemetry: of the process that calls.
        service: which one is meant; over TLS another one that answers is refused.
        tls: None for plain text.
        local: servers that are called without dialling, when one of them is meant.
    """
    near = None if local is None else local.find(address)
    if near is not None:
        return LocalChannel(near, [_ClientInterceptor(telemetry)], NOTHING_SHOWN if tls is None else tls.shown)
    return _open(address, service, tls, [_ClientInterceptor(telemetry)])


def operator_channel(address: str, service: str, certificates: Path | None = None) -> grpc.aio.Channel:
    """A channel for a tool of the mesh's operators, which calls in the role `operator` and gives each call its own deadline.

    Args:
        address: host:port.
        service: which one is meant.
        certificates: a folder made by `tidings certs init`; None for a mesh in plain text.

    Raises:
        CertificateError: the folder has no usable certificate for an operator.
    """
    return _open(address, service, None if certificates is None else MutualTls.in_folder(certificates), [])


def _open(address: str, service: str, tls: MutualTls | None, interceptors: list[grpc.aio.ClientInterceptor]) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS, interceptors=interceptors)
    options = [*_CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", dns_name(service))]
    return grpc.aio.secure_channel(address, tls.channel(), options=options, interceptors=interceptors)


@contextmanager
def named_errors() -> Iterator[None]:
    """Turn a peer's status into the `TidingsError` it stands for."""
    try:
        yield
    except grpc.RpcError as error:
        raise errors.from_rpc_error(error) from error


def remaining(limit: float) -> float:
    """Seconds a call made now may take: `limit`, or less when the call being served has less left."""
    until = _deadline.get()
    if until is None:
        return limit
    return max(0.001, min(limit, (until - time.monotonic()) * _HOP_MARGIN))


class _ServerInterceptor(grpc.aio.ServerInterceptor):
    """The mapping of errors for every method; for unary ones also deadline, trace context and counting."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        method = details.method
        if handler is None:
            return None
        if handler.request_streaming or handler.response_streaming:
            return around(handler, partial(_named, method))
        inner = handler.unary_unary

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            left = context.time_remaining()
            _deadline.set(None if left is None else time.monotonic() + left)
            with self._telemetry.server_span(method, {key: str(value) for key, value in context.invocation_metadata() or ()}):
                return await self._answer(method, inner, request, context)

        return grpc.unary_unary_rpc_method_handler(call, handler.request_deserializer, handler.response_serializer)

    async def _answer(
        self, method: str, inner: Callable[..., Awaitable[Any]], request: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Any:
        started = time.perf_counter()
        outcome = "OK"
        try:
            return await inner(request, context)
        except errors.TidingsError as error:
            outcome = error.reason
            await context.abort_with_status(error.to_status())
        except (grpc.aio.AbortError, asyncio.CancelledError):
            outcome = "CANCELLED"
            raise
        except Exception:
            outcome = "INTERNAL"
            _log.exception("rpc failed", method=method)
            await context.abort_with_status(errors.internal("an unforeseen fault; the service's log has it").to_status())
        finally:
            self._telemetry.rpc(method, outcome, time.perf_counter() - started)


@asynccontextmanager
async def _named(method: str, context: Context) -> AsyncIterator[None]:
    """End a stream with the status of whatever error ends it."""
    try:
        yield
    except errors.TidingsError as error:
        await context.abort_with_status(error.to_status())
    except (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit):
        raise
    except Exception:
        _log.exception("stream failed", method=method)
        await context.abort_with_status(errors.internal("an unforeseen fault; the service's log has it").to_status())


class _ClientInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Passes on the trace context and what is left of the deadline."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    async def intercept_unary_unary(
        self, continuation: Callable[..., Awaitable[Any]], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        limit = 10.0 if details.timeout is None else details.timeout  # no call without a deadline
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if trace.get_current_span().get_span_context().is_valid:
            carrier: dict[str, str] = {}
            propagate.inject(carrier, trace_context.get_current())
            for key, value in carrier.items():
                metadata.add(key, value)
        passed = grpc.aio.ClientCallDetails(details.method, remaining(limit), metadata, details.credentials, details.wait_for_ready)
        return await continuation(passed, request)

"""A balancer: the fleet, its door, and the two faces of it."""

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib import metadata
from random import SystemRandom

from google.protobuf.timestamp_pb2 import Timestamp

from balancer import policies
from balancer.door import Caps, Door
from balancer.fleet import Fleet
from balancer.public_face import PublicFace
from balancer.rate_limit import RateLimit
from balancer.service import BalancerServicer
from balancer.settings import BalancerSettings
from mesh import naming, rpc
from mesh.credentials import TicketIssuer, TokenVerifier
from mesh.registry import Registry
from mesh.telemetry import Telemetry, admin_routes, listen
from tidings.balancer.v1 import balancer_pb2_grpc
from tidings.common.v1.instance_pb2 import Instance

SERVICE = "tidings.balancer.v1.BalancerService"
HEADER_SECONDS = 15.0  # from accept, or the last answer, to the end of a request's headers
ADDRESSES_REMEMBERED = 100_000  # by the rate limit: about 20 MB


@asynccontextmanager
async def serve(settings: BalancerSettings, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Instance]:
    """Serve until the context ends; gives the registered instance.

    Raises:
        ValueError: a setting it can't do without is missing.
    """
    fleet = Fleet()
    face = PublicFace(_door(fleet, settings), TokenVerifier(settings), _limit(settings), settings, telemetry)
    servicer = BalancerServicer(fleet, settings.default_capacity, time.monotonic)
    telemetry.gauge("balancer_edges", "Edges that report", lambda: len(fleet.edges()))
    telemetry.gauge("balancer_assignments_under_way", "Tickets not arrived yet", lambda: fleet.assignments_under_way)
    app = face.application()
    app.add_routes(admin_routes(telemetry, lambda: "" if fleet.edges() else "no edge reports its load yet"))
    async with AsyncExitStack() as stack:
        grpc_port = await stack.enter_async_context(_grpc(servicer, settings, telemetry))
        stack.callback(servicer.close)
        options = {"shutdown_timeout": settings.drain_seconds, "keepalive_timeout": HEADER_SECONDS}
        port = await stack.enter_async_context(listen(app, settings.host, settings.port, _tls(settings), **options))
        instance = _instance(settings, grpc_port, port)
        await stack.enter_async_context(registry.register(instance))
        yield instance


def _door(fleet: Fleet, settings: BalancerSettings) -> Door:
    secret = settings.ticket_secret.get_secret_value()
    if not secret:
        raise ValueError("ticket_secret is not set: give balancers and edges the same one, at least 32 bytes")
    caps = Caps(settings.connections_per_ip, settings.connections_per_user, settings.retry_after_seconds)
    return Door(fleet, policies.named(settings.policy), TicketIssuer(secret), caps, SystemRandom())


def _limit(settings: BalancerSettings) -> RateLimit | None:
    if settings.connects_per_second == 0:
        return None
    return RateLimit(settings.connects_per_second, settings.connect_burst, ADDRESSES_REMEMBERED)


def _grpc(servicer: BalancerServicer, settings: BalancerSettings, telemetry: Telemetry) -> AbstractAsyncContextManager[int]:
    return rpc.serve(
        f"{settings.host}:{settings.grpc_port}",
        {SERVICE: lambda server: balancer_pb2_grpc.add_BalancerServiceServicer_to_server(servicer, server)},
        telemetry,
        reflect=settings.reflection,
        drain_seconds=settings.drain_seconds,
    )


def _tls(settings: BalancerSettings) -> ssl.SSLContext | None:
    if not settings.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context


def _instance(settings: BalancerSettings, grpc_port: int, port: int) -> Instance:
    host, scheme, started = settings.advertised_host, "https" if settings.tls_certificate else "http", Timestamp()
    started.GetCurrentTime()
    return Instance(
        service="balancer",
        instance_id=naming.new_instance_id("balancer"),
        grpc_address=f"{host}:{grpc_port}",
        public_url=f"{scheme}://{host}:{port}",
        zone=settings.zone,
        start_time=started,
        version=metadata.version("tidings"),
    )

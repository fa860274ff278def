"""A balancer: the fleet, its door, and the two faces of it."""

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from random import SystemRandom

from balancer import policies
from balancer.door import Caps, Door
from balancer.fleet import Fleet
from balancer.leveller import Leveller
from balancer.placing import Placing
from balancer.public_face import PublicFace
from balancer.rate_limit import ConnectRate
from balancer.service import BalancerServicer
from balancer.sessions import Sessions
from balancer.settings import BalancerSettings
from mesh import naming, records, rpc
from mesh.cache import Cache
from mesh.credentials import TicketIssuer, TokenVerifier
from mesh.local_server import LocalServers
from mesh.mutual_tls import MeshDoor, MutualTls
from mesh.open_cache import open_cache
from mesh.process import background
from mesh.registry import Registry
from mesh.telemetry import Telemetry, listen, public_routes
from tidings.balancer.v1 import balancer_pb2_grpc
from tidings.common.v1.instance_pb2 import Instance

SERVICE = "tidings.balancer.v1.BalancerService"
HEADER_SECONDS = 15.0  # from accept, or the last answer, to the end of a request's headers


@asynccontextmanager
async def serve(settings: BalancerSettings, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Instance]:
    """Serve until the context ends; gives the registered instance.

    Raises:
        ValueError: a setting it can't do without is missing.
    """
    fleet = Fleet()
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(open_cache(settings.cache, telemetry))
        sessions = Sessions(fleet, cache.directory)
        door = _door(fleet, settings)
        face = PublicFace(door, TokenVerifier(settings), _rate(settings, cache), settings, telemetry)
        placing = Placing(door, telemetry, time.monotonic, time.time)
        servicer = BalancerServicer(fleet, settings.default_capacity, time.monotonic, sessions, placing)
        _publish(telemetry, fleet, sessions)
        app = face.application()
        app.add_routes(public_routes(telemetry, lambda: _missing(fleet), settings.admin_url))
        grpc_port = await stack.enter_async_context(_grpc(servicer, settings, telemetry, registry.local))
        stack.callback(servicer.close)
        # A connection that says nothing for so long is closed: the kernel need not ask whether it lives.
        options = {"shutdown_timeout": settings.drain_seconds, "keepalive_timeout": HEADER_SECONDS, "tcp_keepalive": False}
        port = await stack.enter_async_context(listen(app, settings.host, settings.port, _tls(settings), **options))
        instance = _instance(settings, grpc_port, port)
        leveller = _leveller(servicer, instance.instance_id, settings)
        await stack.enter_async_context(background(leveller.follow(registry), leveller.run()))
        await stack.enter_async_context(registry.register(instance))
        yield instance


def _missing(fleet: Fleet) -> str:
    return "" if fleet.edges() else "no edge reports its load yet"


def _publish(telemetry: Telemetry, fleet: Fleet, sessions: Sessions) -> None:
    telemetry.gauge("balancer_edges", "Edges that report", lambda: len(fleet.edges()))
    telemetry.gauge("balancer_assignments_under_way", "Tickets not arrived yet", lambda: fleet.assignments_under_way)
    description = "Share of the latest lookups of a user's sessions that the session directory answered in full"
    telemetry.gauge("session_store_hit_ratio", description, lambda: sessions.hit_ratio)


def _door(fleet: Fleet, settings: BalancerSettings) -> Door:
    secret = settings.ticket_secret.get_secret_value()
    if not secret:
        raise ValueError("ticket_secret is not set: give balancers and edges the same one, at least 32 bytes")
    caps = Caps(settings.connections_per_ip, settings.connections_per_user, settings.retry_after_seconds)
    return Door(fleet, policies.named(settings.policy), TicketIssuer(secret), caps, SystemRandom())


def _leveller(servicer: BalancerServicer, instance_id: str, settings: BalancerSettings) -> Leveller:
    pace = settings.rebalance_seconds, settings.rebalance_per_second, settings.rebalance_tolerance
    return Leveller(servicer, instance_id, *pace)


def _rate(settings: BalancerSettings, cache: Cache) -> ConnectRate | None:
    if settings.connects_per_second == 0:
        return None
    return ConnectRate(settings.connects_per_second, settings.connect_burst, cache.limits)


def _grpc(
    servicer: BalancerServicer, settings: BalancerSettings, telemetry: Telemetry, local: LocalServers | None
) -> AbstractAsyncContextManager[int]:
    return rpc.serve(
        f"{settings.host}:{settings.grpc_port}",
        {SERVICE: lambda server: balancer_pb2_grpc.add_BalancerServiceServicer_to_server(servicer, server)},
        telemetry,
        reflect=settings.reflection,
        drain_seconds=settings.drain_seconds,
        door=MeshDoor.of(MutualTls.of("balancer", settings)),
        local=local,
        known_as=settings.grpc_address,
    )


def _tls(settings: BalancerSettings) -> ssl.SSLContext | None:
    if not settings.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context


def _instance(settings: BalancerSettings, grpc_port: int, port: int) -> Instance:
    scheme = "https" if settings.tls_certificate else "http"
    url = settings.public_url or f"{scheme}://{settings.advertised_host}:{port}"
    return records.instance("balancer", settings, naming.new_instance_id("balancer"), grpc_port=grpc_port, public_url=url)

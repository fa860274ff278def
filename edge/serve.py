"""Builds an edge: collaborators in order, then the listener, then the registration; closed in reverse, clients first."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from edge import application, clockwork
from edge.api import Api
from edge.connection import Services
from edge.departures import Departures
from edge.door import Door
from edge.link import Link
from edge.listener import Listener, tls_context
from edge.load_report import LoadReport
from edge.longpoll import LongPoll
from edge.metrics import EdgeMetrics
from edge.peers import Peer, Peers
from edge.places import Places
from edge.population import Population
from edge.rules import Rules
from edge.session_directory import SessionChanges, SessionWriter
from edge.settings import EdgeSettings
from edge.switchboard import Switchboard
from edge.websocket import WebSocketHandler
from mesh import records
from mesh.cache import Cache
from mesh.credentials import TicketVerifier, TokenVerifier
from mesh.mutual_tls import MutualTls
from mesh.naming import new_instance_id
from mesh.open_cache import open_cache
from mesh.process import background
from mesh.registry import Registry
from mesh.telemetry import Telemetry, public_routes, watch_loop_lag
from tidings.common.v1.instance_pb2 import Instance


@asynccontextmanager
async def serve(settings: EdgeSettings, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Instance]:
    """Serve until the context ends; gives the instance as registered."""
    edge_id, tls = new_instance_id("edge"), MutualTls.of("edge", settings)
    edge = _Edge(settings, edge_id, telemetry)
    work = (
        clockwork.tick_sessions(edge.population, edge.switchboard, time.monotonic, _tick_seconds(settings)),
        clockwork.resync_sessions(edge.resync, edge.switchboard, time.monotonic, settings.resyncs_per_second),
        clockwork.write_broadcasts(edge.broadcasts, edge.switchboard, time.monotonic, time.time),
        watch_loop_lag(edge.on_lag),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(background(*work))
        cache = await stack.enter_async_context(open_cache(settings.cache, telemetry))
        await stack.enter_async_context(_directory(edge_id, cache, telemetry).following(edge.population))
        await stack.enter_async_context(Peers.following(registry, "router", edge.link, telemetry, tls))
        port = await stack.enter_async_context(edge.listener().serve(edge.application(telemetry)))
        instance = _instance(settings, edge_id, port)
        report = LoadReport(instance, edge.population, edge.departures, edge.places, edge.lag)
        await stack.enter_async_context(Peers.following(registry, "balancer", report.converse, telemetry, tls))
        registration = await stack.enter_async_context(registry.register(instance))
        try:
            yield instance
        finally:
            instance.draining = True
            edge.population.drain()
            async with background(registration.update(instance)):  # a registry that doesn't answer holds nobody back
                await edge.departures.leave(settings.drain_seconds)
            await edge.switchboard.say_all(settings.drain_seconds)


class _Edge:
    """The collaborators of one edge."""

    def __init__(self, settings: EdgeSettings, edge_id: str, telemetry: Telemetry) -> None:
        self._settings = settings
        self._edge_id = edge_id
        self._lag = 0.0
        self._rules = Rules.of(settings, edge_id)
        self._tokens = TokenVerifier(settings)
        self.resync = asyncio.Event()
        self.broadcasts = asyncio.Event()
        self.metrics = EdgeMetrics(telemetry)
        self.switchboard = Switchboard(
            settings.max_pending,
            settings.max_pending_bytes,
            self.metrics,
            time.monotonic,
            self.resync.set,
            self.broadcasts.set,
        )
        self.population = Population(settings.capacity, settings.connections_per_user)
        self.places = Places(time.monotonic)
        told = self.metrics.told_to_leave
        self.departures = Departures(self.population, self.places, self.switchboard.flush, told, time.monotonic)

    def application(self, telemetry: Telemetry) -> web.Application:
        """The public face."""
        settings, switchboard = self._settings, self.switchboard
        bound = (settings.outbox_bytes, settings.outbox_frames)
        services = Services(self._rules, switchboard, self._tokens, self.metrics, bound, time.monotonic)
        door = Door(
            settings.allowed_origins,
            self._tokens,
            self._tickets(),
            switchboard.json,
            self.population.refusal,
            settings.trust_forwarded_for,
        )
        websocket = WebSocketHandler(services, door, self.population, settings.max_frame_bytes)
        long_poll = LongPoll(services, door, self.population, settings.poll_seconds, settings.body_seconds)
        api = Api(settings, self._rules, door, switchboard)
        health = public_routes(telemetry, self.missing, settings.admin_url)
        return application.build(websocket, long_poll, api, door, telemetry, health, switchboard.refused)

    def listener(self) -> Listener:
        """Where clients come in."""
        settings = self._settings
        tls = tls_context(settings.tls_certificate, settings.tls_key)
        return Listener(settings.host, settings.port, tls, settings.header_seconds)

    async def link(self, peer: Peer) -> None:
        """Talk to one router until the stream ends."""
        await Link(peer, self._edge_id, self.switchboard).run()

    def missing(self) -> str:
        """What this edge needs before it can serve; empty when nothing."""
        if self.population.draining:
            return "draining"
        return "" if self.switchboard.links else "no router"

    def lag(self) -> float:
        """Seconds the event loop ran late when last looked at."""
        return self._lag

    def on_lag(self, seconds: float) -> None:
        """The event loop was looked at."""
        self._lag = seconds

    def _tickets(self) -> TicketVerifier | None:
        secret = self._settings.ticket_secret.get_secret_value()
        return TicketVerifier(secret, self._edge_id) if secret else None


def _directory(edge_id: str, cache: Cache, telemetry: Telemetry) -> SessionWriter:
    changes = SessionChanges(edge_id, time.time)
    description = "Removals from the session directory that found no room"
    telemetry.gauge("session_directory_dropped_removals", description, lambda: changes.dropped)
    return SessionWriter(edge_id, changes, cache.directory, time.monotonic)


def _tick_seconds(settings: EdgeSettings) -> float:
    """How often to look at deadlines: a quarter of the shortest, at most once a second."""
    return min(1.0, settings.handshake_seconds / 4, settings.heartbeat_limit_seconds / 4, settings.acknowledge_seconds / 4)


def _instance(settings: EdgeSettings, edge_id: str, port: int) -> Instance:
    scheme = "wss" if settings.tls_certificate else "ws"
    url = settings.public_url or f"{scheme}://{settings.advertised_host}:{port}"
    return records.instance("edge", settings, edge_id, public_url=url, capacity=settings.capacity)

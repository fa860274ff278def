"""Builds a scheduler: collaborators in order, then the server, then the registration; closed in reverse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from mesh import process, records, rpc
from mesh.business import BusinessDoor
from mesh.followed_clock import FollowedClock
from mesh.mutual_tls import MutualTls
from mesh.naming import new_instance_id
from mesh.nodes import NodePool
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from scheduler.aside import Aside
from scheduler.audiences import Audiences
from scheduler.claims import Claims
from scheduler.controls import Controls
from scheduler.due import DueLoop
from scheduler.grpc_routers import GrpcRouters
from scheduler.grpc_store import GrpcNotificationStore, GrpcUsers
from scheduler.grpc_tags import GrpcTags
from scheduler.handover import Handover
from scheduler.hints import RefreshHints
from scheduler.listing import Listing
from scheduler.meters import Meters
from scheduler.pace import Pace
from scheduler.recipients import Recipients
from scheduler.recurrence import Calendar
from scheduler.series import Series
from scheduler.service import NotificationServicer
from scheduler.settings import SchedulerSettings
from scheduler.timing import Lifetimes
from scheduler.uploads import Uploads
from scheduler.watches import Watches
from tidings.common.v1.instance_pb2 import Instance
from tidings.scheduler.v1.scheduler_pb2_grpc import add_NotificationServiceServicer_to_server


@asynccontextmanager
async def serve(
    settings: SchedulerSettings, registry: Registry, telemetry: Telemetry, own: FollowedClock | None = None
) -> AsyncIterator[Instance]:
    """Serve until the context ends; gives the instance as registered.

    Args:
        own: the clock to begin with; it is put right by the store's.
    """
    clock = own or FollowedClock()
    scheduler_id = new_instance_id("scheduler")
    meters, tls = Meters(telemetry), MutualTls.of("scheduler", settings)
    async with (
        NodePool.open(registry, "store", telemetry, meters.retried, tls) as stores,
        NodePool.open(registry, "tagsvc", telemetry, meters.retried, tls) as tags,
        NodePool.open(registry, "router", telemetry, meters.retried, tls) as router_pool,
    ):
        store, users = GrpcNotificationStore(stores, clock), GrpcUsers(stores)
        routers = GrpcRouters(router_pool, settings.handover_seconds)
        calendar, lifetimes = Calendar.load(), Lifetimes.of(settings)
        woken = asyncio.Event()
        claims = Claims(store, scheduler_id, settings.lease_seconds, settings.claim_ahead_seconds)
        series = Series(store, calendar, clock)
        aside = Aside(settings.claim_aside, settings.lease_seconds)
        handover = Handover(routers, claims, meters, aside, settings.claim_room, woken.set)
        due = DueLoop(claims, series, handover, Pace(settings.poll_seconds), meters, settings.claim_batch, woken, clock)
        hints = RefreshHints(routers)
        watches = Watches(store, settings.watch_seconds, settings.max_watches)
        audiences = Audiences(users, GrpcTags(tags))
        uploads = Uploads(store, audiences, calendar, lifetimes, settings.max_content_bytes, clock, woken.set)
        controls = Controls(store, series, hints, lifetimes, clock, woken.set)
        service = NotificationServicer(uploads, controls, Listing(store), watches, audiences, Recipients(store, users))
        telemetry.gauge("scheduler_held", "Notifications claimed of which no router has been told", lambda: len(handover))
        telemetry.gauge("scheduler_held_apart", "Notifications claimed that a router refused or didn't answer", lambda: len(aside))
        telemetry.gauge("scheduler_watches", "Notifications being watched by callers", lambda: len(watches))
        servicers: dict[str, rpc.AddServicer] = {
            "tidings.scheduler.v1.NotificationService": partial(add_NotificationServiceServicer_to_server, service)
        }
        server = rpc.serve(
            f"{settings.host}:{settings.port}",
            servicers,
            telemetry,
            reflect=settings.reflection,
            drain_seconds=settings.drain_seconds,
            door=BusinessDoor(settings),
        )
        work = process.background(due.run(), hints.run(), watches.run())
        async with work, server as port:
            instance = records.instance("scheduler", settings, scheduler_id, grpc_port=port)
            async with registry.register(instance) as registration:
                try:
                    yield instance
                finally:
                    instance.draining = True
                    await registration.update(instance)
                    watches.close()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(due.stop(), settings.drain_seconds)

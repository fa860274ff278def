"""Builds a tagsvc: collaborators in order, then its two servers, then the registration; closed in reverse."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from mesh import process, records, rpc
from mesh.business import BusinessDoor
from mesh.mutual_tls import MeshDoor, MutualTls
from mesh.naming import new_instance_id
from mesh.nodes import NodePool
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from tagsvc.audience import Audience
from tagsvc.checkpoints import Checkpoints, Due
from tagsvc.deletions import Deletions
from tagsvc.grpc_store import GrpcStore
from tagsvc.history import Bounds
from tagsvc.journal import Journal
from tagsvc.mapping import Mapping
from tagsvc.meters import Meters
from tagsvc.ordinals import Ordinals
from tagsvc.people import People
from tagsvc.questions import Questions
from tagsvc.service_audience import AudienceServicer
from tagsvc.service_tags import TagServicer
from tagsvc.settings import TagsvcSettings
from tagsvc.watches import Watches
from tagsvc.workbench import Workbench
from tagsvc.writer import Writer
from tidings.common.v1.instance_pb2 import Instance
from tidings.tag.v1.audience_pb2_grpc import add_AudienceServiceServicer_to_server
from tidings.tag.v1.tag_pb2_grpc import add_TagServiceServicer_to_server


@asynccontextmanager
async def serve(settings: TagsvcSettings, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Instance]:
    """Serve until the context ends; gives the instance as registered. Calls are UNAVAILABLE until it has caught up with the log."""
    meters, tls = Meters(telemetry), MutualTls.of("tagsvc", settings)
    async with NodePool.open(registry, "store", telemetry, meters.retried, tls) as pool:
        store = GrpcStore(pool)
        journal = Journal(store, _bounds(settings))
        writer = Writer(store, journal, time.time_ns, settings.write_queue, settings.write_seconds, meters.appended)
        ordinals = Ordinals(store, settings.cached_users, settings.request_seconds, journal.learn_known)
        workbench = Workbench(settings.evaluations, meters)
        questions = Questions(journal, ordinals, store, workbench)
        people = People(journal, ordinals)
        mapping = Mapping(journal, ordinals, writer, meters, settings.mapping_chunks, settings.max_tags)
        watches = Watches(journal)
        checkpoints = Checkpoints(store, journal, Due(settings.checkpoint_records, settings.checkpoint_bytes), meters)
        tags = TagServicer(journal, writer, Deletions(journal, writer, store), mapping, people, questions, settings.max_tags)
        audience = AudienceServicer(Audience(questions, workbench, people), watches)
        _publish(telemetry, journal, writer, watches, ordinals)
        servicers: dict[str, rpc.AddServicer] = {
            "tidings.tag.v1.TagService": partial(add_TagServiceServicer_to_server, tags),
            "tidings.tag.v1.AudienceService": partial(add_AudienceServiceServicer_to_server, audience),
        }
        options: dict[str, Any] = {"reflect": settings.reflection, "drain_seconds": settings.drain_seconds}
        inside: dict[str, Any] = {"door": MeshDoor.of(tls), "local": registry.local, "known_as": settings.grpc_address}
        async with (
            process.background(journal.run(), writer.run(), checkpoints.run()),
            rpc.serve(f"{settings.host}:{settings.mesh_port}", servicers, telemetry, **inside, **options) as mesh_port,
            rpc.serve(f"{settings.host}:{settings.port}", servicers, telemetry, door=BusinessDoor(settings), **options) as port,
        ):
            url = f"{settings.advertised_host}:{port}"
            instance = records.instance("tagsvc", settings, new_instance_id("tagsvc"), grpc_port=mesh_port, public_url=url)
            async with registry.register(instance) as registration:
                try:
                    yield instance
                finally:
                    instance.draining = True
                    await registration.update(instance)
                    watches.stop()
                    mapping.stop()


def _bounds(settings: TagsvcSettings) -> Bounds:
    return Bounds(
        snapshots=settings.kept_snapshots,
        snapshot_bytes=settings.kept_snapshot_bytes,
        pinned=settings.pinned_snapshots,
        records=settings.kept_records,
        record_bytes=settings.kept_record_bytes,
    )


def _publish(telemetry: Telemetry, journal: Journal, writer: Writer, watches: Watches, ordinals: Ordinals) -> None:
    telemetry.gauge("tagsvc_snapshot_version", "Version of the newest snapshot", lambda: journal.history.version)
    telemetry.gauge("tagsvc_tags", "Tags", lambda: len(journal.history.newest.tags))
    telemetry.gauge("tagsvc_combinations", "Combinations", lambda: len(journal.history.newest.combinations))
    telemetry.gauge("tagsvc_members", "Memberships", lambda: sum(len(one.members) for one in journal.history.newest.tags.values()))
    telemetry.gauge("tagsvc_known_clients", "Clients known", lambda: journal.known)
    telemetry.gauge("tagsvc_write_queue", "Changes waiting to be logged", lambda: len(writer))
    telemetry.gauge("tagsvc_watchers", "Callers that watch snapshots", lambda: len(watches))
    telemetry.gauge("tagsvc_cached_users", "Users whose ordinals are held in memory", lambda: len(ordinals))

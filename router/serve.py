"""Builds a router: collaborators in order, then the server, then the registration; closed in reverse."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from mesh import process, records, rpc
from mesh.mutual_tls import MeshDoor, MutualTls
from mesh.naming import new_instance_id
from mesh.nodes import NodePool
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from router.append import AppendPipeline
from router.append_stream import AppendStream
from router.conversation_service import ConversationServicer
from router.conversations import Conversations
from router.dead_letters import DeadLetters
from router.device_requests import DeviceRequests
from router.directory import Directory, Ordinals
from router.dispatch import DispatchMarks
from router.fan_out import FanOut
from router.grpc_store import GrpcStore
from router.link import EdgeLink
from router.links import Links
from router.log_fan_out import LogFanOut
from router.membership import MembershipCache
from router.meters import Meters
from router.notification_assembly import NotificationAssembly
from router.notification_service import NotificationServicer
from router.peers import Peers
from router.presence import PresenceBoard
from router.presence_notices import PresenceNotices
from router.receipts import Receipts
from router.redispatch import Redispatch
from router.replays import Replays
from router.roster import Roster
from router.service import Bounds, LinkServicer
from router.settings import RouterSettings
from router.typing_notices import TypingNotices
from router.typists import Typists
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1.conversation_pb2_grpc import add_ConversationServiceServicer_to_server
from tidings.router.v1.link_pb2_grpc import add_LinkServiceServicer_to_server
from tidings.router.v1.notification_pb2_grpc import add_NotificationServiceServicer_to_server

_QUEUE = 50_000  # small requests waiting for a batched call
_TYPISTS = 100_000
_REPLAY_SECONDS = 5.0  # between two looks at most: somebody waits for it


@asynccontextmanager
async def serve(settings: RouterSettings, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Instance]:
    """Serve until the context ends; gives the instance as registered."""
    router_id = new_instance_id("router")
    within = settings.request_seconds
    meters, tls = Meters(telemetry), MutualTls.of("router", settings)
    stores = NodePool.open(registry, "store", telemetry, meters.retried, tls)
    async with stores as pool, NodePool.open(registry, "tagsvc", telemetry, tls=tls) as tags:
        store = GrpcStore(pool)
        peers = Peers(router_id)
        roster: Roster[EdgeLink] = Roster()
        marks: DispatchMarks[EdgeLink] = DispatchMarks(_QUEUE)
        fan_out = FanOut(roster, marks)
        cache = MembershipCache(settings.cached_members)
        directory = Directory(cache, store)
        ordinals = Ordinals(store, _QUEUE, within)
        typing = TypingNotices(Typists(_TYPISTS), directory, fan_out, meters)
        board: PresenceBoard[EdgeLink] = PresenceBoard(settings.max_watched_users, settings.presence_grace_seconds)
        presence = PresenceNotices(board, roster, store, peers, settings.max_watched_users, within)
        letters = DeadLetters(store)
        receipts = Receipts(_QUEUE, store, directory, fan_out, letters)
        redispatch = Redispatch(
            store,
            directory,
            LogFanOut(store, directory, fan_out, marks, letters),
            marks,
            peers,
            settings.redispatch_seconds,
            settings.redispatch_age_seconds,
        )
        unnoted: DispatchMarks[EdgeLink] = DispatchMarks(0)
        again = LogFanOut(store, directory, FanOut(roster, unnoted), unnoted, DeadLetters(store, of_replay=True))
        replays = Replays(store, again, peers, min(settings.redispatch_seconds, _REPLAY_SECONDS))
        appender = AppendStream(pool, meters)
        pipeline = AppendPipeline(
            settings.append_queue, settings.append_batch, directory, appender, fan_out, typing, redispatch.again, meters
        )
        devices = DeviceRequests(store, ordinals, settings.history_limit, settings.page_entries, settings.max_page_entries, within)
        kinds = {
            "open_session": devices.open_session,
            "sync_device": devices.sync_device,
            "append_entry": pipeline.accept,
            "typing": typing.accept,
            "watch_users": presence.accept,
            "fetch_entries": devices.fetch_entries,
        }
        many = NotificationAssembly(settings, pool, tags, store, roster, meters)
        links = Links(roster, presence, receipts, many.table, many.acknowledgements, kinds)
        bounds = Bounds(settings.link_deliveries, settings.link_bytes, settings.link_broadcasts, settings.link_broadcast_bytes)
        budget = min(settings.envelope_budget, settings.append_queue)
        service = LinkServicer(router_id, links, pipeline, receipts, meters, bounds, budget)
        conversations = Conversations(store, store, directory, ordinals, fan_out, pipeline)
        telemetry.gauge("router_links", "Edges linked to this router", lambda: len(links))
        telemetry.gauge("router_append_queue", "Messages between a client and the log", lambda: len(pipeline))
        telemetry.gauge("router_credit", "Envelopes that edges may have unanswered here", lambda: sum(one.credit for one in links))
        telemetry.gauge("router_history_reads", "Reads of history under way or waiting", lambda: store.reads)
        telemetry.gauge("router_receipt_queue", "Receipt deltas waiting", lambda: len(receipts))
        telemetry.gauge("router_link_queue", "Live pushes waiting, over all links", lambda: sum(len(one.outbox) for one in links))
        telemetry.gauge("router_cached_members", "Members held in memory", lambda: cache.members)
        many.observe(telemetry)
        work = process.background(
            *many.work(),
            peers.follow(registry),
            ordinals.run(),
            typing.run(),
            typing.expire(),
            presence.run(),
            presence.tick(),
            presence.record(),
            receipts.run(),
            redispatch.repeat(),
            redispatch.note(links, settings.dispatch_seconds),
            redispatch.search(),
            replays.run(),
            replays.note(links, settings.dispatch_seconds),
            appender.run(),
            pipeline.feed(),
            pipeline.settle(),
            devices.run_syncs(),
            devices.run_fetches(),
            service.tell_all(),
        )
        servicers: dict[str, rpc.AddServicer] = {
            "tidings.router.v1.LinkService": partial(add_LinkServiceServicer_to_server, service),
            "tidings.router.v1.ConversationService": partial(
                add_ConversationServiceServicer_to_server, ConversationServicer(conversations)
            ),
            "tidings.router.v1.NotificationService": partial(
                add_NotificationServiceServicer_to_server, NotificationServicer(many.notifications)
            ),
        }
        server = rpc.serve(
            f"{settings.host}:{settings.port}",
            servicers,
            telemetry,
            reflect=settings.reflection,
            drain_seconds=settings.drain_seconds,
            door=MeshDoor.of(tls),
            local=registry.local,
            known_as=settings.grpc_address,
        )
        async with work, server as port:
            instance = records.instance("router", settings, router_id, grpc_port=port, capacity=settings.capacity)
            async with registry.register(instance) as registration:
                try:
                    yield instance
                finally:
                    instance.draining = True
                    await registration.update(instance)
                    await presence.stop(settings.drain_seconds)
                    await many.notifications.leave(settings.drain_seconds)
                    await service.drain(settings.drain_seconds)
                    await many.acknowledgements.idle(settings.drain_seconds)
                    await redispatch.note_all(links)

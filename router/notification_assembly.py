"""Builds what a router needs for notifications: a list, as `serve` is."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from mesh.followed_clock import FollowedClock
from mesh.nodes import NodePool
from mesh.telemetry import Telemetry
from mesh.times import SECOND
from router.expansion import Expansions, TagServiceMeaning
from router.failed_runs import FailedRuns
from router.grpc_notifications import GrpcAudienceService, GrpcNotificationStore
from router.link import EdgeLink
from router.meters import Meters
from router.notification_acks import GatheredAcks, NotificationAcks
from router.notification_table import RunTable
from router.notifications import Notifications
from router.ports import UserStore
from router.preparation import WORKERS, Preparation
from router.progress import ProgressWriter
from router.replica_meaning import ReplicaMeaning
from router.roster import Roster
from router.sender import Sender
from router.settings import RouterSettings
from router.tag_replica import TagReplica


class NotificationAssembly:
    """The collaborators, put together.

    Args:
        stores, tags: instances of the store and of tagsvc.

    Attributes:
        table: told who comes online.
        acknowledgements: told what edges say.
        notifications: told what schedulers say.
    """

    def __init__(
        self, settings: RouterSettings, stores: NodePool, tags: NodePool, users: UserStore, roster: Roster[EdgeLink], meters: Meters
    ) -> None:
        lease, capacity = settings.lease_seconds, settings.notification_runs
        resend = settings.resend_seconds, settings.resend_longest_seconds
        clock = FollowedClock()
        store, audiences = GrpcNotificationStore(stores, clock), GrpcAudienceService(tags)
        self._due = asyncio.Event()
        self._failed = FailedRuns(store, capacity)
        self.table = RunTable(
            capacity, settings.notification_bytes, lease, resend, self._due.set, meters.run_ended, self._failed.add
        )
        self._replica = TagReplica(audiences) if settings.replicate_tags else None
        fallback = ReplicaMeaning(self._replica, users, store) if self._replica else None
        expansions = Expansions(TagServiceMeaning(audiences, settings.expand_seconds), fallback)
        sender = Sender(self.table, roster, meters)
        self._preparation = Preparation(self.table, store, expansions, sender, 2 * capacity, lease, wall=lambda: clock() / SECOND)
        progress = ProgressWriter(self.table, store, sender, lease, wall=lambda: clock() / SECOND)
        self.notifications = Notifications(self.table, self._preparation, progress, store, roster, self._due)
        here = GatheredAcks(settings.acknowledged_notifications, settings.acknowledged_bytes)
        elsewhere = GatheredAcks(settings.acknowledged_elsewhere, settings.acknowledged_bytes // 16)
        self.acknowledgements = NotificationAcks(
            here,
            elsewhere,
            lambda notification_id: self.table.get(notification_id) is not None,
            store,
            meters,
            settings.acknowledge_seconds,
            self.notifications.recorded,
        )

    def observe(self, telemetry: Telemetry) -> None:
        """Tell how much there is of each."""
        replica = self._replica
        telemetry.gauge("router_notification_runs", "Notifications under way", lambda: len(self.table))
        telemetry.gauge("router_notification_bytes", "Bytes that notifications under way hold", lambda: self.table.bytes)
        telemetry.gauge(
            "router_notification_acknowledgements", "Notifications to be acknowledged", lambda: len(self.acknowledgements)
        )
        if replica:
            telemetry.gauge("router_tag_version", "Version of the tags kept here; 0 for none", lambda: replica.version)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside the server."""
        workers = [self._preparation.work() for _ in range(WORKERS)]
        follow = [self._replica.follow()] if self._replica else []
        driving = [self._preparation.read_all(), *workers, self.notifications.drive(), self._failed.tell()]
        return [*driving, self.acknowledgements.run(), *follow]

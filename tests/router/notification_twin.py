"""Notifications in memory behind the store's contract, with its states, fences, leases and sums. It can be made to fail: refuse,
hold its answers, or lose them after it has written."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from mesh import errors
from mesh.times import clock, timestamp
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.store.v1 import notification_pb2 as pb
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceServicer, add_NotificationStoreServiceServicer_to_server

RUNNING = (common.NOTIFICATION_STATE_EXPANDING, common.NOTIFICATION_STATE_SENDING)
_CHUNK = 1 << 16
_CLOCKS_APART = 1.0  # seconds an owner's clock may be ahead


@dataclass
class Kept:
    """One notification."""

    notification_id: str
    spec: common.NotificationSpec
    recipients: BitMap
    excluded: BitMap
    state: common.NotificationState.ValueType = common.NOTIFICATION_STATE_SCHEDULED
    fence: int = 0
    lease_until: float = 0.0
    snapshot_version: int = 0
    reason: str = ""
    expansion: BitMap = field(default_factory=BitMap)
    sent: BitMap = field(default_factory=BitMap)
    delivered: BitMap = field(default_factory=BitMap)
    failed: BitMap = field(default_factory=BitMap)

    @property
    def over(self) -> bool:
        """Whether it is."""
        return self.state >= common.NOTIFICATION_STATE_COMPLETED

    @property
    def expires(self) -> float:
        """In seconds since 1970."""
        return self.spec.expire_time.ToMicroseconds() / 1e6

    def report(self) -> common.NotificationReport:
        """Its numbers; they always sum up."""
        rest = len(self.expansion) - len(self.delivered) - len(self.failed)
        part = "expired" if self.over else "pending"
        part = "cancelled" if self.state == common.NOTIFICATION_STATE_CANCELLED else part
        return common.NotificationReport(
            notification_id=self.notification_id,
            state=self.state,
            expansion=len(self.expansion),
            sent=len(self.sent),
            delivered=len(self.delivered),
            failed=len(self.failed),
            snapshot_version=self.snapshot_version,
            reason=self.reason,
            **{part: rest},  # type: ignore[arg-type]
        )

    def stored(self, view: pb.NotificationView.ValueType = pb.NOTIFICATION_VIEW_FULL) -> pb.StoredNotification:
        """As callers see it."""
        stored = self._stored()
        if view in (pb.NOTIFICATION_VIEW_ORDINALS, pb.NOTIFICATION_VIEW_BRIEF):
            del stored.spec.audience.recipient_ids[:]
            del stored.spec.audience.excluded_ids[:]
        if view == pb.NOTIFICATION_VIEW_BRIEF:
            for name in ("recipient_ordinals", "excluded_ordinals"):
                stored.ClearField(name)
            stored.spec.ClearField("audience")
        return stored

    def _stored(self) -> pb.StoredNotification:
        return pb.StoredNotification(
            notification_id=self.notification_id,
            spec=self.spec,
            recipient_ordinals=self.recipients.serialize(),
            excluded_ordinals=self.excluded.serialize(),
            report=self.report(),
            fence=self.fence,
        )

    def owned(self, claim: pb.Claim) -> bool:
        """Whether a claim is the one now."""
        return self.fence == claim.fence and self.state in RUNNING

    def settle(self) -> None:
        """Everybody has it, or can't be sent it."""
        if self.state == common.NOTIFICATION_STATE_SENDING and self.report().pending == 0:
            self.state = common.NOTIFICATION_STATE_COMPLETED

    def expire(self) -> None:
        """Its time is up."""
        self.state = common.NOTIFICATION_STATE_COMPLETED if self.sent else common.NOTIFICATION_STATE_EXPIRED


class NotificationMemory:
    """What a database would hold of notifications, and what to do wrong.

    Attributes:
        answering: cleared to hold the answers to SaveProgress, and those to SaveExpansion if it takes steps, once written.
        lose_answers: so many calls of SaveProgress write, then fail.
        takes_first: whether SaveExpansion takes who is sent it first, as stores do; without, only SaveProgress writes steps.
        lose_expansions: so many calls of SaveExpansion write, then fail.
        refuse: error for every call.
        refused: how many got it.
        poison: a call of SaveProgress that names this notification is refused as a whole.
        answer_bytes: of records in one answer at most.
        before_expansion: done at the beginning of each SaveExpansion.
        progress: sizes of the calls of SaveProgress.
        acknowledged: calls of RecordDelivered.
        failed_runs: what owners could not do, in order.
        steps: every step written, in order.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.answering = asyncio.Event()
        self.answering.set()
        self.lose_answers = 0
        self.takes_first = False
        self.lose_expansions = 0
        self.refuse: errors.TidingsError | None = None
        self.refused = 0
        self.poison = ""
        self.answer_bytes = 12 * 1024 * 1024
        self.before_expansion: Callable[[Kept], None] = lambda one: None
        self.progress: list[int] = []
        self.acknowledged = 0
        self.failed_runs: list[pb.FailedRun] = []
        self.steps: list[tuple[str, BitMap]] = []
        self.changed = asyncio.Condition()

    def put(
        self, name: str, *recipients: int, due_in: float = 0.0, seconds: float = 600.0, excluded: tuple[int, ...] = (), **spec: Any
    ) -> Kept:
        """A notification that is due, or will be; `name` is padded to an id."""
        notification_id = notification(name)
        made = common.NotificationSpec(
            content=Content(text=Text(text=name)),
            send_time=_timestamp(time.time() + due_in),
            expire_time=_timestamp(time.time() + seconds),
            **spec,
        )
        kept = self.kept[notification_id] = Kept(notification_id, made, BitMap(recipients), BitMap(excluded))
        return kept

    def claim(self, limit: int = 1000) -> list[pb.Claim]:
        """Give what is due and has no owner."""
        due = [one for one in self.kept.values() if self._due(one)]
        due.sort(key=lambda one: (-one.spec.priority, one.spec.send_time.ToMicroseconds(), one.notification_id))
        claims = []
        for one in due[:limit]:
            one.fence += 1
            one.lease_until = time.time() + 10.0
            one.state = common.NOTIFICATION_STATE_SENDING if one.expansion else common.NOTIFICATION_STATE_EXPANDING
            claims.append(pb.Claim(notification_id=one.notification_id, fence=one.fence))
        return claims

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something written here holds."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(holds), 10)

    async def tell(self) -> None:
        """Something was written."""
        async with self.changed:
            self.changed.notify_all()

    def service(self) -> dict[str, Callable[[Any], None]]:
        """To be served beside the store's other services."""
        servicer = _Servicer(self)  # type: ignore[abstract]  # without what no router calls
        return {
            "tidings.store.v1.NotificationStoreService": lambda s: add_NotificationStoreServiceServicer_to_server(servicer, s),
        }

    @staticmethod
    def _due(one: Kept) -> bool:
        waits = one.state == common.NOTIFICATION_STATE_SCHEDULED
        return waits or (one.state in RUNNING and one.lease_until <= time.time())


class _Servicer(NotificationStoreServiceServicer):
    def __init__(self, memory: NotificationMemory) -> None:
        self.memory = memory

    async def GetNotifications(self, request: pb.GetNotificationsRequest, context: Any) -> pb.GetNotificationsResponse:
        self._refuse()
        kept = self.memory.kept
        found = [kept[one].stored(request.view) for one in request.notification_ids if one in kept]
        if sum(one.ByteSize() for one in found) > self.memory.answer_bytes:
            raise errors.invalid_field("notification_ids", "fewer")
        return pb.GetNotificationsResponse(notifications=found, store_time=timestamp(clock()))

    async def ControlNotification(self, request: pb.ControlNotificationRequest, context: Any) -> pb.ControlNotificationResponse:
        one = self.memory.kept[request.notification_id]
        action = request.WhichOneof("action")
        if action == "prioritize":
            one.spec.priority = request.prioritize.priority
        elif action == "resume":
            one.state, one.lease_until = common.NOTIFICATION_STATE_SCHEDULED, 0.0
        else:
            one.fence += 1
            one.state = common.NOTIFICATION_STATE_CANCELLED if action == "cancel" else common.NOTIFICATION_STATE_PAUSED
        await self.memory.tell()
        return pb.ControlNotificationResponse(notification=one.stored())

    async def ReleaseNotifications(self, request: pb.ReleaseNotificationsRequest, context: Any) -> pb.ReleaseNotificationsResponse:
        self._refuse()
        for claim in request.claims:
            if self.memory.kept[claim.notification_id].owned(claim):
                self.memory.kept[claim.notification_id].lease_until = 0.0
        for run in request.failed_runs:
            if self.memory.kept[run.claim.notification_id].owned(run.claim):
                self.memory.kept[run.claim.notification_id].lease_until = 0.0
                self.memory.failed_runs.append(run)
        await self.memory.tell()
        return pb.ReleaseNotificationsResponse()

    async def SaveExpansion(self, request: pb.SaveExpansionRequest, context: Any) -> pb.SaveExpansionResponse:
        self._refuse()
        one = self.memory.kept[request.claim.notification_id]
        self.memory.before_expansion(one)
        first = BitMap()
        if not one.owned(request.claim):
            raise errors.fenced(one.notification_id)
        if one.state == common.NOTIFICATION_STATE_EXPANDING:
            one.expansion = _read(request.expansion.user_ordinals)
            one.snapshot_version = request.expansion.snapshot_version
            one.state = common.NOTIFICATION_STATE_SENDING
            first = self._first(one, request)
            one.settle()
        one.lease_until = time.time() + request.lease.ToTimedelta().total_seconds()
        await self.memory.tell()
        if self.memory.takes_first:
            await self.memory.answering.wait()
        if self.memory.lose_expansions:
            self.memory.lose_expansions -= 1
            raise errors.unavailable("the answer was lost")
        return pb.SaveExpansionResponse(report=one.report(), sent_stored=bool(first))

    def _first(self, one: Kept, request: pb.SaveExpansionRequest) -> BitMap:
        first = _read(request.sent_ordinals) & one.expansion
        if not first or not self.memory.takes_first:
            return BitMap()
        self.memory.steps.append((one.notification_id, first))
        one.sent |= first
        return first

    async def SaveProgress(self, request: pb.SaveProgressRequest, context: Any) -> pb.SaveProgressResponse:
        self._refuse()
        if any(progress.claim.notification_id == self.memory.poison for progress in request.progress):
            raise errors.invalid_field("progress", "something else")
        self.memory.progress.append(len(request.progress))
        lease = request.lease.ToTimedelta().total_seconds()
        results = [self._progress(progress, lease) for progress in request.progress]
        await self.memory.tell()
        await self.memory.answering.wait()
        if self.memory.lose_answers:
            self.memory.lose_answers -= 1
            raise errors.unavailable("the answer was lost")
        return pb.SaveProgressResponse(results=results, store_time=timestamp(clock()))

    def _progress(self, progress: pb.Progress, lease: float) -> pb.ProgressResult:
        one = self.memory.kept.get(progress.claim.notification_id)
        if one is None:
            return pb.ProgressResult(fenced=True)
        sent = _read(progress.sent_ordinals)
        if one.owned(progress.claim) and sent and one.expires <= time.time():
            one.expire()
        if not one.owned(progress.claim):
            return pb.ProgressResult(fenced=True, report=one.report())
        if sent:
            self.memory.steps.append((one.notification_id, sent))
        one.sent |= sent & one.expansion
        one.lease_until = time.time() + lease
        if progress.finish_state == common.NOTIFICATION_STATE_FAILED:
            one.state, one.reason = progress.finish_state, progress.reason
        elif progress.finish_state and time.time() >= one.expires - _CLOCKS_APART:
            one.expire()
        one.settle()
        return pb.ProgressResult(report=one.report(), priority=one.spec.priority)

    async def RecordDelivered(self, request: pb.RecordDeliveredRequest, context: Any) -> pb.RecordDeliveredResponse:
        self._refuse()
        self.memory.acknowledged += 1
        reports = [self._delivered(one) for one in request.delivered]
        await self.memory.tell()
        return pb.RecordDeliveredResponse(reports=reports)

    def _delivered(self, delivered: pb.Delivered) -> common.NotificationReport:
        one = self.memory.kept.get(delivered.notification_id)
        if one is None:
            return common.NotificationReport()
        one.delivered |= _read(delivered.user_ordinals) & one.sent - one.failed
        one.settle()
        return one.report()

    async def ReadRecipients(self, request: pb.ReadRecipientsRequest, context: Any) -> AsyncIterator[pb.ReadRecipientsResponse]:
        self._refuse()
        if request.notification_id not in self.memory.kept:
            raise errors.notification_not_found(request.notification_id)
        one = self.memory.kept[request.notification_id]
        parts = {
            common.OUTCOME_EXPANSION: one.expansion,
            common.OUTCOME_SENT: one.sent,
            common.OUTCOME_DELIVERED: one.delivered,
            common.OUTCOME_PENDING: one.expansion - one.delivered - one.failed,
            common.OUTCOME_FAILED: one.failed,
        }
        for block in _blocks(one.expansion):
            yield pb.ReadRecipientsResponse(user_ordinals=[(parts[each] & block).serialize() for each in request.outcomes])

    def _refuse(self) -> None:
        if self.memory.refuse is not None:
            self.memory.refused += 1
            raise self.memory.refuse


def notification(name: str) -> str:
    """A notification's id from a short name of [a-z2-7]."""
    return "n" + name.ljust(26, "a")


def _blocks(ordinals: BitMap) -> Iterator[BitMap]:
    at = ordinals.min() // _CHUNK if ordinals else 0
    while ordinals and at * _CHUNK <= ordinals.max():
        yield BitMap(range(at * _CHUNK, (at + 1) * _CHUNK))
        at += 1


def _read(data: bytes) -> BitMap:
    return BitMap.deserialize(data) if data else BitMap()


def _timestamp(seconds: float) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(int(seconds * 1e6))
    return made

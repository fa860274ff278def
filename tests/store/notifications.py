"""The store's notifications as schedulers, routers and tests see them: a stub, short words, and a clock that a test sets."""

import itertools
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from mesh import naming, rpc
from mesh.telemetry import Telemetry
from store.dead_letter_meters import DeadLetterMeters
from store.migrate import migrate
from store.ports import Database
from store.serve import open_database
from store.service_notifications import NotificationStoreServicer
from store.settings import StoreSettings
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.store.v1 import notification_pb2 as pb
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub, add_NotificationStoreServiceServicer_to_server

SECOND = 1_000_000  # microseconds
START = 1_800_000_000 * SECOND
DAY = 24 * 3600 * SECOND


@dataclass
class Clock:
    """A clock that stands still till it is set; microseconds since 1970."""

    now: int = START

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * SECOND)


class NotificationClient:
    """Calls one store.

    Args:
        channel: to it.
        clock: that it goes by.
        database: where it keeps everything, for looking behind the contract.
    """

    def __init__(self, channel: grpc.aio.Channel, clock: Clock, database: Database) -> None:
        self.stub = NotificationStoreServiceStub(channel)
        self.clock = clock
        self.database = database
        self._numbers = itertools.count(1)
        self._name = secrets.token_hex(4)  # there may be other clients

    def upload(
        self,
        *,
        send_in: float = 0,
        expire_in: float = 3600,
        audience: Iterable[int] | None = None,
        series: str = "",
        predecessor: tuple[str, int] | None = None,
        names: Iterable[str] = (),
        request_id: str = "",
        spec: common.NotificationSpec | None = None,
        **fields: Any,
    ) -> pb.CreateNotificationRequest:
        """An upload; times in seconds from now. `audience` is settled at upload, None leaves it for later."""
        number = next(self._numbers)
        spec = spec or common.NotificationSpec(content=Content(text=Text(text="hello")))
        spec.send_time.CopyFrom(timestamp(self.clock.now + round(send_in * SECOND)))
        spec.expire_time.CopyFrom(timestamp(self.clock.now + round(expire_in * SECOND)))
        request = pb.CreateNotificationRequest(
            request_id=request_id or f"upload-{self._name}-{number}",
            request_digest=b"%016d" % number,
            notification_id=naming.new_notification_id(),
            names=names,
            series_id=series,
            spec=spec,
            **fields,
        )
        if audience is not None:
            request.expansion.user_ordinals = bits(audience)
        if predecessor is not None:
            request.predecessor.CopyFrom(pb.Claim(notification_id=predecessor[0], fence=predecessor[1]))
        return request

    async def create(self, request: pb.CreateNotificationRequest | None = None, **fields: Any) -> str:
        """Upload one; gives its id."""
        response = await self.stub.CreateNotification(request or self.upload(**fields))
        assert response.created
        return response.notification.notification_id

    async def make(self, request: pb.CreateNotificationRequest) -> pb.StoredNotification:
        """Upload one, or again; gives what is answered."""
        return (await self.stub.CreateNotification(request)).notification

    async def change(self, request: pb.ControlNotificationRequest) -> pb.StoredNotification:
        """Change one, or again; gives what is answered."""
        return (await self.stub.ControlNotification(request)).notification

    async def get(self, notification_id: str) -> pb.StoredNotification:
        """It."""
        response = await self.stub.GetNotifications(pb.GetNotificationsRequest(notification_ids=[notification_id]))
        return response.notifications[0]

    async def report(self, notification_id: str) -> common.NotificationReport:
        """Its report."""
        return (await self.get(notification_id)).report

    async def claim(self, limit: int = 10, lease: float = 10, ahead: float = 0) -> list[pb.StoredNotification]:
        """Take what is due, or will be so soon."""
        return list((await self.claim_response(limit, lease, ahead)).notifications)

    async def claim_response(self, limit: int = 10, lease: float = 10, ahead: float = 0) -> pb.ClaimNotificationsResponse:
        """As `claim`, with all that is answered."""
        lengths = {"lease": duration(lease), "ahead": duration(ahead)}
        return await self.stub.ClaimNotifications(pb.ClaimNotificationsRequest(claimer_id="scheduler-1", limit=limit, **lengths))

    async def take(self, notification_id: str, lease: float = 10, ahead: float = 0) -> int:
        """Claim just this one; gives its fence."""
        claimed = await self.claim(lease=lease, ahead=ahead)
        assert [one.notification_id for one in claimed] == [notification_id]
        return claimed[0].fence

    async def expand(
        self, notification_id: str, fence: int, audience: Iterable[int], snapshot: int = 0, lease: float = 10
    ) -> common.NotificationReport:
        """Save an expansion."""
        return (await self.expand_and_send(notification_id, fence, audience, (), snapshot, lease)).report

    async def expand_and_send(
        self,
        notification_id: str,
        fence: int,
        audience: Iterable[int],
        sent: Iterable[int],
        snapshot: int = 0,
        lease: float = 10,
    ) -> pb.SaveExpansionResponse:
        """Save an expansion, and who is sent it first."""
        request = pb.SaveExpansionRequest(
            claim=pb.Claim(notification_id=notification_id, fence=fence),
            expansion=pb.Expansion(user_ordinals=bits(audience), snapshot_version=snapshot),
            lease=duration(lease),
            sent_ordinals=bits(sent),
        )
        return await self.stub.SaveExpansion(request)

    async def progress(self, *steps: pb.Progress, lease: float = 10) -> list[pb.ProgressResult]:
        """Save what owners did."""
        return list((await self.stub.SaveProgress(pb.SaveProgressRequest(progress=steps, lease=duration(lease)))).results)

    async def step(self, notification_id: str, fence: int, lease: float = 10, **fields: Any) -> pb.ProgressResult:
        """Save what one owner did; see `step`."""
        [result] = await self.progress(step(notification_id, fence, **fields), lease=lease)
        return result

    async def deliver(self, notification_id: str, ordinals: Iterable[int]) -> common.NotificationReport:
        """Save acknowledgements."""
        delivered = pb.Delivered(notification_id=notification_id, user_ordinals=bits(ordinals))
        return (await self.stub.RecordDelivered(pb.RecordDeliveredRequest(delivered=[delivered]))).reports[0]

    async def running(self, audience: Iterable[int], **fields: Any) -> tuple[str, int]:
        """A notification that is SENDING to these; its id and fence. Nothing else may be due."""
        notification_id = await self.create(audience=audience, **fields)
        return notification_id, await self.take(notification_id)

    async def control(self, notification_id: str, request_id: str = "", **action: Any) -> pb.StoredNotification:
        """Change one: `cancel=pb.CancelAction()` and the like."""
        return await self.change(self.control_request(notification_id, request_id, **action))

    def control_request(self, notification_id: str, request_id: str = "", **action: Any) -> pb.ControlNotificationRequest:
        """The request of `control`."""
        name = request_id or f"control-{self._name}-{next(self._numbers)}"
        return pb.ControlNotificationRequest(
            request_id=name, request_digest=f"{name:>16}".encode()[-64:], notification_id=notification_id, **action
        )

    async def recipients(self, notification_id: str, *outcomes: common.Outcome.ValueType) -> list[set[int]]:
        """Who has each of the outcomes."""
        found: list[set[int]] = [set() for _ in outcomes]
        async for chunk in self.stub.ReadRecipients(pb.ReadRecipientsRequest(notification_id=notification_id, outcomes=outcomes)):
            for ordinals, data in zip(found, chunk.user_ordinals, strict=True):
                ordinals |= set(BitMap.deserialize(data))
        return found

    async def references(self, *names: str) -> list[str]:
        """Who names one of these."""
        return list((await self.stub.ListReferences(pb.ListReferencesRequest(names=names))).notification_ids)

    async def listed(self, **fields: Any) -> list[str]:
        """All ids of a listing, page by page."""
        request = pb.ListNotificationsRequest(**({"page_size": 100} | fields))
        found: list[str] = []
        while True:
            page = await self.stub.ListNotifications(request)
            found += [one.notification_id for one in page.notifications]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found


@asynccontextmanager
async def notification_store(url: str, clock: Clock) -> AsyncIterator[NotificationClient]:
    """A store's notifications on a free port, going by a clock of the test's."""
    telemetry = Telemetry("store-test")
    options: dict[str, Any] = {"database": url}
    async with open_database(StoreSettings(**options)) as (database, _):
        await database.write(migrate)
        servicer = NotificationStoreServicer(database, clock, DeadLetterMeters(telemetry))
        servicers: dict[str, rpc.AddServicer] = {
            "tidings.store.v1.NotificationStoreService": lambda server: add_NotificationStoreServiceServicer_to_server(
                servicer, server
            )
        }
        async with (
            rpc.serve("127.0.0.1:0", servicers, telemetry, reflect=False, drain_seconds=1) as port,
            rpc.channel(f"127.0.0.1:{port}", telemetry) as channel,
        ):
            yield NotificationClient(channel, clock, database)
    telemetry.close()


def bits(ordinals: Iterable[int]) -> bytes:
    """A bitmap of these."""
    return BitMap(ordinals).serialize()


def step(notification_id: str, fence: int, **fields: Any) -> pb.Progress:
    """What an owner did: `sent` and `failed` as ordinals, other fields as in the contract."""
    message = pb.Progress(claim=pb.Claim(notification_id=notification_id, fence=fence))
    for part in ("sent", "failed"):
        if part in fields:
            setattr(message, f"{part}_ordinals", bits(fields.pop(part)))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def duration(seconds: float) -> Duration:
    """A duration."""
    value = Duration()
    value.FromTimedelta(timedelta(seconds=seconds))
    return value


def timestamp(microseconds: int) -> Timestamp:
    """A time."""
    value = Timestamp()
    value.FromMicroseconds(microseconds)
    return value


def parts(report: common.NotificationReport) -> tuple[int, int, int, int, int, int]:
    """Expansion, then what it must be the sum of: delivered, pending, failed, expired, cancelled."""
    found = (report.delivered, report.pending, report.failed, report.expired, report.cancelled)
    assert report.expansion == sum(found), report
    return (report.expansion, *found)

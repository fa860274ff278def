"""A business as it calls a scheduler: stubs over one channel, and short words for what tests say often."""

import secrets
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from mesh import rpc
from mesh.errors import TidingsError
from mesh.times import timestamp
from tests.eventually import eventually_answered
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings.scheduler.v1.scheduler_pb2_grpc import NotificationServiceStub


class Business:
    """Calls one scheduler; errors come as TidingsError."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self.address = address
        self.stub = NotificationServiceStub(channel)

    def new_id(self) -> str:
        """A request_id."""
        return secrets.token_hex(8)

    async def upload(self, spec: common.NotificationSpec, request_id: str | None = None) -> pb.UploadNotificationResponse:
        """Upload one."""
        with rpc.named_errors():
            chosen = self.new_id() if request_id is None else request_id
            request = pb.UploadNotificationRequest(request_id=chosen, spec=spec)
            return await self.stub.UploadNotification(request)

    async def send(self, *recipients: str, **fields: Any) -> str:
        """Upload one to these; gives its id."""
        return (await self.upload(spec(*recipients, **fields))).notification.notification_id

    async def get(self, notification_id: str) -> pb.Notification:
        """One notification."""
        with rpc.named_errors():
            return (await self.stub.GetNotification(pb.GetNotificationRequest(notification_id=notification_id))).notification

    async def state(self, notification_id: str) -> common.NotificationState.ValueType:
        """Its state."""
        return (await self.get(notification_id)).report.state

    async def reaches(self, notification_id: str, state: common.NotificationState.ValueType) -> None:
        """Wait until it is in a state."""

        async def reached() -> bool:
            return await self.state(notification_id) == state

        await eventually_answered(reached)

    async def list(self, **fields: Any) -> list[pb.Notification]:
        """A page."""
        return list((await self.page(**fields)).notifications)

    async def page(self, **fields: Any) -> pb.ListNotificationsResponse:
        """A page, with its token."""
        with rpc.named_errors():
            return await self.stub.ListNotifications(pb.ListNotificationsRequest(**fields))

    async def cancel(self, notification_id: str, request_id: str = "", **fields: Any) -> pb.CancelNotificationResponse:
        """Cancel one."""
        request = pb.CancelNotificationRequest(request_id=request_id or self.new_id(), notification_id=notification_id, **fields)
        with rpc.named_errors():
            return await self.stub.CancelNotification(request)

    async def pause(self, notification_id: str, request_id: str = "") -> pb.Notification:
        """Hold one back."""
        request = pb.PauseNotificationRequest(request_id=request_id or self.new_id(), notification_id=notification_id)
        with rpc.named_errors():
            return (await self.stub.PauseNotification(request)).notification

    async def resume(self, notification_id: str, request_id: str = "") -> pb.Notification:
        """Let one go on."""
        request = pb.ResumeNotificationRequest(request_id=request_id or self.new_id(), notification_id=notification_id)
        with rpc.named_errors():
            return (await self.stub.ResumeNotification(request)).notification

    async def prioritize(self, notification_id: str, priority: int, request_id: str = "") -> pb.Notification:
        """Set a priority."""
        request = pb.PrioritizeNotificationRequest(
            request_id=request_id or self.new_id(), notification_id=notification_id, priority=priority
        )
        with rpc.named_errors():
            return (await self.stub.PrioritizeNotification(request)).notification

    async def reschedule(self, notification_id: str, request_id: str = "", **times: Timestamp) -> pb.Notification:
        """Move one."""
        request = pb.RescheduleNotificationRequest(request_id=request_id or self.new_id(), notification_id=notification_id, **times)
        with rpc.named_errors():
            return (await self.stub.RescheduleNotification(request)).notification

    async def estimate(self, **fields: Any) -> pb.EstimateAudienceResponse:
        """Count an audience."""
        with rpc.named_errors():
            return await self.stub.EstimateAudience(pb.EstimateAudienceRequest(audience=common.Audience(**fields)))

    async def recipients(
        self, notification_id: str, outcome: common.Outcome.ValueType, size: int = 0, token: str = ""
    ) -> pb.ListRecipientsResponse:
        """A page of recipients."""
        request = pb.ListRecipientsRequest(notification_id=notification_id, outcome=outcome, page_size=size, page_token=token)
        with rpc.named_errors():
            return await self.stub.ListRecipients(request)


async def refusal(call: Any) -> tuple[str, str]:
    """Reason and field of the error that a call fails with."""
    try:
        answer = await call
    except TidingsError as error:
        return error.reason, error.field
    raise AssertionError(f"not refused: {answer}")


def spec(*recipients: str, **fields: Any) -> common.NotificationSpec:
    """A small notification; without any field it is to one user, now."""
    whom = {name: fields.pop(name) for name in ("expression", "excluded_ids", "excluded_expression") if name in fields}
    if not recipients and "expression" not in whom:
        recipients = ("ann",)
    audience = common.Audience(recipient_ids=recipients, **whom)
    return common.NotificationSpec(**({"audience": audience, "content": Content(text=Text(text="hello"))} | fields))


def at(text: str) -> int:
    """Microseconds of a time such as "2026-10-25 02:30" (UTC) or one with an offset."""
    time = datetime.fromisoformat(text)
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()) * 1_000_000


def stamp(text: str) -> Timestamp:
    """The same as the contract has it."""
    return timestamp(at(text))

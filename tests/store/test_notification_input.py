"""What can't be right is refused by name, and nothing of it is written."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from mesh.errors import from_rpc_error
from tests.store.notifications import Clock, NotificationClient, bits, duration, notification_store, step
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb

NOBODY = "n" + "a" * 26
Edit = Callable[[Any], None]


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[NotificationClient]:
    async with notification_store(database_url, Clock()) as client:
        yield client


def fields(**values: Any) -> Edit:
    """An edit that sets these."""

    def edit(message: Any) -> None:
        for path, value in values.items():
            *way, name = path.split("__")
            target = message
            for part in way:
                target = getattr(target, part)
            if isinstance(value, list | Timestamp | Duration):
                target.ClearField(name)
                (getattr(target, name).extend if isinstance(value, list) else getattr(target, name).CopyFrom)(value)
            else:
                setattr(target, name, value)

    return edit


def without(*path: str) -> Edit:
    """An edit that takes a field away."""

    def edit(message: Any) -> None:
        for part in path[:-1]:
            message = getattr(message, part)
        message.ClearField(path[-1])

    return edit


async def refusal(call: Awaitable[Any]) -> tuple[str, str]:
    """The reason and the field of its error."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    error = from_rpc_error(caught.value)
    return error.reason, error.field


UPLOADS: list[tuple[str, Edit]] = [
    ("request_id", fields(request_id="")),
    ("request_id", fields(request_id="x" * 65)),
    ("request_id", fields(request_id="ü")),
    ("request_digest", fields(request_digest=b"short")),
    ("request_digest", fields(request_digest=b"x" * 65)),
    ("notification_id", fields(notification_id="g" + "a" * 26)),
    ("notification_id", fields(notification_id=NOBODY + "\n")),
    ("series_id", fields(series_id="x")),
    ("spec.send_time", without("spec", "send_time")),
    ("spec.expire_time", without("spec", "expire_time")),
    ("spec.expire_time", fields(spec__expire_time=Timestamp(seconds=1))),
    ("spec.send_time", fields(spec__send_time=Timestamp(seconds=-1))),
    ("spec.expire_time", fields(spec__expire_time=Timestamp(seconds=2**62))),
    ("spec.priority", fields(spec__priority=10)),
    ("spec.type", fields(spec__type="a b")),
    ("spec.type", fields(spec__type="x\0")),
    ("spec.status_report", fields(spec__status_report=7)),
    ("spec", fields(spec__audience__recipient_ids=["x" * 1_000_000] * 5)),
    ("recipient_ordinals", fields(recipient_ordinals=b"rubbish")),
    ("excluded_ordinals", fields(excluded_ordinals=bits([0]))),
    ("excluded_ordinals", fields(excluded_ordinals=bits([2**31]))),
    ("recipient_ordinals", fields(recipient_ordinals=BitMap(range(1, 20_000_000, 2)).serialize())),
    ("names", fields(names=[""])),
    ("names", fields(names=["a\0"])),
    ("names", fields(names=["x" * 257])),
    ("names", fields(names=[f"t{n}" for n in range(1_001)])),
    ("estimated_audience", fields(estimated_audience=2**63)),
    ("expansion.user_ordinals", fields(expansion__user_ordinals=bits([1, 2, 3])[:-1])),
    ("expansion.user_ordinals", fields(expansion__user_ordinals=b"\x3a\x30\0\0" + b"\xff" * 8)),
    ("expansion.snapshot_version", fields(expansion__snapshot_version=2**63)),
]


async def test_uploads(store: NotificationClient) -> None:
    for field, edit in UPLOADS:
        request = store.upload(send_in=60)
        edit(request)
        assert await refusal(store.make(request)) == ("INVALID_FIELD", field), field
    assert await store.listed() == []


async def test_an_id_is_taken_once(store: NotificationClient) -> None:
    first = store.upload(names=["a"])
    await store.make(first)
    second = store.upload(names=["b"])
    second.notification_id = first.notification_id
    assert await refusal(store.make(second)) == ("INVALID_FIELD", "notification_id")
    assert await store.references("b") == []
    second.notification_id = NOBODY
    assert (await store.make(second)).notification_id == NOBODY


async def test_changes(store: NotificationClient) -> None:
    name = await store.create(send_in=60)
    good = store.control_request(name, prioritize=pb.PrioritizeAction(priority=1))
    cases: list[tuple[str, str, Edit]] = [
        ("INVALID_FIELD", "request_id", fields(request_id="")),
        ("INVALID_FIELD", "request_digest", fields(request_digest=b"")),
        ("NOTIFICATION_NOT_FOUND", "notification_id", fields(notification_id=NOBODY)),
        ("NOTIFICATION_NOT_FOUND", "notification_id", fields(notification_id="rubbish\0")),
        ("INVALID_FIELD", "action", without("prioritize")),
        ("INVALID_FIELD", "prioritize.priority", fields(prioritize__priority=10)),
        ("INVALID_FIELD", "reschedule.send_time", lambda request: request.reschedule.SetInParent()),
        ("INVALID_FIELD", "reschedule.expire_time", _rescheduled),
    ]
    for expected, field, edit in cases:
        request = pb.ControlNotificationRequest()
        request.CopyFrom(good)
        edit(request)
        assert await refusal(store.change(request)) == (expected, field), field
    await store.change(good)
    good.prioritize.priority = 2
    good.request_digest = b"another one, 16+"
    assert await refusal(store.change(good)) == ("REQUEST_ID_CONFLICT", "request_id")
    upload = store.upload(request_id=good.request_id)
    upload.request_digest = good.request_digest
    assert await refusal(store.make(upload)) == ("REQUEST_ID_CONFLICT", "request_id")


def _rescheduled(request: pb.ControlNotificationRequest) -> None:
    request.reschedule.send_time.FromSeconds(2_000_000_000)
    request.reschedule.expire_time.FromSeconds(2_000_000_000)


async def test_what_owners_and_recipients_bring(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2])
    good = step(name, fence, sent=[1])
    rubbish = step(name, fence, sent=[2])
    rubbish.failed_ordinals = b"rubbish"
    odd = step(name, fence, finish_state=common.NOTIFICATION_STATE_PAUSED)
    many = step(name, fence)
    many.sent_ordinals = many.failed_ordinals = b"x" * 7_900_000
    delivered = pb.Delivered(notification_id=name, user_ordinals=b"rubbish")
    expansion = pb.Expansion(user_ordinals=b"rubbish")
    stub, claim = store.stub, pb.Claim(notification_id=name, fence=fence)
    cases: list[tuple[str, Awaitable[Any]]] = [
        ("progress.failed_ordinals", store.progress(good, rubbish)),
        ("progress.finish_state", store.progress(good, odd)),
        ("progress", store.progress(many)),
        ("progress", store.progress(*[good] * 1_001)),
        ("lease", store.progress(good, lease=0)),
        ("lease", store.progress(good, lease=3_601)),
        ("lease", store.progress(good, lease=-1)),
        ("delivered.user_ordinals", stub.RecordDelivered(pb.RecordDeliveredRequest(delivered=[delivered]))),
        ("expansion.user_ordinals", stub.SaveExpansion(pb.SaveExpansionRequest(claim=claim, expansion=expansion))),
        ("lease", stub.SaveExpansion(pb.SaveExpansionRequest(claim=claim))),
        ("claims", stub.ReleaseNotifications(pb.ReleaseNotificationsRequest(claims=[claim] * 1_001))),
    ]
    for field, call in cases:
        assert await refusal(call) == ("INVALID_FIELD", field)
    assert (await store.report(name)).sent == 0
    assert await refusal(store.expand(NOBODY, 1, [1])) == ("NOTIFICATION_NOT_FOUND", "notification_id")
    assert (
        await store.step(name, fence, finish_state=common.NOTIFICATION_STATE_FAILED, reason="\0" * 5_000)
    ).report.reason == "?" * 1_000


async def test_questions(store: NotificationClient) -> None:
    stub, second = store.stub, duration(1)
    name = await store.create()
    cases: list[tuple[str, Awaitable[Any]]] = [
        ("notification_ids", stub.GetNotifications(pb.GetNotificationsRequest(notification_ids=[name] * 1_001))),
        ("view", stub.GetNotifications(pb.GetNotificationsRequest(view=9))),  # type: ignore[arg-type]
        ("page_size", stub.ListNotifications(pb.ListNotificationsRequest())),
        ("page_size", stub.ListNotifications(pb.ListNotificationsRequest(page_size=1_001))),
        ("page_token", stub.ListNotifications(pb.ListNotificationsRequest(page_size=1, page_token="x"))),
        ("type", stub.ListNotifications(pb.ListNotificationsRequest(page_size=1, type="\0"))),
        ("series_id", stub.ListNotifications(pb.ListNotificationsRequest(page_size=1, series_id="\0"))),
        ("states", stub.ListNotifications(pb.ListNotificationsRequest(page_size=1, states=[0]))),  # type: ignore[list-item]
        ("send_after", stub.ListNotifications(pb.ListNotificationsRequest(page_size=1, send_after=Timestamp(seconds=-9)))),
        ("claimer_id", stub.ClaimNotifications(pb.ClaimNotificationsRequest(limit=1, lease=second))),
        ("limit", stub.ClaimNotifications(pb.ClaimNotificationsRequest(claimer_id="x", lease=second))),
        ("limit", stub.ClaimNotifications(pb.ClaimNotificationsRequest(claimer_id="x", limit=1_001, lease=second))),
        ("lease", stub.ClaimNotifications(pb.ClaimNotificationsRequest(claimer_id="x", limit=1))),
        ("outcomes", store.recipients(name)),
        ("outcomes", store.recipients(name, common.OUTCOME_UNSPECIFIED)),
        ("outcomes", store.recipients(name, *[common.OUTCOME_SENT] * 9)),
        ("names", store.references("\0")),
        ("request_digest", stub.FindRequest(pb.FindRequestRequest(request_id="x"))),
    ]
    for field, call in cases:
        assert await refusal(call) == ("INVALID_FIELD", field)
    assert await refusal(store.recipients(NOBODY, common.OUTCOME_SENT)) == ("NOTIFICATION_NOT_FOUND", "notification_id")
    assert await store.claim()

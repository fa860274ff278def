"""The life of a notification, by the contract of NotificationStoreService, on both engines."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh import rpc
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from store.serve import serve
from store.settings import StoreSettings
from tests.store.client import reason
from tests.store.notifications import START, Clock, NotificationClient, bits, notification_store, parts, step
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub

FAR = 10_000_000  # an ordinal many blocks away from 1


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[NotificationClient]:
    async with notification_store(database_url, Clock()) as client:
        yield client


async def refused(call: Any) -> str:
    """The reason for which it is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return reason(caught.value)


async def test_from_upload_to_everybody_having_it(store: NotificationClient) -> None:
    name = await store.create(send_in=60, spec=common.NotificationSpec(priority=3, type="news"), names=["vip"])
    assert await store.claim() == []
    created = await store.get(name)
    assert (created.report.state, created.fence, created.spec.priority) == (common.NOTIFICATION_STATE_SCHEDULED, 0, 3)
    store.clock.advance(60)
    [claimed] = await store.claim()
    assert (claimed.notification_id, claimed.fence) == (name, 1)
    assert claimed.report.state == common.NOTIFICATION_STATE_EXPANDING
    report = await store.expand(name, 1, [1, 2, 3, FAR], snapshot=7)
    assert (report.state, parts(report)) == (common.NOTIFICATION_STATE_SENDING, (4, 0, 4, 0, 0, 0))
    result = await store.step(name, 1, sent=[1, 2, FAR, 99])
    assert (result.fenced, result.report.sent, result.priority) == (False, 3, 3)
    assert result.report.start_time.ToMicroseconds() == store.clock.now
    report = await store.deliver(name, [1, FAR, 3])
    assert parts(report) == (4, 2, 2, 0, 0, 0)
    assert report.delivered_percent == 50
    result = await store.step(name, 1, failed=[2, 1], sent=[3])
    assert parts(result.report) == (4, 2, 1, 1, 0, 0)
    assert await store.references("vip") == [name]
    report = await store.deliver(name, [2, 3])
    assert (report.state, parts(report)) == (common.NOTIFICATION_STATE_COMPLETED, (4, 4, 0, 0, 0, 0))
    assert report.snapshot_version == 7
    assert await store.references("vip") == []
    assert (await store.step(name, 1, sent=[1])).fenced
    assert not (await store.claim_response()).HasField("next_due_time")
    found = await store.recipients(name, common.OUTCOME_EXPANSION, common.OUTCOME_SENT, common.OUTCOME_DELIVERED)
    assert found == [{1, 2, 3, FAR}] * 3


async def test_an_expansion_is_saved_once(store: NotificationClient) -> None:
    name = await store.create()
    fence = await store.take(name)
    await store.expand(name, fence, [1, 2])
    assert (await store.expand(name, fence, [3], snapshot=5)).expansion == 2
    assert await store.recipients(name, common.OUTCOME_EXPANSION) == [{1, 2}]
    assert await refused(store.expand(name, fence + 1, [3])) == "FENCED"
    nobody = await store.create()
    assert (await store.expand(nobody, await store.take(nobody), [])).state == common.NOTIFICATION_STATE_COMPLETED
    assert (await store.expand(nobody, 1, [])).state == common.NOTIFICATION_STATE_COMPLETED


async def test_an_audience_settled_at_upload(store: NotificationClient) -> None:
    request = store.upload(audience=[5, 6], send_in=10, estimated_audience=2)
    request.expansion.snapshot_version = 9
    created = await store.stub.CreateNotification(request)
    assert created.notification.report.expansion == 2
    assert created.notification.report.snapshot_version == 9
    assert created.notification.estimated_audience == 2
    assert created.notification.report.state == common.NOTIFICATION_STATE_SCHEDULED
    empty = await store.create(audience=[])
    assert (await store.report(empty)).state == common.NOTIFICATION_STATE_COMPLETED
    assert await store.claim() == []
    store.clock.advance(10)
    [claimed] = await store.claim()
    assert claimed.report.state == common.NOTIFICATION_STATE_SENDING


async def test_a_repeated_upload_gets_the_first_answer(store: NotificationClient) -> None:
    request = store.upload(audience=[1])
    first = await store.stub.CreateNotification(request)
    await store.take(first.notification.notification_id)
    store.clock.advance(1)
    other = pb.CreateNotificationRequest()
    other.CopyFrom(request)
    other.notification_id = "n" + "a" * 26
    again = await store.stub.CreateNotification(other)
    assert (first.created, again.created) == (True, False)
    assert again.notification == first.notification
    found = await store.stub.FindRequest(
        pb.FindRequestRequest(request_id=request.request_id, request_digest=request.request_digest)
    )
    assert found.notification == first.notification
    other.request_digest = b"another one, 16+"
    assert await refused(store.stub.CreateNotification(other)) == "REQUEST_ID_CONFLICT"
    fresh = await store.stub.FindRequest(pb.FindRequestRequest(request_id="fresh", request_digest=request.request_digest))
    assert not fresh.HasField("notification")
    assert await store.listed() == [request.notification_id]


async def test_what_is_due_goes_by_priority_then_time(store: NotificationClient) -> None:
    def priority(number: int) -> common.NotificationSpec:
        return common.NotificationSpec(priority=number)

    late = await store.create(send_in=-1, spec=priority(5))
    early = await store.create(send_in=-2, spec=priority(5))
    urgent = await store.create(spec=priority(9))
    low = await store.create(send_in=-9, spec=priority(0))
    await store.create(send_in=1, spec=priority(9))
    assert [one.notification_id for one in await store.claim(limit=2)] == [urgent, early]
    answer = await store.claim_response(limit=9)
    assert [one.notification_id for one in answer.notifications] == [late, low]
    assert answer.next_due_time.ToMicroseconds() == START + 1_000_000


async def test_a_lease_that_runs_out_or_is_given_up(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2])
    assert await store.claim() == []
    store.clock.advance(9)
    await store.step(name, fence)
    store.clock.advance(9)
    assert await store.claim() == []
    store.clock.advance(1)
    assert await store.take(name) == fence + 1
    result = await store.step(name, fence, sent=[1])
    assert (result.fenced, result.report.sent) == (True, 0)
    await store.stub.ReleaseNotifications(pb.ReleaseNotificationsRequest(claims=[pb.Claim(notification_id=name, fence=fence)]))
    assert await store.claim() == []
    await store.stub.ReleaseNotifications(pb.ReleaseNotificationsRequest(claims=[pb.Claim(notification_id=name, fence=fence + 1)]))
    assert await store.take(name) == fence + 2


async def test_cancelling_is_truthful(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2, 3])
    await store.step(name, fence, sent=[1, 2])
    request = store.control_request(name, cancel=pb.CancelAction())
    answer = (await store.stub.ControlNotification(request)).notification
    assert (answer.report.state, answer.report.sent, answer.fence) == (common.NOTIFICATION_STATE_CANCELLED, 2, fence + 1)
    assert (await store.step(name, fence, sent=[3])).fenced
    report = await store.deliver(name, [1, 3])
    assert (report.sent, parts(report)) == (2, (3, 1, 0, 0, 0, 2))
    assert (await store.stub.ControlNotification(request)).notification == answer
    assert await store.recipients(name, common.OUTCOME_CANCELLED, common.OUTCOME_PENDING) == [{2, 3}, set()]
    assert await refused(store.control(name, pause=pb.PauseAction())) == "NOTIFICATION_STATE_CONFLICT"


async def test_pausing_holds_back_till_resumed(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2, 3])
    await store.step(name, fence, sent=[1])
    paused = await store.control(name, pause=pb.PauseAction())
    assert (paused.report.state, paused.fence) == (common.NOTIFICATION_STATE_PAUSED, fence + 1)
    assert (await store.control(name, pause=pb.PauseAction())).fence == fence + 1
    assert (await store.step(name, fence, sent=[2])).fenced
    assert await refused(store.expand(name, fence + 1, [1])) == "FENCED"
    assert (await store.deliver(name, [1])).delivered == 1
    store.clock.advance(100)
    assert await store.claim() == []
    assert (await store.control(name, resume=pb.ResumeAction())).report.state == common.NOTIFICATION_STATE_SENDING
    assert await refused(store.control(name, resume=pb.ResumeAction())) == "NOTIFICATION_STATE_CONFLICT"
    assert await store.take(name) == fence + 2


async def test_resuming_what_nobody_was_sent_waits_for_its_time(store: NotificationClient) -> None:
    name, _ = await store.running([1])
    await store.control(name, pause=pb.PauseAction())
    moved = pb.RescheduleAction()
    moved.send_time.FromMicroseconds(store.clock.now + 60_000_000)
    answer = await store.control(name, reschedule=moved)
    assert answer.spec.expire_time.ToMicroseconds() == START + 3_660_000_000
    assert (await store.control(name, resume=pb.ResumeAction())).report.state == common.NOTIFICATION_STATE_SCHEDULED
    assert await store.claim() == []
    store.clock.advance(60)
    [claimed] = await store.claim()
    assert claimed.report.state == common.NOTIFICATION_STATE_SENDING


async def test_prioritising_reaches_the_owner(store: NotificationClient) -> None:
    name, fence = await store.running([1])
    answer = await store.control(name, prioritize=pb.PrioritizeAction(priority=8))
    assert (answer.spec.priority, answer.fence) == (8, fence)
    assert (await store.step(name, fence)).priority == 8


async def test_rescheduling_is_for_what_nobody_was_sent(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2])
    action = pb.RescheduleAction()
    action.send_time.FromMicroseconds(store.clock.now)
    assert await refused(store.control(name, reschedule=action)) == "NOTIFICATION_STATE_CONFLICT"
    await store.step(name, fence, sent=[1])
    await store.control(name, pause=pb.PauseAction())
    assert await refused(store.control(name, reschedule=action)) == "NOTIFICATION_STATE_CONFLICT"


async def test_what_expires(store: NotificationClient) -> None:
    untouched = await store.create(expire_in=20, send_in=10, names=["x"])
    sent, fence = await store.running([1, 2], expire_in=20)
    await store.step(sent, fence, sent=[1])
    paused = await store.create(expire_in=20, audience=[7])
    await store.control(paused, pause=pb.PauseAction())
    store.clock.advance(20)
    assert await refused(store.control(paused, resume=pb.ResumeAction())) == "NOTIFICATION_STATE_CONFLICT"
    assert await store.claim() == []
    states = [(await store.report(name)).state for name in (untouched, sent, paused)]
    assert states == [common.NOTIFICATION_STATE_EXPIRED, common.NOTIFICATION_STATE_COMPLETED, common.NOTIFICATION_STATE_EXPIRED]
    assert parts(await store.report(sent)) == (2, 0, 0, 0, 2, 0)
    assert parts(await store.deliver(sent, [1])) == (2, 1, 0, 0, 1, 0)
    assert await store.recipients(sent, common.OUTCOME_EXPIRED) == [{2}]
    assert await store.references("x") == []


async def test_an_owner_ends_its_own_or_is_ended(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2], expire_in=5)
    late, late_fence = await store.running([1], expire_in=5)
    await store.progress(step(name, fence, sent=[1]), step(late, late_fence), lease=60)
    store.clock.advance(5)
    answer = await store.claim_response()
    assert answer.next_due_time.ToMicroseconds() == START + 10_000_000
    result = await store.step(name, fence, finish_state=common.NOTIFICATION_STATE_COMPLETED)
    assert (result.fenced, result.report.state) == (False, common.NOTIFICATION_STATE_COMPLETED)
    assert (await store.report(late)).state == common.NOTIFICATION_STATE_SENDING
    store.clock.advance(5)
    await store.claim()
    assert (await store.report(late)).state == common.NOTIFICATION_STATE_EXPIRED


async def test_nobody_is_sent_it_after_its_expiry(store: NotificationClient) -> None:
    """By the store's clock, whatever its owner's says: G9."""
    name, fence = await store.running([1, 2], expire_in=5)
    store.clock.advance(5)
    result = await store.step(name, fence, sent=[1])
    assert (result.fenced, result.report.state, result.report.sent) == (True, common.NOTIFICATION_STATE_EXPIRED, 0)


async def test_one_that_fails_says_why(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2, 3])
    await store.step(name, fence, sent=[1])
    result = await store.step(name, fence, finish_state=common.NOTIFICATION_STATE_FAILED, reason="UNKNOWN_TAG: gone")
    assert (result.report.state, result.report.reason) == (common.NOTIFICATION_STATE_FAILED, "UNKNOWN_TAG: gone")
    assert parts(result.report) == (3, 0, 0, 3, 0, 0)
    assert parts(await store.deliver(name, [1])) == (3, 1, 0, 2, 0, 0)
    assert await store.recipients(name, common.OUTCOME_FAILED) == [{2, 3}]


async def test_a_delivery_takes_back_a_failure(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2, 3])
    await store.step(name, fence, sent=[1], failed=[1, 2])
    assert parts(await store.deliver(name, [1, 2])) == (3, 1, 1, 1, 0, 0)
    assert await store.recipients(name, common.OUTCOME_FAILED, common.OUTCOME_DELIVERED) == [{2}, {1}]


async def test_one_that_is_refused_does_not_hinder_others(store: NotificationClient) -> None:
    one, fence = await store.running([1])
    other, other_fence = await store.running([FAR])
    unknown = "n" + "z" * 26
    results = await store.progress(
        step(unknown, 1, sent=[1]), step(one, fence + 5, sent=[1]), step(other, other_fence, sent=[FAR]), step("rubbish\0", 1)
    )
    assert [result.fenced for result in results] == [True, True, False, True]
    assert [result.HasField("report") for result in results] == [False, True, True, False]
    delivered = [pb.Delivered(notification_id=name, user_ordinals=bits([FAR])) for name in (unknown, other, one)]
    reports = (await store.stub.RecordDelivered(pb.RecordDeliveredRequest(delivered=delivered))).reports
    assert [report.notification_id for report in reports] == ["", other, one]
    assert [report.delivered for report in reports] == [0, 1, 0]


async def test_a_store_serves_it(database_url: str) -> None:
    telemetry = Telemetry("store-test")
    options: dict[str, Any] = {"database": database_url, "port": 0, "drain_seconds": 1, "reflection": False}
    async with (
        serve(StoreSettings(**options), MemoryRegistry(), telemetry) as instance,
        rpc.channel(instance.grpc_address, telemetry) as channel,
    ):
        stub = NotificationStoreServiceStub(channel)
        assert not (await stub.ListNotifications(pb.ListNotificationsRequest(page_size=1))).notifications
    telemetry.close()

"""Claims ahead of time, and first steps with the audience, by the contract of NotificationStoreService, on both engines."""

from collections.abc import AsyncIterator

import grpc
import pytest

from tests.store.client import reason
from tests.store.notifications import Clock, NotificationClient, notification_store, parts, timestamp
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb

SCHEDULED, EXPANDING = common.NOTIFICATION_STATE_SCHEDULED, common.NOTIFICATION_STATE_EXPANDING
FAR = 10_000_000  # an ordinal many blocks away from 1


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[NotificationClient]:
    async with notification_store(database_url, Clock()) as client:
        yield client


async def test_what_is_due_goes_before_what_will_be(store: NotificationClient) -> None:
    soon = [await store.create(send_in=1 - priority / 10, spec=common.NotificationSpec(priority=priority)) for priority in (0, 9)]
    later = await store.create(send_in=1.1)
    due = await store.create(send_in=0, spec=common.NotificationSpec(priority=1))
    answer = await store.claim_response(ahead=1, limit=2)
    assert [one.notification_id for one in answer.notifications] == [due, soon[1]]
    answer = await store.claim_response(ahead=1)
    assert [one.notification_id for one in answer.notifications] == [soon[0]]
    assert answer.next_due_time == timestamp(store.clock.now + 100_000), "when the next one can be claimed so long ahead"
    assert await store.claim() == [] and (await store.get(later)).report.state == SCHEDULED


async def test_nobody_is_sent_it_before_its_time_by_the_clock_of_the_store(store: NotificationClient) -> None:
    name = await store.create(send_in=1)
    fence = await store.take(name, ahead=1)
    answer = await store.expand_and_send(name, fence, [1, 2, FAR], [1])
    assert (answer.sent_stored, parts(answer.report), answer.report.sent) == (False, (3, 0, 3, 0, 0, 0), 0)
    result = await store.step(name, fence, sent=[1, FAR], lease=60)
    assert (result.early, result.fenced, result.report.sent) == (True, True, 0)
    store.clock.advance(1)
    assert await store.claim() == [], "its lease was renewed"
    result = await store.step(name, fence, sent=[1, FAR])
    assert (result.early, result.fenced, result.report.sent) == (False, False, 2)


async def test_what_waits_for_its_time_can_be_moved_and_its_owner_is_out(store: NotificationClient) -> None:
    name = await store.create(send_in=1)
    fence = await store.take(name, ahead=1)
    moved = await store.control(name, reschedule=pb.RescheduleAction(send_time=timestamp(store.clock.now + 30_000_000)))
    assert (moved.report.state, moved.fence) == (SCHEDULED, fence + 1)
    with pytest.raises(grpc.RpcError) as refused:
        await store.expand(name, fence, [1])
    assert reason(refused.value) == "FENCED"
    store.clock.advance(20)
    assert await store.claim(ahead=9) == []
    store.clock.advance(1)
    assert await store.take(name, ahead=9) == fence + 2


async def test_what_has_begun_can_not_be_moved(store: NotificationClient) -> None:
    name = await store.create(send_in=1)
    await store.take(name, ahead=1)
    store.clock.advance(1)
    with pytest.raises(grpc.RpcError) as refused:
        await store.control(name, reschedule=pb.RescheduleAction(send_time=timestamp(store.clock.now + 30_000_000)))
    assert reason(refused.value) == "NOTIFICATION_STATE_CONFLICT"


async def test_what_was_paused_while_it_waited_is_claimed_again(store: NotificationClient) -> None:
    name = await store.create(send_in=1)
    fence = await store.take(name, ahead=1)
    await store.control(name, pause=pb.PauseAction())
    assert (await store.control(name, resume=pb.ResumeAction())).report.state == SCHEDULED
    assert await store.claim() == []
    assert await store.take(name, ahead=1) == fence + 2


async def test_the_first_step_is_stored_with_the_audience(store: NotificationClient) -> None:
    name = await store.create()
    fence = await store.take(name)
    answer = await store.expand_and_send(name, fence, [1, 2, 3, FAR], [1, FAR, 99])
    assert (answer.sent_stored, parts(answer.report), answer.report.sent) == (True, (4, 0, 4, 0, 0, 0), 2)
    assert answer.report.start_time.ToMicroseconds() == store.clock.now
    assert await store.recipients(name, common.OUTCOME_SENT) == [{1, FAR}]
    again = await store.expand_and_send(name, fence, [1, 2, 3, FAR], [2])
    assert (again.sent_stored, again.report.sent) == (False, 2)
    assert (await store.deliver(name, [1, 2])).delivered == 1


async def test_what_has_expired_is_not_begun(store: NotificationClient) -> None:
    name = await store.create(expire_in=5)
    fence = await store.take(name)
    store.clock.advance(5)
    answer = await store.expand_and_send(name, fence, [1], [1])
    assert (answer.sent_stored, answer.report.sent) == (False, 0)


@pytest.mark.parametrize("ahead", [10, 11, -1])
async def test_ahead_is_shorter_than_the_lease(store: NotificationClient, ahead: float) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        await store.claim(lease=10, ahead=ahead)
    assert reason(refused.value) == "INVALID_FIELD"

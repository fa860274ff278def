"""An owner whose clock is fast ends nothing before its time: the store goes by its own."""

from collections.abc import AsyncIterator

import pytest

from tests.store.notifications import Clock, NotificationClient, notification_store, parts
from tidings.common.v1 import notification_pb2 as common

SENDING, COMPLETED = common.NOTIFICATION_STATE_SENDING, common.NOTIFICATION_STATE_COMPLETED
EXPIRED, FAILED = common.NOTIFICATION_STATE_EXPIRED, common.NOTIFICATION_STATE_FAILED


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[NotificationClient]:
    async with notification_store(database_url, Clock()) as client:
        yield client


@pytest.mark.parametrize("finish", [COMPLETED, EXPIRED])
async def test_nothing_ends_before_its_time(store: NotificationClient, finish: common.NotificationState.ValueType) -> None:
    name, fence = await store.running([1, 2], expire_in=60)
    await store.step(name, fence, sent=[1])
    early = await store.step(name, fence, finish_state=finish)
    assert (early.fenced, early.report.state, parts(early.report)) == (False, SENDING, (2, 0, 2, 0, 0, 0))
    assert await store.claim() == [], "its lease was renewed"
    assert not (await store.step(name, fence, sent=[2])).fenced, "it goes on"
    store.clock.advance(58.9)
    assert (await store.step(name, fence, finish_state=finish)).report.state == SENDING
    store.clock.advance(0.1)
    late = await store.step(name, fence, finish_state=finish)
    assert (late.report.state, parts(late.report)) == (COMPLETED, (2, 0, 0, 0, 2, 0))


async def test_whose_audience_is_not_known_goes_on_too(store: NotificationClient) -> None:
    name = await store.create(expire_in=60)
    fence = await store.take(name)
    early = await store.step(name, fence, finish_state=EXPIRED)
    assert (early.fenced, early.report.state) == (False, common.NOTIFICATION_STATE_EXPANDING)
    assert (await store.expand(name, fence, [1])).state == SENDING


async def test_what_failed_ends_at_once(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2], expire_in=60)
    failed = await store.step(name, fence, finish_state=FAILED, reason="UNKNOWN_TAG: gone")
    assert (failed.report.state, failed.report.reason) == (FAILED, "UNKNOWN_TAG: gone")


async def test_what_everybody_has_ends_at_once(store: NotificationClient) -> None:
    name, fence = await store.running([1, 2], expire_in=60)
    await store.step(name, fence, sent=[1], failed=[2])
    await store.deliver(name, [1])
    assert (await store.step(name, fence, finish_state=COMPLETED)).report.state == COMPLETED

"""Occurrences of a series: each made when the one before it is claimed, none lost and none made twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

import grpc
import pytest

from tests.store.client import reason
from tests.store.notifications import Clock, NotificationClient, notification_store
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[NotificationClient]:
    async with notification_store(database_url, Clock()) as client:
        yield client


async def first(store: NotificationClient, names: tuple[str, ...] = (), **fields: object) -> str:
    """The first of a series, due now."""
    request = store.upload(names=names, occurrence=1, **fields)  # type: ignore[arg-type]
    request.series_id = request.notification_id
    return await store.create(request)


def following(store: NotificationClient, before: pb.StoredNotification, **fields: object) -> pb.CreateNotificationRequest:
    """The upload of the next one, as a scheduler makes it."""
    number = before.occurrence + 1
    return store.upload(
        series=before.series_id,
        occurrence=number,
        predecessor=(before.notification_id, before.fence),
        request_id=f" {before.series_id} {number}",
        **fields,  # type: ignore[arg-type]
    )


async def refusal(call: Awaitable[object]) -> str:
    """Why it is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return reason(caught.value)


async def test_the_next_one_takes_over_the_names(store: NotificationClient) -> None:
    one = await first(store, ("vip", "@all"))
    [claimed] = await store.claim()
    two = await store.create(following(store, claimed, send_in=60))
    assert await store.references("vip") == [one, two]
    await store.expand(one, claimed.fence, [])
    assert await store.references("@all") == [two]
    assert await store.listed(series_id=one) == [two, one]


async def test_it_is_made_once_whoever_makes_it(store: NotificationClient) -> None:
    one = await first(store)
    [claimed] = await store.claim()
    request = following(store, claimed, send_in=60)
    again = pb.CreateNotificationRequest()
    again.CopyFrom(request)
    again.notification_id = "n" + "7" * 26
    answers = await asyncio.gather(*(store.stub.CreateNotification(one) for one in (request, again, request)))
    assert len({answer.notification.notification_id for answer in answers}) == 1
    assert [answer.created for answer in answers].count(True) == 1
    another = following(store, claimed)
    another.request_id = "somebody else's"
    assert await refusal(store.stub.CreateNotification(another)) == "FENCED"
    assert len(await store.listed(series_id=one)) == 2


async def test_only_its_present_owner_makes_it(store: NotificationClient) -> None:
    await first(store)
    [claimed] = await store.claim()
    store.clock.advance(10)
    [mine] = await store.claim()
    assert await refusal(store.stub.CreateNotification(following(store, claimed))) == "FENCED"
    await store.create(following(store, mine, send_in=60))


async def test_cancelling_the_series_ends_all_of_it(store: NotificationClient) -> None:
    one = await first(store, ("vip",))
    [claimed] = await store.claim()
    two = await store.create(following(store, claimed, send_in=60, audience=[1]))
    await store.expand(one, claimed.fence, [1, 2])
    await store.step(one, claimed.fence, sent=[1])
    await store.control(one, cancel=pb.CancelAction())
    request = store.control_request(one, cancel=pb.CancelAction(whole_series=True))
    answer = await store.change(request)
    assert (answer.notification_id, answer.report.sent) == (one, 1)
    assert (await store.report(two)).state == common.NOTIFICATION_STATE_CANCELLED
    assert await store.change(request) == answer
    assert await store.references("vip") == []
    two_now = await store.get(two)
    assert await refusal(store.stub.CreateNotification(following(store, two_now))) == "FENCED"
    again = store.control_request(two, cancel=pb.CancelAction(whole_series=True))
    assert await refusal(store.stub.ControlNotification(again)) == "NOTIFICATION_STATE_CONFLICT"


async def test_whoever_is_making_the_next_one_when_its_series_is_cancelled_is_refused(store: NotificationClient) -> None:
    one = await first(store, expire_in=30)
    [claimed] = await store.claim()
    await store.expand(one, claimed.fence, [1])
    await store.step(one, claimed.fence, finish_state=common.NOTIFICATION_STATE_FAILED)
    assert (await store.control(one, cancel=pb.CancelAction(whole_series=True))).fence == claimed.fence + 1
    assert await refusal(store.stub.CreateNotification(following(store, claimed))) == "FENCED"


async def test_an_expired_one_is_given_away_till_the_next_is_made(store: NotificationClient) -> None:
    """As after a long outage; also one that was paused."""
    one, held = await first(store, expire_in=30), await first(store, expire_in=30)
    await store.control(held, pause=pb.PauseAction())
    store.clock.advance(3600)
    claimed = await store.claim()
    assert [(found.notification_id, found.report.state) for found in claimed] == [
        (one, common.NOTIFICATION_STATE_EXPANDING),
        (held, common.NOTIFICATION_STATE_EXPANDING),
    ]
    assert await store.claim() == []
    for found in claimed:
        await store.expand(found.notification_id, found.fence, [1])
        assert (await store.step(found.notification_id, found.fence, sent=[1])).fenced
        await store.create(following(store, found, send_in=60))
        result = await store.step(found.notification_id, found.fence, finish_state=common.NOTIFICATION_STATE_EXPIRED)
        assert (result.fenced, result.report.state) == (False, common.NOTIFICATION_STATE_EXPIRED)


async def test_nobody_at_upload_is_no_end_of_a_series(store: NotificationClient) -> None:
    one = await first(store, audience=[])
    [claimed] = await store.claim()
    await store.create(following(store, claimed, send_in=60))
    report = await store.expand(one, claimed.fence, [1, 2])
    assert (report.state, report.expansion) == (common.NOTIFICATION_STATE_COMPLETED, 0)


async def test_a_cancelled_one_can_still_have_a_next_one(store: NotificationClient) -> None:
    one = await first(store, ("vip",), send_in=60)
    cancelled = await store.control(one, cancel=pb.CancelAction())
    assert await store.references("vip") == []
    two = await store.create(following(store, cancelled, send_in=60))
    assert await store.references("vip") == [two]


async def test_a_predecessor_must_be_one(store: NotificationClient) -> None:
    await first(store)
    [claimed] = await store.claim()
    stranger = following(store, claimed)
    stranger.series_id = "n" + "a" * 26
    assert await refusal(store.stub.CreateNotification(stranger)) == "INVALID_FIELD"
    unknown = following(store, claimed)
    unknown.predecessor.notification_id = "n" + "a" * 26
    assert await refusal(store.stub.CreateNotification(unknown)) == "NOTIFICATION_NOT_FOUND"
    single = following(store, claimed)
    single.series_id = ""
    assert await refusal(store.stub.CreateNotification(single)) == "INVALID_FIELD"

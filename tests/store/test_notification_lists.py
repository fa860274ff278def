"""Reading notifications: views, pages, recipients, what the sweeper leaves, and how quick a claim is found among many."""

import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from pyroaring import BitMap
from sqlalchemy import Connection, event

from mesh import rpc
from store import notification_claims
from store.notification_sweeper import NotificationSweeper
from tests.store.client import reason
from tests.store.notifications import DAY, SECOND, START, Clock, NotificationClient, bits, notification_store, timestamp
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.store.v1 import notification_pb2 as pb

MINUTE = 60 * SECOND
_INDEX = re.compile(r"ix_notifications_(\w+)")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[NotificationClient]:
    async with notification_store(database_url, Clock()) as client:
        yield client


def large_spec() -> common.NotificationSpec:
    """As large as they come: 20,000 ids of 128 characters."""
    audience = common.Audience(expression="a + b", excluded_expression="c")
    audience.recipient_ids.extend(f"{n:0>128}" for n in range(10_000))
    audience.excluded_ids.extend(f"x{n:0>127}" for n in range(10_000))
    return common.NotificationSpec(audience=audience, content=Content(text=Text(text="hello")), type="news")


def sweeper(store: NotificationClient) -> NotificationSweeper:
    """One beside the store."""
    return NotificationSweeper(store.database, store.clock, keep_recipients=30 * DAY, keep_answers=7 * DAY)


async def test_views(store: NotificationClient) -> None:
    spec = large_spec()
    name = await store.create(store.upload(spec=spec, recipient_ordinals=bits([1]), excluded_ordinals=bits([2])))
    found = {}
    for view in (pb.NOTIFICATION_VIEW_UNSPECIFIED, pb.NOTIFICATION_VIEW_ORDINALS, pb.NOTIFICATION_VIEW_BRIEF):
        request = pb.GetNotificationsRequest(notification_ids=[name, "n" + "a" * 26, "rubbish\0"], view=view)
        [found[view]] = (await store.stub.GetNotifications(request)).notifications
    full, ordinals, brief = found.values()
    assert full.spec == spec
    assert ordinals.spec.audience == common.Audience(expression="a + b", excluded_expression="c")
    assert (ordinals.recipient_ordinals, ordinals.excluded_ordinals) == (bits([1]), bits([2]))
    assert ordinals.ByteSize() < 1_000
    assert not brief.spec.HasField("audience")
    assert (brief.recipient_ordinals, brief.spec.content) == (b"", spec.content)
    [claimed] = await store.claim()
    assert claimed.ByteSize() < 1_000


async def test_answers_stay_below_the_limit_of_a_message(store: NotificationClient) -> None:
    names = [await store.create(store.upload(spec=large_spec())) for _ in range(5)]
    assert 5 * (await store.get(names[0])).ByteSize() > rpc.MAX_MESSAGE_BYTES - 4_000_000
    page = await store.stub.ListNotifications(pb.ListNotificationsRequest(page_size=5))
    assert [one.notification_id for one in page.notifications] == [names[4]]
    assert page.next_page_token == names[4]
    assert await store.listed() == [*reversed(names)]
    with pytest.raises(grpc.RpcError) as caught:
        await store.stub.GetNotifications(pb.GetNotificationsRequest(notification_ids=names))
    assert reason(caught.value) == "INVALID_FIELD"
    brief = pb.GetNotificationsRequest(notification_ids=names, view=pb.NOTIFICATION_VIEW_BRIEF)
    assert len((await store.stub.GetNotifications(brief)).notifications) == 5


async def test_pages_are_the_newest_first_and_narrowed(store: NotificationClient) -> None:
    made = []
    for n in range(12):
        spec = common.NotificationSpec(type=["news", "", "ad"][n % 3], priority=n % 10)
        made.append(await store.create(send_in=60 * n, spec=spec, expire_in=100_000))
    newest = [*reversed(made)]
    assert await store.listed(page_size=5) == newest
    assert await store.listed(type="ad", page_size=2) == newest[0::3]
    assert await store.listed(type="notification", page_size=1) == newest[1::3]
    for n in (3, 8):
        await store.control(made[n], cancel=pb.CancelAction())
    await store.control(made[5], pause=pb.PauseAction())
    over = common.NOTIFICATION_STATE_CANCELLED
    assert await store.listed(states=[over]) == [made[8], made[3]]
    several = [over, common.NOTIFICATION_STATE_PAUSED, common.NOTIFICATION_STATE_FAILED]
    assert await store.listed(states=several, page_size=1) == [made[8], made[5], made[3]]
    window = {"send_after": timestamp(START + 2 * MINUTE), "send_before": timestamp(START + 5 * MINUTE)}
    assert await store.listed(page_size=2, **window) == [made[4], made[3], made[2]]
    assert await store.listed(series_id="n" + "a" * 26) == []


async def test_recipients_come_in_chunks(store: NotificationClient) -> None:
    """Half of 16,000,000, which no rule compresses: 2 MB."""
    audience = BitMap(range(1, 16_000_000, 2))
    request = store.upload()
    request.expansion.user_ordinals = audience.serialize()
    name = await store.create(request)
    fence = await store.take(name)
    await store.step(name, fence, sent=range(1, 100_000, 2))
    for outcomes in ([common.OUTCOME_EXPANSION], [common.OUTCOME_SENT, common.OUTCOME_PENDING] * 4):
        chunks, last = [BitMap() for _ in outcomes], 0
        async for chunk in store.stub.ReadRecipients(pb.ReadRecipientsRequest(notification_id=name, outcomes=outcomes)):
            assert chunk.ByteSize() < 1024 * 1024
            bitmaps = [BitMap.deserialize(data) for data in chunk.user_ordinals]
            assert min(bitmap.min() for bitmap in bitmaps if bitmap) > last
            last = max(bitmap.max() for bitmap in bitmaps if bitmap)
            chunks = [one | other for one, other in zip(chunks, bitmaps, strict=True)]
        assert chunks[-1] == audience
        assert len(outcomes) == 1 or chunks[0] == BitMap(range(1, 100_000, 2))


async def test_recipients_are_forgotten_in_time(store: NotificationClient) -> None:
    totals = common.NotificationSpec(status_report=common.STATUS_REPORT_TOTALS)
    kept = [await store.running([1, 2]), await store.running([1, 2], spec=totals), await store.running([1, 2], spec=totals)]
    names = [name for name, _ in kept]
    for name, fence in kept:
        await store.step(name, fence, sent=[1, 2], lease=1000)
    for name in names[:2]:
        await store.control(name, cancel=pb.CancelAction())
    assert await sweeper(store).sweep(store.clock.now + 599 * SECOND) == 0
    assert (await store.deliver(names[1], [1])).delivered == 1
    assert await sweeper(store).sweep(store.clock.now + 600 * SECOND) == 1
    assert await gone(store, names[1])
    report = await store.deliver(names[1], [2])
    assert (report.delivered, report.cancelled, report.expansion) == (1, 1, 2)
    assert await store.recipients(names[0], common.OUTCOME_CANCELLED) == [{1, 2}]
    assert await sweeper(store).sweep(store.clock.now + 30 * DAY) == 1
    assert await gone(store, names[0])
    assert await store.recipients(names[2], common.OUTCOME_SENT) == [{1, 2}]


async def test_answers_are_forgotten_in_time_but_nothing_is_made_twice(store: NotificationClient) -> None:
    request = store.upload(send_in=60)
    first = await store.make(request)
    pausing = store.control_request(request.notification_id, pause=pb.PauseAction())
    await store.change(pausing)
    await sweeper(store).sweep(store.clock.now + 7 * DAY - 1)
    assert await store.make(request) == first
    await sweeper(store).sweep(store.clock.now + 7 * DAY)
    again = await store.stub.CreateNotification(request)
    assert (again.created, again.notification.report.state) == (False, common.NOTIFICATION_STATE_PAUSED)
    request.request_digest = b"another one, 16+"
    with pytest.raises(grpc.RpcError) as caught:
        await store.make(request)
    assert reason(caught.value) == "REQUEST_ID_CONFLICT"
    assert (await store.change(pausing)).fence == 1  # paused already


async def test_claims_are_found_by_index(store: NotificationClient) -> None:
    """However many there are: no statement of a claim reads the table through, or sorts more than is due."""
    spec = common.NotificationSpec
    for n in range(3):
        await store.create(spec=spec(priority=n))
    asked = await store.database.write(_plans)
    expected = ["expiring", "scheduled", "running", "expiring", "scheduled", "running", "expiring"]
    assert [_INDEX.findall(plan) for plan in asked] == [[name] for name in expected], asked


def _plans(connection: Connection) -> list[str]:
    """The plans of all that a claim asks."""
    asked: dict[str, Any] = {}

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "FROM notifications" in statement and "notification_id IN" not in statement:
            asked[statement] = parameters

    event.listen(connection, "before_cursor_execute", note)
    notification_claims.end_expired(connection, START)
    notification_claims.claim(connection, "claimer", 5, SECOND, START, ahead=SECOND // 2)
    notification_claims.next_due(connection)
    event.remove(connection, "before_cursor_execute", note)
    explain = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    plans = (connection.exec_driver_sql(f"{explain} {statement}", parameters).all() for statement, parameters in asked.items())
    return ["\n".join(str(row[-1]) for row in plan) for plan in plans]


async def gone(store: NotificationClient, name: str) -> bool:
    """Whether only its totals are kept."""
    with pytest.raises(grpc.RpcError) as caught:
        await store.recipients(name, common.OUTCOME_SENT)
    return reason(caught.value) == "REPORT_GONE"

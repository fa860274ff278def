"""UploadNotification: what is refused and why, what is filled in, and that a repeated request gets the same answer."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from mesh.errors import TidingsError
from mesh.followed_clock import FollowedClock
from mesh.times import SECOND
from scheduler.grpc_store import GrpcNotificationStore
from tests.eventually import eventually_answered
from tests.scheduler.business import Business, refusal, spec, stamp
from tests.scheduler.mesh_under_test import Mesh, Store
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Custom, Text
from tidings.store.v1 import notification_pb2 as stored

NOW = "2026-06-01 12:00"


async def test_it_is_kept_as_uploaded_with_what_was_left_out_filled_in(business: Business) -> None:
    answer = await business.upload(spec("ann", "bob", "ann", priority=3))
    kept = answer.notification.spec
    assert (kept.type, kept.priority, list(kept.audience.recipient_ids)) == ("notification", 3, ["ann", "bob", "ann"])
    assert (kept.send_time, kept.expire_time) == (stamp(NOW), stamp("2026-06-08 12:00"))
    assert (kept.status_report, kept.push_policy, kept.expand_at) == (
        common.STATUS_REPORT_PER_RECIPIENT,
        common.PUSH_POLICY_NEVER,
        common.EXPAND_AT_SEND,
    )
    assert not kept.HasField("rate_per_second")
    assert (answer.estimated_audience, answer.notification.report.state) == (2, common.NOTIFICATION_STATE_SCHEDULED)
    got = await business.get(answer.notification.notification_id)
    assert (got.spec, got.create_time) == (kept, stamp(NOW))


async def test_what_is_given_stays(business: Business) -> None:
    given = spec(
        send_time=stamp("2026-06-02 08:00"),
        expire_time=stamp("2026-06-03 08:00"),
        rate_per_second=500,
        type="news.daily",
        status_report=common.STATUS_REPORT_TOTALS,
        push_policy=common.PUSH_POLICY_NEVER,
        expand_at=common.EXPAND_AT_UPLOAD,
        content=Content(custom=Custom(type="acme.offer/1", data=b"\0\1")),
    )
    assert (await business.upload(given)).notification.spec == given


FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("INVALID_FIELD", "spec.audience", {"audience": common.Audience()}),
    ("INVALID_FIELD", "spec.audience", {"audience": common.Audience(excluded_ids=["ann"])}),
    ("INVALID_FIELD", "spec.audience.recipient_ids", {"audience": common.Audience(recipient_ids=["a b"])}),
    ("INVALID_FIELD", "spec.audience.recipient_ids", {"audience": common.Audience(recipient_ids=[""])}),
    ("INVALID_FIELD", "spec.audience.recipient_ids", {"audience": common.Audience(recipient_ids=["a"] * 10_001)}),
    ("INVALID_FIELD", "spec.audience.excluded_ids", {"audience": common.Audience(recipient_ids=["a"], excluded_ids=["é"])}),
    ("INVALID_FIELD", "spec.audience.excluded_ids", {"audience": common.Audience(expression="a", excluded_ids=["b"] * 10_001)}),
    ("INVALID_FIELD", "spec.type", {"type": "has space"}),
    ("INVALID_FIELD", "spec.type", {"type": "x" * 65}),
    ("INVALID_FIELD", "spec.content", {"content": Content()}),
    ("INVALID_FIELD", "spec.content", {"content": None}),
    ("INVALID_FIELD", "spec.content.text.text", {"content": Content(text=Text())}),
    ("INVALID_FIELD", "spec.content.custom.type", {"content": Content(custom=Custom(data=b"x"))}),
    ("CONTENT_TOO_LARGE", "spec.content", {"content": Content(text=Text(text="x" * 16_384))}),
    ("INVALID_FIELD", "spec.priority", {"priority": 10}),
    ("INVALID_FIELD", "spec.send_time", {"send_time": stamp("2026-06-01 11:59:54")}),
    ("INVALID_FIELD", "spec.send_time", {"send_time": stamp("2027-06-02 12:00:01")}),
    ("INVALID_FIELD", "spec.send_time", {"send_time": Timestamp(seconds=2**62)}),
    ("INVALID_FIELD", "spec.send_time", {"send_time": Timestamp(seconds=1_780_315_200, nanos=-1)}),
    ("INVALID_FIELD", "spec.expire_time", {"expire_time": stamp(NOW)}),
    ("INVALID_FIELD", "spec.expire_time", {"expire_time": stamp("2026-07-01 12:00:01")}),
    ("INVALID_FIELD", "spec.expire_time", {"send_time": stamp("2026-06-02 12:00"), "expire_time": stamp("2026-06-02 11:00")}),
    ("INVALID_FIELD", "spec.rate_per_second", {"rate_per_second": 0}),
    ("INVALID_FIELD", "spec.rate_per_second", {"rate_per_second": 1_000_001}),
    ("INVALID_FIELD", "spec.status_report", {"status_report": 3}),
    ("INVALID_FIELD", "spec.push_policy", {"push_policy": 9}),
    ("INVALID_FIELD", "spec.expand_at", {"expand_at": -1}),
    ("PUSH_NOT_CONFIGURED", "spec.push_policy", {"push_policy": common.PUSH_POLICY_WHEN_OFFLINE}),
    ("INVALID_FIELD", "spec.recurrence.cron", {"recurrence": common.Recurrence()}),
    ("INVALID_FIELD", "spec.recurrence.cron", {"recurrence": common.Recurrence(cron="0 8 * *")}),
    ("INVALID_FIELD", "spec.recurrence.cron", {"recurrence": common.Recurrence(cron="0 0 8 * * *")}),
    ("INVALID_FIELD", "spec.recurrence.cron", {"recurrence": common.Recurrence(cron="60 8 * * *")}),
    ("INVALID_FIELD", "spec.recurrence.cron", {"recurrence": common.Recurrence(cron="0 0 31 2 *")}),
    ("INVALID_FIELD", "spec.recurrence.cron", {"recurrence": common.Recurrence(cron="0 0 */31 2 7#5")}),
    ("INVALID_FIELD", "spec.recurrence.cron", {"recurrence": common.Recurrence(cron=f"{'0,' * 200}0 8 * * *")}),
    ("INVALID_FIELD", "spec.recurrence.time_zone", {"recurrence": common.Recurrence(cron="0 8 * * *", time_zone="Zurich")}),
    ("INVALID_FIELD", "spec.recurrence.time_zone", {"recurrence": common.Recurrence(cron="0 8 * * *", time_zone="../etc/passwd")}),
    (
        "INVALID_FIELD",
        "spec.recurrence.end_time",
        {"recurrence": common.Recurrence(cron="0 8 * * *", end_time=stamp("2026-06-02 08:00"))},
    ),
    ("UNKNOWN_TAG", "spec.audience.expression", {"audience": common.Audience(expression="gold + nosuch")}),
    ("INVALID_EXPRESSION", "spec.audience.expression", {"audience": common.Audience(expression="gold +")}),
    ("EXPRESSION_TOO_LARGE", "spec.audience.expression", {"audience": common.Audience(expression="gold + " * 1_000 + "gold")}),
    (
        "UNKNOWN_TAG",
        "spec.audience.excluded_expression",
        {"audience": common.Audience(recipient_ids=["a"], excluded_expression="nosuch")},
    ),
    ("EMPTY_AUDIENCE", "spec.audience", {"audience": common.Audience(recipient_ids=["ann"], excluded_ids=["ann"])}),
    ("EMPTY_AUDIENCE", "spec.audience", {"audience": common.Audience(expression="gold - gold")}),
]


async def test_each_fault_is_named_at_its_field_and_nothing_is_stored(mesh: Mesh, business: Business) -> None:
    mesh.tags.put("gold", 1)
    for reason, field, fields in FAULTS:
        assert await refusal(business.upload(spec(**fields))) == (reason, field), fields
    assert await business.list() == []


async def test_a_request_id_is_1_to_64_visible_characters(business: Business) -> None:
    for request_id in ["", " r1", "x" * 65, "a\nb", "é"]:
        assert await refusal(business.upload(spec(), request_id)) == ("INVALID_FIELD", "request_id"), request_id


async def test_a_fault_in_an_expression_says_where(mesh: Mesh, business: Business) -> None:
    mesh.tags.put("gold", 1)
    with pytest.raises(TidingsError, match=r"^spec\.audience\.expression: column 8: there is no tag"):
        await business.upload(spec(expression="gold + nosuch"))


async def test_a_request_without_a_spec_is_refused(business: Business) -> None:
    assert await refusal(business.upload(common.NotificationSpec())) == ("INVALID_FIELD", "spec.audience")


async def test_an_arm_of_content_that_is_newer_than_the_scheduler_passes(business: Business) -> None:
    newer = Content.FromString(b"\x7a\x03abc")
    answer = await business.upload(spec(content=newer))
    assert answer.notification.spec.content.SerializeToString() == newer.SerializeToString()


async def test_a_little_in_the_past_counts_as_now(business: Business) -> None:
    answer = await business.upload(spec(send_time=stamp("2026-06-01 11:59:55")))
    assert answer.notification.spec.send_time == stamp(NOW)


async def test_the_bounds_themselves_are_allowed(business: Business) -> None:
    ids = [f"u{number}" for number in range(10_000)]
    answer = await business.upload(
        spec(
            *ids,
            send_time=stamp("2027-06-02 12:00"),
            expire_time=stamp("2027-07-02 12:00"),
            priority=9,
            rate_per_second=1_000_000,
            content=Content(text=Text(text="x" * (16_384 - 8))),
        ),
        "!" + "~" * 63,
    )
    assert answer.estimated_audience == 10_000


async def test_the_audience_is_ids_and_expression_without_those_left_out(mesh: Mesh, store: Store, business: Business) -> None:
    ordinals = await store.ordinals("a", "b", "c", "d", "e")
    mesh.tags.put("gold", *ordinals[:4])
    mesh.tags.put("left", ordinals[1])
    whom = {"expression": "gold", "excluded_expression": "left", "excluded_ids": ["c"]}
    answer = await business.upload(spec("e", "f", "c", **whom))
    assert answer.estimated_audience == 4  # a, d, e, f
    [kept] = (await store.notifications.GetNotifications(_ids(answer.notification.notification_id))).notifications
    assert BitMap.deserialize(kept.recipient_ordinals) == BitMap(await store.ordinals("e", "f", "c"))
    assert BitMap.deserialize(kept.excluded_ordinals) == BitMap(await store.ordinals("c"))
    references = await store.notifications.ListReferences(stored.ListReferencesRequest(names=["left"]))
    assert references.notification_ids == [answer.notification.notification_id]


async def test_who_is_left_out_of_an_expression_stays_out_though_first_seen_later(
    mesh: Mesh, store: Store, business: Business
) -> None:
    mesh.tags.put("gold", *await store.ordinals("a"))
    answer = await business.upload(spec(expression="gold", excluded_ids=["new"]))
    [kept] = (await store.notifications.GetNotifications(_ids(answer.notification.notification_id))).notifications
    assert BitMap.deserialize(kept.excluded_ordinals) == BitMap(await store.ordinals("new"))


async def test_who_is_left_out_of_a_list_need_not_come_into_being(store: Store, business: Business) -> None:
    await business.upload(spec("a", excluded_ids=["new"]))
    assert await store.known("a", "new") == {"a"}


async def test_an_audience_settled_at_upload_is_stored_with_its_snapshot(mesh: Mesh, store: Store, business: Business) -> None:
    mesh.tags.put("gold", *await store.ordinals("a", "b"))
    answer = await business.upload(spec(expression="gold", excluded_ids=["b"], expand_at=common.EXPAND_AT_UPLOAD))
    report = answer.notification.report
    assert (report.expansion, report.pending, report.snapshot_version) == (1, 1, mesh.tags.version)
    request = stored.ReadRecipientsRequest(notification_id=answer.notification.notification_id, outcomes=[common.OUTCOME_EXPANSION])
    chunks = [BitMap.deserialize(chunk.user_ordinals[0]) async for chunk in store.notifications.ReadRecipients(request)]
    assert chunks == [BitMap(await store.ordinals("a"))]


async def test_both_expressions_are_read_in_one_snapshot_though_one_instance_lags(mesh: Mesh, store: Store) -> None:
    ordinals = await store.ordinals("a", "b")
    mesh.tags.put("gold", *ordinals)
    mesh.tags.put("left", ordinals[1])
    instances = [await mesh.audience(), await mesh.audience()]
    instances[1].behind = 3
    business = await mesh.scheduler()
    answer = await business.upload(spec(expression="gold", excluded_expression="left", expand_at=common.EXPAND_AT_UPLOAD))
    assert (answer.estimated_audience, answer.notification.report.expansion) == (1, 1)


async def test_an_empty_audience_is_taken_when_that_is_allowed(business: Business) -> None:
    answer = await business.upload(spec("a", excluded_ids=["a"], allow_empty_audience=True))
    assert answer.estimated_audience == 0


async def test_a_repeated_request_gets_the_same_answer_whatever_happened(mesh: Mesh, store: Store, business: Business) -> None:
    mesh.tags.put("gold", *await store.ordinals("a", "b"))
    wanted = spec(expression="gold", send_time=stamp("2026-06-01 12:00:03"))
    first = await business.upload(wanted, "same")
    del mesh.tags.members["gold"]
    mesh.clock.advance(days=3)
    calls = len(mesh.tags.calls)
    assert await business.upload(wanted, "same") == first
    assert len(mesh.tags.calls) == calls
    assert len(await business.list()) == 1
    other = await mesh.scheduler()
    assert await other.upload(wanted, "same") == first


async def test_another_body_under_the_same_request_id_is_a_conflict(business: Business) -> None:
    notification_id = await business.send()
    await business.upload(spec("ann"), "same")
    assert await refusal(business.upload(spec("bob"), "same")) == ("REQUEST_ID_CONFLICT", "request_id")
    assert await refusal(business.pause(notification_id, "same")) == ("REQUEST_ID_CONFLICT", "request_id")


async def test_the_same_request_at_the_same_time_at_two_schedulers_is_taken_once(mesh: Mesh, business: Business) -> None:
    other = await mesh.scheduler()
    wanted = spec("ann", "bob", send_time=stamp("2026-06-02 12:00"))
    answers = await asyncio.gather(*((business, other)[number % 2].upload(wanted, "same") for number in range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert len(await business.list()) == 1


@pytest.mark.parametrize("came_late", [False, True])
@pytest.mark.parametrize("wanted", [spec(expire_time=stamp("2026-06-01 12:00:02")), spec(expression="gold")])
async def test_who_finds_it_impossible_by_now_gives_the_answer_of_who_was_faster(
    mesh: Mesh,
    store: Store,
    business: Business,
    monkeypatch: pytest.MonkeyPatch,
    wanted: common.NotificationSpec,
    *,
    came_late: bool,
) -> None:
    mesh.tags.put("gold", *await store.ordinals("a"))
    other, began, look = await mesh.scheduler(), mesh.clock.now, GrpcNotificationStore.find_request
    faster: list[Any] = []

    async def slow_look(looking: Any, request: Any) -> Any:
        """The first who looks finds nothing; when it hears so, the other has taken the notification and the world has changed."""
        found = await look(looking, request)
        monkeypatch.setattr(GrpcNotificationStore, "find_request", look)
        if not faster:
            mesh.clock.now = began
            faster.append(await other.upload(wanted, "same"))
            mesh.tags.members["gold"].clear()
            mesh.clock.advance(seconds=60)
        return found

    monkeypatch.setattr(GrpcNotificationStore, "find_request", slow_look)
    mesh.clock.advance(seconds=60 if came_late else 0)
    assert await business.upload(wanted, "same") == faster[0]
    assert len(await business.list()) == 1


@pytest.mark.parametrize("wanted", [spec(send_time=stamp(NOW)), spec(expression="gold")])
async def test_what_was_refused_for_its_time_or_its_tags_stays_refused(
    mesh: Mesh, store: Store, business: Business, wanted: common.NotificationSpec
) -> None:
    mesh.tags.put("gold")
    mesh.clock.advance(seconds=60)
    refused = await refusal(business.upload(wanted, "same"))
    assert refused in {("INVALID_FIELD", "spec.send_time"), ("EMPTY_AUDIENCE", "spec.audience")}
    mesh.clock.advance(seconds=-60)
    mesh.tags.put("gold", *await store.ordinals("a"))
    other = await mesh.scheduler()
    assert await refusal(other.upload(wanted, "same")) == refused
    assert await business.list() == []
    await other.upload(wanted, "new")


async def test_a_first_try_that_comes_to_the_store_after_a_refusal_is_refused(
    mesh: Mesh, business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, create = await mesh.scheduler(), GrpcNotificationStore.create
    on_the_way, let_go = asyncio.Event(), asyncio.Event()

    async def slow_create(storing: Any, request: Any) -> Any:
        on_the_way.set()
        await let_go.wait()
        return await create(storing, request)

    monkeypatch.setattr(GrpcNotificationStore, "create", slow_create)
    wanted = spec("ann", send_time=stamp(NOW))
    first = asyncio.create_task(refusal(business.upload(wanted, "same")))
    await asyncio.wait_for(on_the_way.wait(), 10)
    mesh.clock.advance(seconds=60)
    refused = await refusal(other.upload(wanted, "same"))
    let_go.set()
    assert await first == refused == ("INVALID_FIELD", "spec.send_time")
    assert await business.list() == []


@pytest.mark.parametrize("fast", [3_600, -3_600])
async def test_a_scheduler_whose_clock_is_wrong_judges_by_the_store(mesh: Mesh, store: Store, fast: int) -> None:
    own = FollowedClock(lambda: mesh.clock.now + fast * SECOND, mesh.clock)
    business = await mesh.scheduler(own=own)

    async def right() -> bool:
        return own() == int(mesh.clock.now)

    await eventually_answered(right)
    answer = await business.upload(spec("ann", send_time=stamp("2026-06-01 12:00:10"), expire_time=stamp("2026-06-01 12:10")))
    assert answer.notification.report.state == common.NOTIFICATION_STATE_SCHEDULED
    assert (await business.upload(spec("ann"))).notification.spec.send_time == stamp(NOW)


async def test_without_a_tags_service_only_expressions_are_refused_for_now(mesh: Mesh, store: Store) -> None:
    business = await mesh.scheduler()
    assert (await business.upload(spec("ann"))).estimated_audience == 1
    with pytest.raises(TidingsError) as raised:
        await business.upload(spec(expression="gold"), "later")
    assert (raised.value.reason, raised.value.field) == ("UNAVAILABLE", "")
    await mesh.audience()
    mesh.tags.put("gold", *await store.ordinals("a"))
    await eventually_answered(lambda: taken(business.upload(spec(expression="gold"), "later")))
    assert len(await business.list()) == 2


async def test_without_a_store_nothing_is_taken_and_the_same_request_goes_through_later(mesh: Mesh) -> None:
    await mesh.audience()
    async with AsyncExitStack() as first:
        await mesh.store(first)
        business = await mesh.scheduler()
        before = await business.upload(spec("ann"), "before")
    assert await refusal(business.upload(spec("ann"), "during")) == ("UNAVAILABLE", "")
    await mesh.store()
    await eventually_answered(lambda: taken(business.upload(spec("ann"), "during")))
    assert await business.upload(spec("ann"), "before") == before
    assert len(await business.list()) == 2


async def taken(call: Any) -> bool:
    """Whether a call succeeds; else it must be for want of a service."""
    try:
        await call
    except TidingsError as error:
        assert error.reason == "UNAVAILABLE"
        return False
    return True


def _ids(*notification_ids: str) -> stored.GetNotificationsRequest:
    return stored.GetNotificationsRequest(notification_ids=notification_ids)

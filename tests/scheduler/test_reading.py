"""GetNotification, ListNotifications, ListRecipients, EstimateAudience."""

import asyncio
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import TidingsError
from scheduler.recipients import Place
from tests.scheduler.business import Business, refusal, stamp
from tests.scheduler.mesh_under_test import Mesh, Store
from tests.scheduler.router_twin import Router
from tests.scheduler.test_controls import send_to
from tidings.common.v1 import notification_pb2 as common

LATER = stamp("2026-06-02 12:00")
UNKNOWN = "n" + "a" * 26


async def test_what_does_not_exist_is_not_found(business: Business) -> None:
    not_found = ("NOTIFICATION_NOT_FOUND", "notification_id")
    for unknown in (UNKNOWN, "", "n\0"):
        assert await refusal(business.get(unknown)) == not_found
        assert await refusal(business.recipients(unknown, common.OUTCOME_SENT)) == not_found


async def test_a_list_is_the_newest_first_in_pages(business: Business) -> None:
    sent = [await business.send(send_time=LATER) for _ in range(5)]
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        page = await business.page(page_size=2, page_token=token)
        pages.append([one.notification_id for one in page.notifications])
        token = page.next_page_token
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [one for page in pages for one in page] == sent[::-1]


async def test_a_list_is_narrowed_by_each_field(business: Business) -> None:
    news = await business.send(type="news", send_time=stamp("2026-06-02 08:00"))
    other = await business.send(send_time=stamp("2026-06-03 08:00"))
    recurring = await business.send(recurrence=common.Recurrence(cron="0 8 4 6 *"))
    await business.cancel(other)

    async def ids(**fields: Any) -> list[str]:
        return [one.notification_id for one in await business.list(**fields)]

    assert await ids(type="news") == [news]
    assert await ids(type="notification", states=[common.NOTIFICATION_STATE_SCHEDULED]) == [recurring]
    assert await ids(states=[common.NOTIFICATION_STATE_CANCELLED]) == [other]
    assert await ids(series_id=recurring) == [recurring]
    assert await ids(send_after=stamp("2026-06-03 08:00")) == [recurring, other]
    assert await ids(send_before=stamp("2026-06-03 08:00")) == [news]
    assert await ids(send_after=stamp("2026-06-03 08:00"), send_before=stamp("2026-06-04 08:00")) == [other]


LIST_FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"page_size": 1_001}, "INVALID_FIELD", "page_size"),
    ({"page_token": "nonsense"}, "INVALID_FIELD", "page_token"),
    ({"page_token": "x" * 2_000}, "INVALID_FIELD", "page_token"),
    ({"states": [9]}, "INVALID_FIELD", "states"),
    ({"states": [-1]}, "INVALID_FIELD", "states"),
    ({"type": "two words"}, "INVALID_FIELD", "type"),
    ({"series_id": "x"}, "NOTIFICATION_NOT_FOUND", "series_id"),
    ({"send_after": Timestamp(seconds=-1)}, "INVALID_FIELD", "send_after"),
    ({"send_before": Timestamp(nanos=2_000_000_000)}, "INVALID_FIELD", "send_before"),
]


async def test_a_list_names_the_field_that_is_wrong(business: Business) -> None:
    for fields, reason, field in LIST_FAULTS:
        assert await refusal(business.list(**fields)) == (reason, field), fields


async def test_recipients_by_what_became_of_them_in_pages(store: Store, router: Router, business: Business) -> None:
    users = [f"u{number}" for number in range(2_500)]
    for start in range(0, 2_500, 500):
        await store.ordinals("stranger", *users[start : start + 500])
    notification_id = await business.send(*users)
    await send_to(store, router, notification_id, *users[:3])
    sent = await business.recipients(notification_id, common.OUTCOME_SENT)
    assert (list(sent.user_ids), sent.next_page_token) == (users[:3], "")
    first = await business.recipients(notification_id, common.OUTCOME_EXPANSION)
    assert list(first.user_ids) == users[:1_000], "1,000 when nothing is said, in the order in which they were first seen"
    rest = await business.recipients(notification_id, common.OUTCOME_EXPANSION, 1_500, first.next_page_token)
    assert (list(rest.user_ids), rest.next_page_token) == (users[1_000:], "")
    assert list((await business.recipients(notification_id, common.OUTCOME_PENDING, 10_000)).user_ids) == users
    assert list((await business.recipients(notification_id, common.OUTCOME_DELIVERED)).user_ids) == []


async def test_recipients_name_what_is_wrong(store: Store, router: Router, business: Business) -> None:
    one, other = await business.send("a", "b", "c"), await business.send("a", "b", "c")
    await send_to(store, router, one, "a")
    token = (await business.recipients(one, common.OUTCOME_EXPANSION, 1)).next_page_token
    assert await refusal(business.recipients(one, common.OUTCOME_UNSPECIFIED)) == ("INVALID_FIELD", "outcome")
    assert await refusal(business.recipients(one, 8)) == ("INVALID_FIELD", "outcome")  # type: ignore[arg-type]
    assert await refusal(business.recipients(one, common.OUTCOME_SENT, 10_001)) == ("INVALID_FIELD", "page_size")
    for call in (
        business.recipients(other, common.OUTCOME_EXPANSION, 1, token),
        business.recipients(one, common.OUTCOME_SENT, 1, token),
        business.recipients(one, common.OUTCOME_EXPANSION, 1, "nonsense"),
        business.recipients(one, common.OUTCOME_EXPANSION, 1, "bi8vLw=="),
        business.recipients(one, common.OUTCOME_EXPANSION, 1, "é"),
        business.recipients(one, common.OUTCOME_EXPANSION, 1, str(Place(one, common.OUTCOME_EXPANSION, 2**64))),
    ):
        assert await refusal(call) == ("INVALID_FIELD", "page_token")


async def test_recipients_that_are_not_kept_are_gone(mesh: Mesh) -> None:
    await mesh.store(sweep_seconds=0.02)
    business = await mesh.scheduler()
    totals: dict[str, Any] = {"expand_at": common.EXPAND_AT_UPLOAD, "status_report": common.STATUS_REPORT_TOTALS}
    notification_id = await business.send("a", send_time=LATER, **totals)
    await business.cancel(notification_id)
    mesh.clock.advance(days=1)
    with pytest.raises(TidingsError, match="only the totals") as raised:
        async with asyncio.timeout(10):
            while True:
                assert list((await business.recipients(notification_id, common.OUTCOME_CANCELLED)).user_ids) == ["a"]
    assert (raised.value.reason, raised.value.field) == ("REPORT_GONE", "notification_id")
    assert (await business.get(notification_id)).report.cancelled == 1


async def test_an_estimate_is_exact_and_makes_nobody(mesh: Mesh, store: Store, business: Business) -> None:
    ordinals = await store.ordinals("a", "b", "c", "d")
    mesh.tags.put("gold", *ordinals[:3])
    mesh.tags.put("left", ordinals[0])
    mesh.tags.put("everyone", *ordinals)
    whom: dict[str, Any] = {"recipient_ids": ["c", "new", "newer", "new"], "expression": "gold", "excluded_expression": "left"}
    answer = await business.estimate(**whom, excluded_ids=["b", "newer"])
    assert (answer.count, answer.known_clients, answer.snapshot_version) == (2, 4, mesh.tags.version)
    assert await store.known("new", "newer") == set()
    plain = await business.estimate(recipient_ids=["a", "b"], excluded_ids=["b"])
    assert (plain.count, plain.known_clients, plain.snapshot_version) == (1, 4, 0)


async def test_an_estimate_compares_with_the_clients_known_when_it_counted(mesh: Mesh, store: Store, business: Business) -> None:
    mesh.tags.put("gold", *await store.ordinals("a", "b", "c"))
    mesh.tags.newcomers = 1
    for known, whom in ((3, {"expression": "*"}), (4, {"recipient_ids": ["a", "b", "c"], "excluded_expression": "* - gold"})):
        answer = await business.estimate(**whom)
        assert (answer.count, answer.known_clients) == (3, known)


ESTIMATE_FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "INVALID_FIELD", "audience"),
    ({"recipient_ids": ["a b"]}, "INVALID_FIELD", "audience.recipient_ids"),
    ({"expression": "nosuch"}, "UNKNOWN_TAG", "audience.expression"),
    ({"recipient_ids": ["a"], "excluded_expression": "+"}, "INVALID_EXPRESSION", "audience.excluded_expression"),
]


async def test_an_estimate_names_the_wrong_field(business: Business) -> None:
    for fields, reason, field in ESTIMATE_FAULTS:
        assert await refusal(business.estimate(**fields)) == (reason, field), fields

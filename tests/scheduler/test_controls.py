"""Cancel, pause, resume, prioritise, reschedule: what the store allows, repeated requests, and the hint to the router."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pyroaring import BitMap

from scheduler.grpc_store import GrpcNotificationStore
from tests.scheduler.business import Business, refusal, stamp
from tests.scheduler.mesh_under_test import Mesh, Store
from tests.scheduler.router_twin import Router
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as stored

LATER = stamp("2026-06-02 12:00")
UNKNOWN = "n" + "a" * 26


async def test_cancel_ends_it_and_says_how_many_had_gone(store: Store, router: Router, business: Business) -> None:
    notification_id = await business.send("a", "b", "c")
    await send_to(store, router, notification_id, "a", "b")
    answer = await business.cancel(notification_id)
    assert (answer.sent, answer.notification.report.state) == (2, common.NOTIFICATION_STATE_CANCELLED)
    assert answer.notification.report.cancelled == 3
    await router.until(lambda: notification_id in router.refreshed)


async def test_pause_and_resume(mesh: Mesh, router: Router, business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    paused = await business.pause(notification_id)
    assert paused.report.state == common.NOTIFICATION_STATE_PAUSED
    assert await business.pause(notification_id) == paused
    mesh.clock.advance(days=2)
    probe = await business.send("probe")  # what is due after it is handed over, and it isn't
    await router.until(lambda: probe in router.ids)
    assert notification_id not in router.ids
    await business.resume(notification_id)
    await router.until(lambda: notification_id in router.ids)
    await router.until(lambda: notification_id in router.refreshed)


async def test_prioritize_changes_what_goes_first(mesh: Mesh, router: Router, business: Business) -> None:
    low, high = await business.send(send_time=LATER), await business.send(send_time=LATER, priority=5)
    changed = await business.prioritize(low, 9)
    assert (changed.spec.priority, (await business.get(low)).spec.priority) == (9, 9)
    mesh.clock.advance(days=1)
    await router.until(lambda: len(router.started) == 2)
    assert router.ids == [low, high]


async def test_reschedule_moves_the_expiry_along(business: Business) -> None:
    notification_id = await business.send(send_time=LATER, expire_time=stamp("2026-06-03 12:00"))
    moved = await business.reschedule(notification_id, send_time=stamp("2026-06-05 06:00"))
    assert (moved.spec.send_time, moved.spec.expire_time) == (stamp("2026-06-05 06:00"), stamp("2026-06-06 06:00"))


async def test_reschedule_without_a_time_is_for_now(router: Router, business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    moved = await business.reschedule(notification_id)
    assert moved.spec.send_time == stamp("2026-06-01 12:00")
    await router.until(lambda: notification_id in router.ids)


async def test_reschedule_with_an_expiry_of_its_own(business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    moved = await business.reschedule(notification_id, send_time=LATER, expire_time=stamp("2026-06-02 12:01"))
    assert moved.spec.expire_time == stamp("2026-06-02 12:01")


TIME_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"send_time": stamp("2026-06-01 11:59:54")}, "send_time"),
    ({"send_time": stamp("2027-06-03 12:00")}, "send_time"),
    ({"send_time": LATER, "expire_time": LATER}, "expire_time"),
    ({"send_time": LATER, "expire_time": stamp("2026-07-02 12:00:01")}, "expire_time"),
    ({"expire_time": stamp("2026-06-01 12:00")}, "expire_time"),
]


async def test_reschedule_checks_its_times(business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    for times, field in TIME_FAULTS:
        assert await refusal(business.reschedule(notification_id, **times)) == ("INVALID_FIELD", field), times


async def test_a_move_that_is_too_late_by_now_gets_the_answer_of_who_was_faster(
    mesh: Mesh, business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    notification_id, look = await business.send(send_time=LATER), GrpcNotificationStore.find_request
    faster: list[Any] = []
    wanted = stamp("2026-06-01 12:00:04")

    async def slow_look(looking: Any, request: Any) -> Any:
        """The first who looks finds nothing; when it hears so, the other has moved it, and the time has passed."""
        found = await look(looking, request)
        monkeypatch.setattr(GrpcNotificationStore, "find_request", look)
        mesh.clock.advance(seconds=-60)
        faster.append(await business.reschedule(notification_id, "same", send_time=wanted))
        mesh.clock.advance(seconds=60)
        return found

    mesh.clock.advance(seconds=60)
    monkeypatch.setattr(GrpcNotificationStore, "find_request", slow_look)
    assert await business.reschedule(notification_id, "same", send_time=wanted) == faster[0]


async def test_a_priority_is_at_most_9(business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    assert await refusal(business.prioritize(notification_id, 10)) == ("INVALID_FIELD", "priority")


async def test_what_is_over_stays_as_it_is(business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    await business.cancel(notification_id)
    conflict = ("NOTIFICATION_STATE_CONFLICT", "notification_id")
    for call in calls(business, notification_id):
        assert await refusal(call) == conflict
    assert await refusal(business.cancel(notification_id, whole_series=True)) == conflict


async def test_only_what_is_paused_resumes_and_only_what_has_not_begun_moves(
    store: Store, router: Router, business: Business
) -> None:
    notification_id = await business.send("a", "b")
    conflict = ("NOTIFICATION_STATE_CONFLICT", "notification_id")
    assert await refusal(business.resume(notification_id)) == conflict
    await send_to(store, router, notification_id, "a")
    assert await refusal(business.reschedule(notification_id, send_time=LATER)) == conflict


async def test_what_does_not_exist_is_not_found(business: Business) -> None:
    for unknown in (UNKNOWN, "", "x", "n\0", UNKNOWN.upper()):
        for call in (*calls(business, unknown), business.cancel(unknown, whole_series=True)):
            assert await refusal(call) == ("NOTIFICATION_NOT_FOUND", "notification_id"), unknown


async def test_a_request_id_is_checked(business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    for call in calls(business, notification_id, "two words"):
        assert await refusal(call) == ("INVALID_FIELD", "request_id")


async def test_repeated_requests_get_the_same_answers_whatever_happened_since(mesh: Mesh, business: Business) -> None:
    notification_id = await business.send(send_time=LATER)
    requests: list[Callable[[Business], Awaitable[Any]]] = [
        lambda at: at.pause(notification_id, "pause"),
        lambda at: at.resume(notification_id, "resume"),
        lambda at: at.prioritize(notification_id, 4, "prioritize"),
        lambda at: at.reschedule(notification_id, "reschedule", send_time=stamp("2026-06-01 12:00:04")),
        lambda at: at.reschedule(notification_id, "now"),
        lambda at: at.cancel(notification_id, "cancel"),
    ]
    answers = [await request(business) for request in requests]
    mesh.clock.advance(days=40)
    other = await mesh.scheduler()
    assert [await request(other) for request in requests] == answers
    assert await asyncio.gather(*(request(other) for request in requests)) == answers


async def test_a_request_id_is_good_for_one_request_only(business: Business) -> None:
    one, other = await business.send(send_time=LATER), await business.send(send_time=LATER)
    await business.pause(one, "same")
    for call in (*calls(business, other, "same"), business.cancel(one, "same"), business.resume(one, "same")):
        assert await refusal(call) == ("REQUEST_ID_CONFLICT", "request_id")
    assert await business.state(other) == common.NOTIFICATION_STATE_SCHEDULED


async def test_controls_at_the_same_time_at_two_schedulers_are_carried_out_once(mesh: Mesh, business: Business) -> None:
    other = await mesh.scheduler()
    notification_id = await business.send(send_time=LATER)
    answers = await asyncio.gather(*((business, other)[number % 2].cancel(notification_id, "same") for number in range(10)))
    assert all(answer == answers[0] for answer in answers)


async def test_a_router_that_hangs_or_is_away_delays_no_control(mesh: Mesh, router: Router, business: Business) -> None:
    router.answering.clear()
    notification_id = await business.send(send_time=LATER)
    async with asyncio.timeout(5):
        await business.pause(notification_id)
        await router.until(lambda: notification_id in router.refreshed)
        await business.cancel(notification_id)
    router.answering.set()
    await router.until(lambda: router.refreshed.count(notification_id) == 2)


def calls(business: Business, notification_id: str, request_id: str = "") -> list[Any]:
    """Every control of one notification."""
    return [
        business.cancel(notification_id, request_id),
        business.pause(notification_id, request_id),
        business.resume(notification_id, request_id),
        business.prioritize(notification_id, 1, request_id),
        business.reschedule(notification_id, request_id, send_time=LATER),
    ]


async def send_to(store: Store, router: Router, notification_id: str, *user_ids: str) -> None:
    """As its router: expand it to all its recipients, and send it to these."""
    await router.until(lambda: notification_id in router.ids)
    claim = stored.Claim(notification_id=notification_id, fence=dict(router.started)[notification_id])
    request = stored.GetNotificationsRequest(notification_ids=[notification_id])
    [kept] = (await store.notifications.GetNotifications(request)).notifications
    save = stored.SaveExpansionRequest(claim=claim, expansion=stored.Expansion(user_ordinals=kept.recipient_ordinals))
    save.lease.seconds = 10
    await store.notifications.SaveExpansion(save)
    sent = BitMap(await store.ordinals(*user_ids)).serialize()
    progress = stored.SaveProgressRequest(progress=[stored.Progress(claim=claim, sent_ordinals=sent)])
    progress.lease.seconds = 10
    await store.notifications.SaveProgress(progress)

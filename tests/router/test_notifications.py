"""Notifications over the wire: from a scheduler's claim to edges, and back to the store."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from itertools import islice, product

import pytest
from pyroaring import BitMap

from mesh import errors
from tests.eventually import eventually
from tests.router.conftest import Mesh
from tests.router.fake_edge import edge, frame_of
from tests.router.notification_mesh import NotificationMesh, RouterHand, gauge, notification_mesh
from tests.router.notification_twin import notification
from tidings.common.v1 import notification_pb2 as common
from tidings.router.v1 import link_pb2
from tidings.router.v1 import notification_pb2 as pb
from tidings.store.v1 import notification_pb2 as store

COMPLETED, SENDING = common.NOTIFICATION_STATE_COMPLETED, common.NOTIFICATION_STATE_SENDING


@pytest.fixture
async def world(mesh: Mesh) -> AsyncIterator[NotificationMesh]:
    async with notification_mesh(mesh) as made:
        yield made


@pytest.fixture
async def router(world: NotificationMesh) -> RouterHand:
    return await world.router()


def _acknowledgement(notification_id: str, ordinal: int) -> link_pb2.NotificationAcknowledgement:
    return link_pb2.NotificationAcknowledgement(notification_id=notification_id, user_ordinals=BitMap([ordinal]).serialize())


async def test_who_is_online_gets_it_and_their_acknowledgements_end_it(world: NotificationMesh, router: RouterHand) -> None:
    kept = world.memory.put("a", 1, 2, 3, 4, excluded=(4,), priority=7, type="news")
    async with edge(router.address, 1, 2, 9, edge_id="one") as one, edge(router.address, 2, 3, 4, edge_id="two") as two:
        assert await router.start() == []
        await one.until(lambda: one.notified(kept.notification_id) != [])
        await two.until(lambda: two.notified(kept.notification_id) != [])
        assert (one.notified(kept.notification_id), two.notified(kept.notification_id)) == ([1, 2], [2, 3])
        sent = one.broadcasts[0]
        frame = frame_of(sent.frame).notification
        assert (sent.traffic_class, sent.notification_id) == (link_pb2.TRAFFIC_CLASS_NOTIFICATION, kept.notification_id)
        assert sent.expire_time_us == kept.spec.expire_time.ToMicroseconds()
        assert (frame.notification_id, frame.type, frame.content.text.text, frame.priority) == (
            kept.notification_id,
            "news",
            "a",
            7,
        )
        assert (frame.send_time, frame.expire_time) == (kept.spec.send_time, kept.spec.expire_time)
        assert kept.sent == BitMap([1, 2, 3]) and kept.expansion == BitMap([1, 2, 3])
        await one.acknowledge(kept.notification_id, 1, 2)
        await two.acknowledge(kept.notification_id, 3)
        await world.memory.until(lambda: kept.state == COMPLETED)
        assert kept.report().delivered == 3
    await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 0)


async def test_it_is_stored_before_it_is_sent(world: NotificationMesh, router: RouterHand) -> None:
    kept = world.memory.put("a", 1)
    world.memory.answering.clear()
    async with edge(router.address, 1) as one:
        await router.start()
        await world.memory.until(lambda: bool(kept.sent))
        await one.settled()
        assert not one.broadcasts
        world.memory.answering.set()
        await one.until(lambda: one.notified(kept.notification_id) == [1])


async def test_the_first_leaves_quickly(world: NotificationMesh, router: RouterHand) -> None:
    world.memory.put("warm", 1)
    async with edge(router.address, 1) as one:
        await router.start()
        await one.until(lambda: one.broadcasts != [])
        world.memory.put("a", 1)
        begun = time.monotonic()
        await router.start()
        await one.until(lambda: len(one.broadcasts) == 2)
        assert one.heard_at[1] - begun < 3.0  # a loaded machine; tests/router/notification_cost.py measures


async def test_ten_thousand_connected_of_ten_million_are_three_frames(world: NotificationMesh, router: RouterHand) -> None:
    kept = world.memory.put("a")
    kept.recipients = BitMap(range(1, 10_000_001))
    online = BitMap(range(1, 10_000_001, 1000))
    async with edge(router.address, *online) as one:
        await router.start()
        await one.until(lambda: len(one.notified(kept.notification_id)) == 10_000)
        assert len(one.broadcasts) == 3
        assert BitMap.union(*(BitMap.deserialize(one.user_ordinals) for one in one.broadcasts)) == online == kept.sent


async def test_the_offline_get_it_when_they_come(world: NotificationMesh, router: RouterHand) -> None:
    kept = world.memory.put("a", 1, 2, 3)
    async with edge(router.address, 9) as one:
        await router.start()
        await world.memory.until(lambda: kept.state == SENDING)
        assert one.broadcasts == []
        await one.batch(opened_user_ordinals=[2, 8])
        await one.until(lambda: one.notified(kept.notification_id) == [2])
        async with edge(router.address, 3, edge_id="two") as two:
            await two.until(lambda: two.notified(kept.notification_id) == [3])
        assert kept.sent == BitMap([2, 3])


async def test_who_says_nothing_is_sent_it_again_and_at_once_when_they_come_back(world: NotificationMesh) -> None:
    router = await world.router(resend_seconds=0.8)
    kept = world.memory.put("a", 1, 2)
    async with edge(router.address, 1, 2) as one:
        await router.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2])
        await one.acknowledge(kept.notification_id, 1)
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2, 2])
        assert one.heard_at[1] - one.heard_at[0] >= 0.8
        await one.batch(closed_user_ordinals=[2])
        await one.batch(opened_user_ordinals=[2])
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2, 2, 2])
        assert one.heard_at[2] - one.heard_at[1] < 0.8
        await one.acknowledge(kept.notification_id, 2)
        await world.memory.until(lambda: kept.state == COMPLETED)


async def test_a_link_that_is_made_anew_is_told_again(world: NotificationMesh) -> None:
    router = await world.router(resend_seconds=60)
    kept = world.memory.put("a", 1)
    async with edge(router.address, 1) as one:
        await router.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1])
        async with edge(router.address, 1) as two:
            await two.until(lambda: two.notified(kept.notification_id) == [1])


async def test_the_rate_is_kept(world: NotificationMesh, router: RouterHand) -> None:
    kept = world.memory.put("a", *range(1, 241), rate_per_second=100)
    async with edge(router.address, *range(1, 241)) as one:
        begun = time.monotonic()
        await router.start()
        await one.until(lambda: len(one.notified(kept.notification_id)) >= 200)
        for at in one.heard_at:
            within = [
                len(BitMap.deserialize(b.user_ordinals))
                for b, t in zip(one.broadcasts, one.heard_at, strict=True)
                if at <= t < at + 1
            ]
            assert sum(within) <= 120  # a step may arrive a little later than it left; the core's test is strict
        assert len(one.broadcasts) >= 20, "evenly spread"
        assert 1.5 < one.heard_at[-1] - begun < 8.0


@pytest.mark.parametrize(
    ("action", "state"), [("cancel", common.NOTIFICATION_STATE_CANCELLED), ("pause", common.NOTIFICATION_STATE_PAUSED)]
)
async def test_nobody_is_sent_it_once_it_was_stopped(world: NotificationMesh, router: RouterHand, action: str, state: int) -> None:
    kept = world.memory.put("a", *range(1, 2001), rate_per_second=400)
    what = {"cancel": store.CancelAction()} if action == "cancel" else {"pause": store.PauseAction()}
    async with edge(router.address, *range(1, 2001)) as one:
        await router.start()
        await one.until(lambda: len(one.broadcasts) >= 4)
        answer = await world.control(kept, **what)
        await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 0)
        await one.settled()
        told = set(one.notified(kept.notification_id))
        assert kept.state == state and 0 < answer.report.sent < 2000
        assert told <= set(kept.sent) and len(kept.sent) == answer.report.sent


async def test_a_hint_stops_a_run_that_has_nothing_to_write(world: NotificationMesh, router: RouterHand) -> None:
    kept, other = world.memory.put("a", 1), world.memory.put("b", 1)
    await router.start()
    await world.memory.until(lambda: kept.state == other.state == SENDING)
    await world.control(kept, pause=store.PauseAction())
    await router.refresh(kept, other)
    await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 1)
    async with edge(router.address, 1) as one:
        await one.until(lambda: one.notified(other.notification_id) == [1])
        assert one.notified(kept.notification_id) == []
        await world.control(kept, resume=store.ResumeAction())
        await router.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1])


async def test_an_older_claim_changes_nothing_and_a_newer_one_takes_over(world: NotificationMesh, router: RouterHand) -> None:
    kept = world.memory.put("a", 1, 2)
    async with edge(router.address, 1) as one:
        await router.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1])
        assert await router.start(store.Claim(notification_id=kept.notification_id, fence=kept.fence)) == []
        kept.lease_until = 0.0
        (claim,) = world.memory.claim()
        assert await router.start(claim) == []
        await router.start(store.Claim(notification_id=kept.notification_id, fence=claim.fence - 1))
        await one.batch(opened_user_ordinals=[2])
        await one.until(lambda: 2 in one.notified(kept.notification_id))
        assert gauge(world.mesh, "router_notification_runs") == 1


async def test_an_owner_that_was_replaced_sends_nothing_more(world: NotificationMesh) -> None:
    first, second = await world.router(), await world.router()
    kept = world.memory.put("a", 1, 2)
    async with edge(first.address, 1, edge_id="one") as one, edge(second.address, 2, edge_id="two") as two:
        await first.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1])
        kept.lease_until = 0.0
        await second.start()
        await two.until(lambda: two.notified(kept.notification_id) == [2])
        await one.batch(opened_user_ordinals=[2])
        await eventually(lambda: gauge(world.mesh, "router_notification_runs_ended_total") == 1)
        assert one.notified(kept.notification_id) == [1]


async def test_another_goes_on_where_a_router_died(world: NotificationMesh) -> None:
    kept = world.memory.put("a", *range(1, 11))
    async with AsyncExitStack() as first:
        dying = await world.router(first)
        async with edge(dying.address, 1, 2, 3, 4) as one:
            await dying.start()
            await one.until(lambda: one.notified(kept.notification_id) == [1, 2, 3, 4])
            await one.acknowledge(kept.notification_id, 1, 2)
            await world.memory.until(lambda: kept.delivered == BitMap([1, 2]))
            world.memory.refuse = errors.unavailable("cut off")  # it can't even say that it leaves
    world.memory.refuse = None
    kept.lease_until = 0.0
    second = await world.router(resend_seconds=0.5)
    async with edge(second.address, *range(1, 11)) as two:
        begun = time.monotonic()
        await second.start()
        await two.until(lambda: two.notified(kept.notification_id) == [5, 6, 7, 8, 9, 10])
        await two.acknowledge(kept.notification_id, 5, 6, 7, 8, 9, 10)
        await two.until(lambda: len(two.broadcasts) == 2)
        assert two.notified(kept.notification_id) == [5, 6, 7, 8, 9, 10, 3, 4]
        assert two.heard_at[1] - begun >= 0.5


async def test_a_router_that_leaves_gives_up_what_it_has_and_takes_no_more(world: NotificationMesh) -> None:
    kept = world.memory.put("a", 1, 2)
    async with AsyncExitStack() as first:
        leaving = await world.router(first)
        async with edge(leaving.address, 1) as one:
            await leaving.start()
            await one.until(lambda: one.notified(kept.notification_id) == [1])
            await one.acknowledge(kept.notification_id, 1)
            await one.settled()
            closing = asyncio.create_task(first.aclose())
            await world.memory.until(lambda: kept.lease_until == 0.0)
            await closing
    assert kept.delivered == BitMap([1])
    second = await world.router()
    await second.start()
    async with edge(second.address, 1, 2) as two:
        await two.until(lambda: two.notified(kept.notification_id) == [2])


async def test_any_router_takes_acknowledgements(world: NotificationMesh) -> None:
    owner, other = await world.router(lease_seconds=1), await world.router()
    kept = world.memory.put("a", 1, 2)
    async with edge(owner.address, 1, 2) as one, edge(other.address, 1, 2) as two:
        await owner.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2])
        await two.acknowledge(kept.notification_id, 1, 2, 3)
        await world.memory.until(lambda: kept.state == COMPLETED)
        assert kept.delivered == BitMap([1, 2])
    await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 0)


async def test_what_is_no_acknowledgement_harms_no_others(world: NotificationMesh, router: RouterHand) -> None:
    kept = world.memory.put("a", 1)
    broken = [
        link_pb2.NotificationAcknowledgement(notification_id=kept.notification_id, user_ordinals=b"no bitmap"),
        link_pb2.NotificationAcknowledgement(notification_id=kept.notification_id, user_ordinals=BitMap([0, 1]).serialize()),
        link_pb2.NotificationAcknowledgement(notification_id="x' OR 1=1", user_ordinals=BitMap([1]).serialize()),
        link_pb2.NotificationAcknowledgement(notification_id=notification("unknown"), user_ordinals=BitMap([1]).serialize()),
        link_pb2.NotificationAcknowledgement(notification_id=kept.notification_id),
    ]
    async with edge(router.address, 1) as one:
        await router.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1])
        await one.batch(notification_acknowledgements=broken)
        await one.acknowledge(kept.notification_id, 1)
        await world.memory.until(lambda: kept.state == COMPLETED)


async def test_acknowledgements_wait_for_a_store(world: NotificationMesh) -> None:
    router = await world.router(resend_seconds=60)
    kept = world.memory.put("a", 1, 2)
    async with edge(router.address, 1, 2) as one:
        await router.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2])
        world.memory.refuse = errors.unavailable("away")
        await one.acknowledge(kept.notification_id, 1)
        await one.acknowledge(kept.notification_id, 2)
        await eventually(lambda: world.memory.refused >= 2)
        world.memory.refuse = None
        await world.memory.until(lambda: kept.state == COMPLETED)


async def test_a_store_that_goes_away_in_the_middle_stops_nothing_for_good(world: NotificationMesh, router: RouterHand) -> None:
    kept = world.memory.put("a", *range(1, 101), rate_per_second=100)
    async with edge(router.address, *range(1, 101)) as one:
        await router.start()
        await one.until(lambda: len(one.broadcasts) >= 3)
        world.memory.refuse = errors.unavailable("away")
        await one.settled()
        before = len(one.broadcasts)
        await eventually(lambda: world.memory.refused >= 5)
        await one.settled()
        assert len(one.broadcasts) <= before + 1
        world.memory.refuse = None
        await one.until(lambda: set(one.notified(kept.notification_id)) == set(range(1, 101)))


async def test_an_answer_that_was_lost_is_asked_for_again(world: NotificationMesh) -> None:
    router = await world.router(resend_seconds=60)
    kept = world.memory.put("a", 1, 2, 3)
    world.memory.lose_answers = 3
    async with edge(router.address, 1, 2) as one:
        await router.start()
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2])
        await one.batch(opened_user_ordinals=[3])
        await one.until(lambda: one.notified(kept.notification_id) == [1, 2, 3])
    assert [set(step) for _, step in world.memory.steps] == [{1, 2}] * 4 + [{3}]


async def test_one_that_the_store_refuses_hinders_no_other(world: NotificationMesh, router: RouterHand) -> None:
    kept = [world.memory.put(name, 1) for name in "abcdefgh"]
    broken = world.memory.put("broken", 1)
    await router.start()
    await world.memory.until(lambda: all(one.state == SENDING for one in [*kept, broken]))
    world.memory.poison = broken.notification_id
    async with edge(router.address, 1) as one:
        await one.until(lambda: {b.notification_id for b in one.broadcasts} == {each.notification_id for each in kept})
    await eventually(lambda: gauge(world.mesh, "router_notification_runs") == len(kept))


async def test_expiry_ends_it(world: NotificationMesh) -> None:
    router = await world.router(resend_seconds=60)
    sent, unsent = world.memory.put("sent", 1, 2, seconds=0.6), world.memory.put("unsent", 3, seconds=0.6)
    async with edge(router.address, 1) as one:
        await router.start()
        await one.until(lambda: one.notified(sent.notification_id) == [1])
        await world.memory.until(lambda: sent.over and unsent.over)
        await one.batch(opened_user_ordinals=[2, 3])
        await one.settled()
        assert (sent.state, unsent.state) == (COMPLETED, common.NOTIFICATION_STATE_EXPIRED)
        assert sent.report().expired == 2
        assert one.notified(sent.notification_id) == [1] and one.notified(unsent.notification_id) == []
        await one.acknowledge(sent.notification_id, 1)
        await world.memory.until(lambda: sent.report().delivered == 1)
    await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 0)


async def test_higher_priorities_go_first(world: NotificationMesh, router: RouterHand) -> None:
    kept = [
        world.memory.put(name, *range(1, 11), priority=priority)
        for name, priority in zip("abcdef", [3, 9, 1, 5, 0, 7], strict=True)
    ]
    claims = world.memory.claim()
    async with edge(router.address, *range(1, 11)) as one:
        await router.start(*reversed(claims))
        await one.until(lambda: len(one.broadcasts) == 6)
        order = [next(k.spec.priority for k in kept if k.notification_id == b.notification_id) for b in one.broadcasts]
        assert order == [9, 7, 5, 3, 1, 0]


async def test_lower_priorities_wait_while_a_higher_one_has_more_to_send(world: NotificationMesh) -> None:
    router = await world.router(resend_seconds=60)
    everyone = range(1, 100_001)
    low, high = world.memory.put("low", priority=1), world.memory.put("high", priority=8)
    low.recipients = high.recipients = BitMap(everyone)
    async with edge(router.address, *everyone) as one:
        await router.start()
        await one.until(lambda: len(one.notified(low.notification_id)) == 100_000)
        order = [one.notification_id for one in one.broadcasts]
        assert order == [high.notification_id] * 7 + [low.notification_id] * 7
    assert high.sent == low.sent == BitMap(everyone)


async def test_a_priority_changed_on_the_way_counts(world: NotificationMesh) -> None:
    router = await world.router(resend_seconds=60)
    one_, two = world.memory.put("one", 1, priority=2), world.memory.put("two", 1, priority=1)
    await router.start()
    await world.memory.until(lambda: one_.state == two.state == SENDING)
    await world.control(two, prioritize=store.PrioritizeAction(priority=9))
    await router.refresh(two)
    later = world.memory.put("later", 9)
    await router.start()  # it is read after what was to be looked at
    await world.memory.until(lambda: later.state == SENDING)
    async with edge(router.address, 1) as one:
        await one.until(lambda: len(one.broadcasts) == 2)
        assert [b.notification_id for b in one.broadcasts] == [two.notification_id, one_.notification_id]


async def test_thousands_run_at_once_and_leave_nothing(world: NotificationMesh) -> None:
    router = await world.router(notification_runs=1200, resend_seconds=60)
    names = ("".join(letters) for letters in product("abcdefghijklmnopqrst", repeat=3))
    kept = [world.memory.put(name, 1, 2) for name in islice(names, 1200)]
    async with edge(router.address, 1) as one:
        for claims in (world.memory.claim(1000), world.memory.claim(200)):
            assert await router.start(*claims) == []
        extra = world.memory.put("extra", 1)
        assert await router.start() == [extra.notification_id]
        await one.until(lambda: len(one.broadcasts) == 1200)
        await one.batch(notification_acknowledgements=[_acknowledgement(k.notification_id, 1) for k in kept])
        await world.memory.until(lambda: all(k.delivered for k in kept))
        await one.batch(opened_user_ordinals=[2])
        await one.until(lambda: len(one.broadcasts) == 2400)
        await one.batch(notification_acknowledgements=[_acknowledgement(k.notification_id, 2) for k in kept])
        await world.memory.until(lambda: all(k.state == COMPLETED for k in kept))
    assert len(world.memory.progress) < len(world.memory.steps) / 3, "calls carry several"
    await eventually(lambda: gauge(world.mesh, "router_notification_runs") == 0)
    assert await router.start() == []


async def test_too_many_at_once_are_refused(router: RouterHand) -> None:
    claims = [pb.StartNotification(notification_id=notification("a"), fence=1)] * 1001
    with pytest.raises(Exception, match="at most 1,000"):
        await router.stub.StartNotifications(pb.StartNotificationsRequest(notifications=claims))
    with pytest.raises(Exception, match="at most 1,000"):
        await router.stub.RefreshNotifications(pb.RefreshNotificationsRequest(notification_ids=["n"] * 1001))


async def test_whom_a_full_link_dropped_are_sent_it_soon(world: NotificationMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go = asyncio.Event()

    async def said(sending: Awaitable[None]) -> None:
        await may_go.wait()
        await sending

    router = await world.router(link_broadcasts=2, resend_seconds=60)
    kept = [world.memory.put(name, 1, 2) for name in "abcdef"]
    async with edge(router.address, 1, 2) as one:
        monkeypatch.setattr("router.link._said", said)  # as when gRPC takes nothing more
        await router.start()
        await eventually(lambda: gauge(world.mesh, "router_pushes_dropped_total") >= 1)
        may_go.set()
        await one.until(lambda: {b.notification_id for b in one.broadcasts} == {k.notification_id for k in kept})


async def test_records_that_are_large_together_are_read_apart(world: NotificationMesh, router: RouterHand) -> None:
    """Neither the ids that nobody needs here, nor one that no answer can hold, keep the others from being sent."""
    ids = [f"user-{number}-{'x' * 40}" for number in range(1000)]
    kept = [world.memory.put(name, *range(1, 2001, 2), audience=common.Audience(recipient_ids=ids)) for name in "abcdefgh"]
    broken = world.memory.put("broken", *range(1, 40_001, 2))
    world.memory.answer_bytes = 3 * len(kept[0].recipients.serialize())
    async with edge(router.address, 1) as one:
        assert await router.start() == []
        await one.until(lambda: {b.notification_id for b in one.broadcasts} == {each.notification_id for each in kept})
        await router.refresh(*kept)
        await eventually(lambda: gauge(world.mesh, "router_notification_runs") == len(kept))
        await one.acknowledge(kept[0].notification_id, 1)
        await world.memory.until(lambda: bool(kept[0].delivered))
    assert broken.state == common.NOTIFICATION_STATE_EXPANDING
    assert gauge(world.mesh, "router_notification_runs_ended_total") == 1


async def test_past_the_bytes_of_recipients_none_are_taken(world: NotificationMesh) -> None:
    router = await world.router(notification_bytes=60_000)
    large = world.memory.put("large", *range(1, 100_001, 2))
    assert await router.start() == []
    await world.memory.until(lambda: large.state == SENDING)
    await eventually(lambda: gauge(world.mesh, "router_notification_bytes") > 15_000)
    second = world.memory.put("second", *range(1, 400_001, 2))
    assert await router.start() == []
    await eventually(lambda: gauge(world.mesh, "router_notification_bytes") > 60_000)
    third = world.memory.put("third", 1)
    assert third.notification_id in await router.start()
    await world.control(second, cancel=store.CancelAction())
    await router.refresh(second)
    await eventually(lambda: gauge(world.mesh, "router_notification_bytes") < 60_000)
    third.lease_until = 0.0
    assert await router.start() == []

"""Notifications over real sockets and links: from routers to sessions, and who has them back to the routers."""

import json
import time

from mesh.naming import new_notification_id, owner
from tests.edge.conftest import WAIT, Client, Edge, Start
from tests.edge.fake_router import FakeRouter
from tidings.client.v1 import frames_pb2 as f
from tidings.common.v1 import error_pb2 as e
from tidings.router.v1 import link_pb2


def notification(text: str = "hello") -> f.ServerFrame:
    frame = f.ServerFrame()
    frame.notification.notification_id = new_notification_id()
    frame.notification.content.text.text = text
    return frame


def name(frame: f.ServerFrame) -> str:
    return frame.notification.notification_id


async def got(client: Client, *frames: f.ServerFrame) -> None:
    """The client acknowledges them."""
    await client.say(acknowledge_notification=f.AcknowledgeNotification(notification_ids=[name(frame) for frame in frames]))


def not_owner(edge: Edge, frame: f.ServerFrame) -> tuple[FakeRouter, FakeRouter]:
    """A router that does not own the notification, and the one that does."""
    by_id = {router.router_id: router for router in edge.routers}
    first = by_id[owner(name(frame), by_id) or ""]
    (other,) = (router for router in edge.routers if router is not first)
    return other, first


async def test_a_broadcast_reaches_its_users_and_their_acknowledgements_come_back_together(start: Start) -> None:
    edge = await start()
    users = [f"user-{number}" for number in range(20)]
    clients = [await edge.online(user) for user in users]
    laptop, stranger = await edge.online(users[0], "laptop"), await edge.online("stranger")
    frame = notification()
    edge.router.broadcast([*users, "away", "never seen"], frame)
    for client in (*clients, laptop):
        assert await client.until("notification") == frame
        await got(client, frame)
    await edge.router.saw(lambda router: set().union(*router.acknowledged(name(frame))) == set(users))
    assert len(edge.router.acknowledged(name(frame))) < len(users), "gathered, all but the first"
    edge.router.broadcast(["stranger"], notification("for you"))
    assert (await stranger.until("notification")).notification.content.text.text == "for you"
    await edge.counted("notifications_total", 22, direction="out")
    await edge.counted("notifications_total", 21, direction="acknowledged")


async def test_json_sessions_get_text(start: Start) -> None:
    edge = await start()
    sockets = [(await edge.connect(user, protocols=("tidings.v1.json",))).socket for user in ("alice", "bob")]
    for socket in sockets:
        await socket.send_json({"hello": {"device_id": "web"}})
        while "caught_up" not in json.loads((await socket.receive(WAIT)).data):
            pass
    frame = notification("grüezi")
    edge.router.broadcast(["alice", "bob"], frame)
    for socket in sockets:
        heard = json.loads((await socket.receive(WAIT)).data)
        assert heard["notification"]["notification_id"] == name(frame)
        assert heard["notification"]["content"]["text"]["text"] == "grüezi"
        await socket.send_json({"acknowledge_notification": {"notification_ids": [name(frame)]}})
    await edge.router.saw(lambda router: set().union(*router.acknowledged(name(frame))) == {"alice", "bob"})


async def test_a_delivery_to_a_few_carries_a_notification_too(start: Start) -> None:
    edge = await start(routers=2)
    alice = await edge.online("alice")
    frame = notification()
    sender, owning = not_owner(edge, frame)
    sender.deliver(["alice"], frame, traffic_class=link_pb2.TRAFFIC_CLASS_NOTIFICATION)
    assert await alice.until("notification") == frame
    await got(alice, frame)
    await sender.saw(lambda router: router.acknowledged(name(frame)) == [{"alice"}])
    assert not owning.acknowledged(name(frame))


async def test_the_router_that_broadcast_it_is_told_and_else_its_owner(start: Start) -> None:
    edge = await start(routers=2)
    alice = await edge.online("alice")
    frame, unheard = notification(), notification()
    sender, _ = not_owner(edge, frame)
    sender.broadcast(["alice"], frame)
    await alice.until("notification")
    await got(alice, frame, unheard)
    await sender.saw(lambda router: router.acknowledged(name(frame)) == [{"alice"}])
    other, owning = not_owner(edge, unheard)
    await owning.saw(lambda router: router.acknowledged(name(unheard)) == [{"alice"}])
    assert not other.acknowledged(name(unheard))


async def test_acknowledgements_survive_the_link_that_carried_them(start: Start) -> None:
    edge = await start(routers=2)
    alice = await edge.online("alice")
    frame = notification()
    sender, other = not_owner(edge, frame)
    sender.broadcast(["alice"], frame)
    await alice.until("notification")
    sender.deaf = True
    await got(alice, frame)
    await sender.saw(lambda router: router.acknowledged(name(frame)) == [{"alice"}])
    sender.cut()
    await other.saw(lambda router: router.acknowledged(name(frame)) == [{"alice"}])


async def test_acknowledgements_wait_for_a_router(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    frame, later = notification(), notification()
    edge.router.deaf = True
    await got(alice, frame)
    await edge.router.saw(lambda router: len(router.acknowledged(name(frame))) == 1)
    edge.router.deaf = False
    edge.router.cut()
    await got(alice, later)
    await edge.router.saw(lambda router: len(router.acknowledged(name(frame))) == 2 and len(router.acknowledged(name(later))) == 1)
    await got(alice, notification())
    await edge.router.saw(lambda router: router.links[0].processed >= router.requests[-1].sequence)
    assert len(edge.router.acknowledged(name(frame))) == 2, "what was acted on is not said again"


async def test_one_said_before_the_user_is_known_is_kept(start: Start) -> None:
    edge = await start()
    edge.router.silent.add("open_session")
    alice = await edge.connect("alice")
    frame = notification()
    await alice.say(hello=f.Hello(device_id="phone"))
    await got(alice, frame)
    await edge.router.saw(lambda router: bool(router.envelopes("open_session")))
    edge.router.answer(edge.router.envelopes("open_session")[0])
    await edge.router.saw(lambda router: router.acknowledged(name(frame)) == [{"alice"}])


async def test_a_session_that_still_syncs_gets_it_and_one_without_hello_does_not(start: Start) -> None:
    edge = await start()
    edge.router.silent.add("sync_device")
    phone, silent = await edge.connect("alice"), await edge.connect("alice")
    await phone.say(hello=f.Hello(device_id="phone"))
    await edge.router.saw(lambda router: bool(router.envelopes("sync_device")))
    edge.router.broadcast(["alice"], notification())
    heard = [(await phone.hear()).WhichOneof("body") for _ in range(2)]
    assert heard == ["welcome", "notification"]
    await silent.say(hello=f.Hello(device_id="laptop"))
    assert (await silent.hear()).WhichOneof("body") == "welcome"
    edge.router.answer(edge.router.envelopes("sync_device")[0])
    assert (await phone.hear()).WhichOneof("body") == "caught_up"


async def test_what_is_malformed_or_expired_is_not_written_and_harms_nobody(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    edge.router.broadcast(["alice"], notification("malformed"), user_ordinals=b"\xff\xff\xff\xff\xff")
    edge.router.broadcast(["alice"], notification("late"), expire_time_us=int((time.time() - 0.001) * 1e6))
    edge.router.broadcast(["alice"], notification("in time"), expire_time_us=int((time.time() + 60) * 1e6))
    assert (await alice.until("notification")).notification.content.text.text == "in time"
    assert len(edge.router.links) == 1
    for reason in ("malformed", "expired"):
        await edge.counted("broadcasts_dropped_total", reason=reason)


async def test_a_slow_session_loses_notifications_first_and_stays_open(start: Start) -> None:
    edge = await start(outbox_bytes=200_000, heartbeat_limit_seconds=100)
    slow = await edge.online("slow")
    transport = slow.socket._response.connection.transport
    assert transport is not None
    transport.pause_reading()
    for _ in range(300):
        edge.router.broadcast(["slow"], notification("x" * 60_000))
    await edge.counted("outbox_dropped_frames_total", traffic_class="notification")
    pages = [f.ServerFrame(message_page=f.MessagePage(conversation_id=digit * 60_000)) for digit in "123"]
    for page in pages:  # these have no room but that of the notifications
        edge.router.deliver(["slow"], page, traffic_class=link_pb2.TRAFFIC_CLASS_CHAT)
    await edge.router.saw(lambda router: router.requests[-1].processed_sequence >= router.links[0].sent)
    transport.resume_reading()
    assert [await slow.until("message_page") for _ in pages] == pages
    await slow.say(request_id=7, heartbeat=f.Heartbeat())
    assert (await slow.until("heartbeat")).request_id == 7


async def test_who_makes_up_acknowledgements_without_end_is_closed_and_nobody_else_notices(start: Start) -> None:
    edge = await start(frames_per_second=10, frames_burst=20)
    mallory, alice = await edge.online("mallory"), await edge.online("alice")
    for _ in range(12):  # 10 tokens each: the burst and its flood of four times as much are over after ten
        await got(mallory, *(notification() for _ in range(100)))
    assert await mallory.closed() == e.ERROR_CODE_FLOODING
    frame = notification()
    edge.router.broadcast(["alice"], frame)
    await alice.until("notification")
    await got(alice, frame)
    await edge.router.saw(lambda router: router.acknowledged(name(frame)) == [{"alice"}])

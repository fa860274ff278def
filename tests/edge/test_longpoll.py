"""The long poll: the same frames, in idempotent turns."""

import asyncio
from typing import Any

from mesh.naming import direct_conversation_id, new_notification_id
from tests.edge.conftest import WAIT, Edge, Start, token
from tidings.client.v1 import frames_pb2 as f
from tidings.client.v1.http_pb2 import PollRequest, PollResponse
from tidings.common.v1 import error_pb2 as e

CHAT = direct_conversation_id("alice", "bob")
PROTOBUF = {"Content-Type": "application/x-protobuf"}


class Poller:
    def __init__(self, edge: Edge, user_id: str) -> None:
        self.edge = edge
        self.user_id = user_id
        self.session = ""
        self.received = 0
        self.sent = 0

    def request(self, *frames: f.ClientFrame) -> PollRequest:
        self.sent += bool(frames)
        return PollRequest(poll_session=self.session, received_sequence=self.received, send_sequence=self.sent, frames=frames)

    async def post(self, request: PollRequest) -> PollResponse:
        headers = {"Authorization": f"Bearer {token(self.user_id)}", **PROTOBUF}
        async with self.edge.http.post(self.edge.api + "/v1/poll", data=request.SerializeToString(), headers=headers) as response:
            assert response.status == 200, await response.text()
            return PollResponse.FromString(await response.read())

    async def turn(self, *frames: f.ClientFrame) -> PollResponse:
        response = await asyncio.wait_for(self.post(self.request(*frames)), WAIT)
        self.session, self.received = response.poll_session, response.sequence
        return response

    async def until(self, arm: str, *frames: f.ClientFrame) -> f.ServerFrame:
        response = await self.turn(*frames)
        while True:
            for frame in response.frames:
                if frame.WhichOneof("body") == arm:
                    return frame
            assert not response.close_code, response
            response = await self.turn()

    async def open(self) -> None:
        await self.until("caught_up", f.ClientFrame(hello=f.Hello(device_id="poll")))


def send(to: str, msg_id: str) -> f.ClientFrame:
    frame = f.ClientFrame()
    frame.send_message.recipient_id, frame.send_message.client_msg_id = to, msg_id
    frame.send_message.content.text.text = "by poll"
    return frame


async def test_a_conversation_by_poll(start: Start) -> None:
    edge = await start()
    bob = await edge.online("bob")
    alice = Poller(edge, "alice")
    await alice.open()
    stored = await alice.until("message_stored", send("bob", "p1"))
    assert stored.message_stored.client_msg_id == "p1"
    assert (await bob.until("new_message")).new_message.entry.client_msg_id == "p1"
    waiting = asyncio.create_task(alice.until("new_message"))
    await bob.send("alice", "back", "b1")
    assert (await waiting).new_message.entry.client_msg_id == "b1"


async def test_a_repeated_turn_is_not_handled_twice_and_is_answered_again(start: Start) -> None:
    edge = await start()
    alice = Poller(edge, "alice")
    await alice.open()
    request = alice.request(send("bob", "p1"))
    first = await alice.post(request)
    again = await alice.post(request)
    assert list(again.frames)[: len(first.frames)] == list(first.frames)
    assert len(edge.router.envelopes("append_entry")) == 1
    alice.received = again.sequence
    waited = asyncio.create_task(alice.turn())
    await alice.edge.router.saw(lambda router: bool(router.requests))
    answer = await alice.turn(f.ClientFrame(request_id=1, heartbeat=f.Heartbeat()))
    assert [frame.WhichOneof("body") for frame in answer.frames] == ["heartbeat"]
    await waited  # an older turn is not left hanging


async def test_an_idle_turn_ends_by_itself(start: Start) -> None:
    edge = await start(poll_seconds=0.1)
    alice = Poller(edge, "alice")
    await alice.open()
    assert not (await alice.turn()).frames


async def test_a_closed_session_says_why(start: Start) -> None:
    edge = await start()
    alice = Poller(edge, "alice")
    await alice.open()
    response = await alice.turn(f.ClientFrame(hello=f.Hello(device_id="poll")))
    assert (response.close_code, response.close_reason) == (e.ERROR_CODE_HELLO_REPEATED, "HELLO_REPEATED")
    async with post_json(edge, {"poll_session": alice.session}) as again:
        assert again.status == 410


async def test_a_poller_that_stays_away_is_closed(start: Start) -> None:
    edge = await start(heartbeat_limit_seconds=0.4)
    alice = Poller(edge, "alice")
    await alice.open()
    await edge.counted("client_errors_total", reason="HEARTBEAT_TIMEOUT")
    assert (await alice.turn()).close_code == e.ERROR_CODE_HEARTBEAT_TIMEOUT


def post_json(edge: Edge, body: Any, **headers: str) -> Any:
    return edge.http.post(edge.api + "/v1/poll", json=body, headers={"Authorization": f"Bearer {token('alice')}"} | headers)


async def test_json_turns(start: Start) -> None:
    edge = await start()
    async with post_json(edge, {"send_sequence": 1, "frames": [{"hello": {"device_id": "web"}}]}) as response:
        body = await response.json()
    assert body["poll_session"]
    assert body["frames"][0]["welcome"]["user_id"] == "alice"


async def test_bad_turns(start: Start) -> None:
    edge = await start()
    async with edge.http.post(edge.api + "/v1/poll", json={}) as response:
        assert (response.status, (await response.json())["code"]) == (401, e.ERROR_CODE_UNAUTHENTICATED)
    async with post_json(edge, {"poll_session": "nonsense"}) as response:
        assert response.status == 410
    async with post_json(edge, []) as response:
        assert (response.status, (await response.json())["code"]) == (400, e.ERROR_CODE_PROTOCOL_ERROR)
    async with post_json(edge, {"send_sequence": 7, "frames": [{"hello": {}}]}) as response:
        assert (await response.json())["field"] == "send_sequence"
    async with post_json(edge, {"poll_session": "x" * 1_100_000}) as response:
        assert (response.status, (await response.json())["code"]) == (413, e.ERROR_CODE_FRAME_TOO_LARGE)
    async with post_json(edge, {}, Origin="https://evil.example") as response:
        assert (response.status, (await response.json())["code"]) == (403, e.ERROR_CODE_ORIGIN_REFUSED)
    async with post_json(edge, {"send_sequence": 1, "frames": [{"heartbeat": {}}]}) as response:
        assert (await response.json())["close_code"] == e.ERROR_CODE_HELLO_EXPECTED


async def test_notifications_by_poll(start: Start) -> None:
    edge = await start()
    alice = Poller(edge, "alice")
    await alice.open()
    waiting = asyncio.create_task(alice.until("notification"))
    frame = f.ServerFrame(notification=f.Notification(notification_id=new_notification_id(), type="offer"))
    edge.router.broadcast(["alice"], frame)
    assert await waiting == frame
    acknowledge = f.AcknowledgeNotification(notification_ids=[frame.notification.notification_id])
    await alice.turn(f.ClientFrame(acknowledge_notification=acknowledge), f.ClientFrame(heartbeat=f.Heartbeat()))
    await edge.router.saw(lambda router: router.acknowledged(frame.notification.notification_id) == [{"alice"}])

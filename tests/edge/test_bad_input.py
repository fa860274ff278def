"""Every bad input gets its named error or close code, is counted, and harms nobody else."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from mesh.naming import direct_conversation_id, new_group_id
from tests.edge.conftest import WAIT, Client, Edge, Start, token
from tidings.client.v1 import frames_pb2 as f
from tidings.common.v1 import error_pb2 as e
from tidings.common.v1.content_pb2 import Content, Custom, Text
from tidings.common.v1.conversation_pb2 import Position
from tidings.router.v1 import link_pb2

CHAT = direct_conversation_id("alice", "bob")
TEXT = Content(text=Text(text="hi"))


def send(**fields: Any) -> f.ClientFrame:
    whole: dict[str, Any] = {"client_msg_id": "m1", "conversation_id": CHAT, "content": TEXT}
    return f.ClientFrame(request_id=5, send_message=f.SendMessage(**whole | fields))


BAD_FRAMES: dict[str, tuple[f.ClientFrame, int, str]] = {
    "no client_msg_id": (send(client_msg_id=""), e.ERROR_CODE_INVALID_FIELD, "send_message.client_msg_id"),
    "long client_msg_id": (send(client_msg_id="x" * 65), e.ERROR_CODE_INVALID_FIELD, "send_message.client_msg_id"),
    "malformed chat": (send(conversation_id="nowhere"), e.ERROR_CODE_INVALID_CHAT_ID, "conversation_id"),
    "unknown chat": (send(conversation_id=new_group_id()), e.ERROR_CODE_INVALID_CHAT_ID, "conversation_id"),
    "no target": (send(conversation_id=""), e.ERROR_CODE_INVALID_FIELD, "send_message.conversation_id"),
    "to oneself": (
        f.ClientFrame(send_message=f.SendMessage(client_msg_id="m", recipient_id="alice", content=TEXT)),
        e.ERROR_CODE_INVALID_RECIPIENT,
        "recipient_id",
    ),
    "malformed recipient": (
        f.ClientFrame(send_message=f.SendMessage(client_msg_id="m", recipient_id="a b", content=TEXT)),
        e.ERROR_CODE_INVALID_RECIPIENT,
        "recipient_id",
    ),
    "no content": (send(content=None), e.ERROR_CODE_INVALID_FIELD, "send_message.content"),
    "empty text": (send(content=Content(text=Text())), e.ERROR_CODE_INVALID_FIELD, "send_message.content.text.text"),
    "no custom type": (send(content=Content(custom=Custom())), e.ERROR_CODE_INVALID_FIELD, "send_message.content.custom.type"),
    "too large": (send(content=Content(text=Text(text="x" * 20_000))), e.ERROR_CODE_CONTENT_TOO_LARGE, "content"),
    "edit of nothing": (
        f.ClientFrame(edit_message=f.EditMessage(client_msg_id="m", conversation_id=CHAT, content=TEXT)),
        e.ERROR_CODE_INVALID_FIELD,
        "edit_message.target_seq",
    ),
    "delete past the end of numbers": (
        f.ClientFrame(delete_message=f.DeleteMessage(client_msg_id="m", conversation_id=CHAT, target_seq=2**63)),
        e.ERROR_CODE_INVALID_FIELD,
        "delete_message.target_seq",
    ),
    "too many positions": (
        f.ClientFrame(acknowledge=f.Acknowledge(positions=[Position(conversation_id=CHAT, seq=1)] * 1001)),
        e.ERROR_CODE_INVALID_FIELD,
        "acknowledge.positions",
    ),
    "acknowledges nowhere": (
        f.ClientFrame(acknowledge=f.Acknowledge(positions=[Position(conversation_id="x", seq=1)])),
        e.ERROR_CODE_INVALID_CHAT_ID,
        "conversation_id",
    ),
    "too many notifications": (
        f.ClientFrame(acknowledge_notification=f.AcknowledgeNotification(notification_ids=["n" + "a" * 26] * 1001)),
        e.ERROR_CODE_INVALID_FIELD,
        "acknowledge_notification.notification_ids",
    ),
    "no notification": (
        f.ClientFrame(acknowledge_notification=f.AcknowledgeNotification(notification_ids=["n" + "a" * 26, "n" + "1" * 26])),
        e.ERROR_CODE_INVALID_FIELD,
        "acknowledge_notification.notification_ids",
    ),
    "reads nowhere": (f.ClientFrame(mark_read=f.MarkRead(seq=1)), e.ERROR_CODE_INVALID_CHAT_ID, "conversation_id"),
    "types nowhere": (f.ClientFrame(start_typing=f.StartTyping()), e.ERROR_CODE_INVALID_CHAT_ID, "conversation_id"),
    "watches too many": (
        f.ClientFrame(watch_presence=f.WatchPresence(user_ids=[f"u{n}" for n in range(201)])),
        e.ERROR_CODE_TOO_MANY_WATCHED,
        "watch_presence.user_ids",
    ),
    "watches nobody real": (
        f.ClientFrame(watch_presence=f.WatchPresence(user_ids=["a b"])),
        e.ERROR_CODE_INVALID_FIELD,
        "watch_presence.user_ids",
    ),
    "page too long": (
        f.ClientFrame(fetch_messages=f.FetchMessages(conversation_id=CHAT, limit=100_000)),
        e.ERROR_CODE_INVALID_FIELD,
        "fetch_messages.limit",
    ),
    "bad fresh token": (
        f.ClientFrame(refresh_token=f.RefreshToken(token="nonsense")),
        e.ERROR_CODE_INVALID_FIELD,
        "refresh_token.token",
    ),
    "token of another": (
        f.ClientFrame(refresh_token=f.RefreshToken(token=token("mallory"))),
        e.ERROR_CODE_INVALID_FIELD,
        "refresh_token.token",
    ),
    "nothing in it": (f.ClientFrame(request_id=5), e.ERROR_CODE_UNKNOWN_REQUEST, ""),
}


async def test_a_bad_field_is_answered_and_the_session_goes_on(start: Start) -> None:
    edge = await start()
    alice, bob = await edge.online("alice"), await edge.online("bob")
    for name, (frame, code, field) in BAD_FRAMES.items():
        await alice.socket.send_bytes(frame.SerializeToString())
        error = await alice.until("error")
        assert (error.error.code, error.error.field) == (code, field), name
        assert error.request_id == frame.request_id, name
        assert error.error.message, name
    await alice.send("bob", "still here", "good")
    assert (await bob.until("new_message")).new_message.entry.client_msg_id == "good"
    await edge.counted("client_errors_total", reason="CONTENT_TOO_LARGE")


async def test_a_refused_send_names_its_client_msg_id(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    await alice.socket.send_bytes(send(content=None).SerializeToString())
    assert (await alice.until("error")).error.client_msg_id == "m1"


async def test_not_a_member_comes_from_the_router(start: Start) -> None:
    edge = await start()
    edge.world.members[CHAT] = {"bob", "carol"}
    alice = await edge.online("alice")
    await alice.socket.send_bytes(send().SerializeToString())
    error = (await alice.until("error")).error
    assert (error.code, error.client_msg_id) == (e.ERROR_CODE_NOT_A_MEMBER, "m1")
    await edge.counted("client_errors_total", reason="NOT_A_MEMBER")


Break = Callable[[Client], Any]
HELLO = f.ClientFrame(hello=f.Hello(device_id="phone"))
CLOSING: dict[str, tuple[Break, int]] = {
    "frame before hello": (lambda c: c.say(heartbeat=f.Heartbeat()), e.ERROR_CODE_HELLO_EXPECTED),
    "empty frame before hello": (lambda c: c.socket.send_bytes(b""), e.ERROR_CODE_HELLO_EXPECTED),
    "garbage": (lambda c: c.socket.send_bytes(b"\xff\xff\xff\xff"), e.ERROR_CODE_PROTOCOL_ERROR),
    "text on binary": (lambda c: c.socket.send_str("{}"), e.ERROR_CODE_PROTOCOL_ERROR),
    "bad utf-8 in a string": (lambda c: c.socket.send_bytes(b"\x12\x03\x0a\x01\xff"), e.ERROR_CODE_PROTOCOL_ERROR),
    "too large a frame": (lambda c: c.socket.send_bytes(b"x" * 131_073), e.ERROR_CODE_FRAME_TOO_LARGE),
    "reserved bits": (lambda c: _raw(c, b"\xf2\x80\x00\x00\x00\x00"), e.ERROR_CODE_PROTOCOL_ERROR),
}


async def _raw(client: Client, data: bytes) -> None:
    transport = client.socket._writer.transport
    transport.write(data)


@pytest.mark.parametrize("name", CLOSING)
async def test_what_ends_a_session_ends_only_that_one(start: Start, name: str) -> None:
    edge = await start()
    bob = await edge.online("bob")
    bad = await edge.connect("mallory")
    attempt, code = CLOSING[name]
    await attempt(bad)
    assert await bad.closed() == code
    await edge.counted("client_errors_total", reason=e.ErrorCode.Name(code).removeprefix("ERROR_CODE_"))  # type: ignore[arg-type]
    await bob.say(request_id=1, heartbeat=f.Heartbeat())
    assert (await bob.until("heartbeat")).request_id == 1


async def test_a_second_hello_closes(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    await alice.socket.send_bytes(HELLO.SerializeToString())
    assert await alice.closed() == e.ERROR_CODE_HELLO_REPEATED


async def test_a_bad_hello_is_answered_and_may_be_said_again(start: Start) -> None:
    edge = await start()
    alice = await edge.connect("alice")
    await alice.say(hello=f.Hello(device_id="no spaces"))
    assert (await alice.hear()).error.field == "hello.device_id"
    await alice.open()


async def test_no_hello_is_a_handshake_timeout(start: Start) -> None:
    edge = await start(handshake_seconds=0.2)
    alice = await edge.connect("alice")
    assert await alice.closed() == e.ERROR_CODE_HANDSHAKE_TIMEOUT


async def test_a_silent_client_is_closed(start: Start) -> None:
    edge = await start(heartbeat_limit_seconds=0.4)
    alice = await edge.online("alice")
    assert await alice.closed() == e.ERROR_CODE_HEARTBEAT_TIMEOUT


async def test_a_half_open_socket_is_found(start: Start) -> None:
    edge = await start(heartbeat_limit_seconds=0.4)
    alice = await edge.online("alice")
    alice.socket._reader.set_exception(ConnectionError())  # never reads, never closes
    await edge.counted("client_errors_total", reason="HEARTBEAT_TIMEOUT")
    await edge.router.saw(lambda router: any(request.batch.closed_user_ordinals for request in router.requests))


async def test_the_same_device_replaces_its_older_session(start: Start) -> None:
    edge = await start()
    older = await edge.online("alice", "phone")
    newer = await edge.online("alice", "phone")
    assert await older.closed() == e.ERROR_CODE_SESSION_REPLACED
    await newer.say(request_id=1, heartbeat=f.Heartbeat())
    assert (await newer.until("heartbeat")).request_id == 1


async def test_a_token_that_runs_out_while_connected(start: Start) -> None:
    edge = await start()
    alice = await edge.connect("alice", lifetime=2)
    await alice.say(hello=f.Hello(device_id="phone"))
    assert (await alice.until("token_expiring")).token_expiring.HasField("token_expire_time")
    assert await alice.closed() == e.ERROR_CODE_UNAUTHENTICATED


async def test_a_fresh_token_extends_the_session(start: Start) -> None:
    edge = await start()
    alice = await edge.connect("alice", lifetime=30)
    await alice.open()
    await alice.say(request_id=3, refresh_token=f.RefreshToken(token=token("alice", 3600)))
    answer = await alice.until("token_refreshed")
    assert answer.request_id == 3


async def test_too_fast_is_refused_then_closed(start: Start) -> None:
    edge = await start(frames_per_second=1, frames_burst=5)
    alice = await edge.online("alice")
    for number in range(12):
        await alice.send("bob", "spam", f"m{number}")
    first = await alice.until("error")
    assert first.error.code == e.ERROR_CODE_RATE_LIMITED
    assert first.error.HasField("retry_after")
    assert first.error.client_msg_id
    for number in range(40):
        await alice.send("bob", "spam", f"n{number}")
    assert await alice.closed() == e.ERROR_CODE_FLOODING


async def test_too_many_sends_in_flight(start: Start) -> None:
    edge = await start(max_sends_in_flight=3)
    edge.router.silent.add("append_entry")
    alice = await edge.online("alice")
    for number in range(4):
        await alice.send("bob", "hi", f"m{number}")
    error = (await alice.until("error")).error
    assert (error.code, error.client_msg_id) == (e.ERROR_CODE_OVERLOADED, "m3")


async def test_a_poisoned_frame_ends_the_session_it_is_for_and_no_other(start: Start) -> None:
    edge = await start()
    json_client = await edge.connect("alice", protocols=("tidings.v1.json",))
    await json_client.socket.send_str(json.dumps({"hello": {"device_id": "web"}}))
    bob = await edge.online("bob")
    await json_client.socket.receive(WAIT)
    poison = link_pb2.Delivery(user_ordinals=[edge.world.ordinal("alice")], traffic_class=2, frame=b"\xff\xff")  # type: ignore[arg-type]
    batch = link_pb2.RouterBatch(deliveries=[poison])
    edge.router.links[0].send(link_pb2.LinkResponse(batch=batch))
    assert await json_client.closed() == e.ERROR_CODE_SESSION_FAILED
    await bob.send("carol", "still here", "m1")
    assert (await bob.until("message_stored")).message_stored.client_msg_id == "m1"


# The upgrade


async def refused(edge: Edge, path: str = "/v1/ws", **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a refused upgrade."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with edge.http.get(edge.api + path, headers=upgrade | headers) as response:
        return response.status, await response.json()


async def test_who_is_refused_at_the_upgrade(start: Start) -> None:
    edge = await start(capacity=1)
    bearer = {"Authorization": f"Bearer {token('alice')}"}
    assert (await refused(edge))[1]["code"] == e.ERROR_CODE_UNAUTHENTICATED
    status, body = await refused(edge, Authorization="Bearer nonsense")
    assert (status, body["code"]) == (401, e.ERROR_CODE_UNAUTHENTICATED)
    status, body = await refused(edge, Authorization=f"Bearer {token('alice', -60)}")
    assert (status, body["code"]) == (401, e.ERROR_CODE_UNAUTHENTICATED)
    status, body = await refused(edge, Origin="https://evil.example", **bearer)
    assert (status, body["code"]) == (403, e.ERROR_CODE_ORIGIN_REFUSED)
    status, body = await refused(edge, Origin="http://[", **bearer)  # what is no URL at all
    assert (status, body["code"]) == (403, e.ERROR_CODE_ORIGIN_REFUSED)
    status, body = await refused(edge, **bearer, **{"Sec-WebSocket-Protocol": "mqtt"})
    assert (status, body["code"]) == (400, e.ERROR_CODE_UNKNOWN_SUBPROTOCOL)
    status, body = await refused(edge, "/v1/ws?ticket=nonsense")
    assert (status, body["code"]) == (401, e.ERROR_CODE_UNAUTHENTICATED)
    await edge.online("bob")
    status, body = await refused(edge, **bearer)
    assert (status, body["code"]) == (503, e.ERROR_CODE_NO_CAPACITY)
    for reason in ("UNAUTHENTICATED", "ORIGIN_REFUSED", "UNKNOWN_SUBPROTOCOL", "NO_CAPACITY"):
        await edge.counted("client_errors_total", reason=reason)


async def test_a_ticket_opens_one_connection_once(start: Start) -> None:
    edge = await start()
    ticket = edge.ticket("alice")
    async with edge.http.ws_connect(f"{edge.ws}/v1/ws?ticket={ticket}", protocols=("tidings.v1.proto",)) as socket:
        await Client(socket).open()
    status, body = await refused(edge, f"/v1/ws?ticket={ticket}")
    assert (status, body["code"]) == (401, e.ERROR_CODE_UNAUTHENTICATED)
    assert "used" in body["message"]


async def test_a_page_of_an_allowed_origin_comes_in(start: Start) -> None:
    edge = await start(allowed_origins=["https://chat.example"])
    await (await edge.connect("alice", origin="https://chat.example")).open()
    await (await edge.connect("bob", origin=edge.api)).open()  # the same host


async def test_an_unknown_subprotocol_beside_a_known_one_is_no_harm(start: Start) -> None:
    edge = await start()
    client = await edge.connect("alice", protocols=("mqtt", "tidings.v1.proto"))
    assert client.socket.protocol == "tidings.v1.proto"


# Connections that dawdle


@pytest.mark.parametrize("opening", [b"", b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n", b"\x16\x03\x01"])
async def test_headers_that_never_end_are_cut_off(start: Start, opening: bytes) -> None:
    edge = await start(header_seconds=0.3)
    host, _, port = edge.api.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(opening)

    async def trickle() -> None:
        while True:
            writer.write(b"X-A: b\r\n" if opening.startswith(b"GET") else b"")
            await asyncio.sleep(0.05)  # slowly is the attack

    trickling = asyncio.create_task(trickle())
    with suppress(ConnectionResetError):  # what trickled in after it closed is answered so
        await asyncio.wait_for(reader.read(), WAIT)  # ends when the edge closes
    trickling.cancel()
    writer.close()


async def test_a_body_that_never_ends_is_cut_off(start: Start) -> None:
    edge = await start(body_seconds=0.2)
    host, _, port = edge.api.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/poll HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), WAIT)
    assert b" 408 " in answer
    writer.close()


async def test_a_body_that_is_not_in_its_encoding_is_named(start: Start) -> None:
    edge = await start()
    headers = {"Authorization": f"Bearer {token('alice')}", "Content-Encoding": "gzip"}
    async with edge.http.post(edge.api + "/api/v1/chats", data=b"not gzip", headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (400, e.ERROR_CODE_PROTOCOL_ERROR)


# JSON


async def test_json_frames(start: Start) -> None:
    edge = await start()
    bob = await edge.online("bob")
    alice = await edge.connect("alice", protocols=(), path="/chat?encoding=text")
    await alice.socket.send_str(json.dumps({"hello": {"device_id": "web"}}))
    welcome = json.loads((await alice.socket.receive(WAIT)).data)
    assert welcome["welcome"]["user_id"] == "alice"
    message = {"client_msg_id": "j1", "recipient_id": "bob", "content": {"text": {"text": "from JSON"}}}
    await alice.socket.send_str(json.dumps({"request_id": "4", "send_message": message}))
    assert (await bob.until("new_message")).new_message.entry.content.text.text == "from JSON"
    while "message_stored" not in (frame := json.loads((await alice.socket.receive(WAIT)).data)):
        continue
    assert (frame["request_id"], frame["message_stored"]["client_msg_id"]) == ("4", "j1")


@pytest.mark.parametrize("text", ["nonsense", "[]", '"x"', "null", '{"hello": 7}', '{"send_message": [1]}', "[" * 60_000])
async def test_garbage_in_json_closes(start: Start, text: str) -> None:
    edge = await start()
    alice = await edge.connect("alice", protocols=("tidings.v1.json",))
    await alice.socket.send_str(text)
    assert await alice.closed() == e.ERROR_CODE_PROTOCOL_ERROR


async def test_binary_on_json_closes(start: Start) -> None:
    edge = await start()
    alice = await edge.connect("alice", protocols=("tidings.v1.json",))
    await alice.socket.send_bytes(HELLO.SerializeToString())
    assert await alice.closed() == e.ERROR_CODE_PROTOCOL_ERROR

"""The HTTP API as http.proto lists it."""

import asyncio
from typing import Any

import aiohttp
import pytest

from mesh.naming import direct_conversation_id
from tests.edge.conftest import Edge, Start, token
from tidings.common.v1 import error_pb2 as e

CHAT = direct_conversation_id("alice", "bob")


async def call(edge: Edge, method: str, path: str, body: Any = None, user: str = "alice", **headers: str) -> tuple[int, Any]:
    bearer = {"Authorization": f"Bearer {token(user)}"}
    async with edge.http.request(method, edge.api + path, json=body, headers=bearer | headers) as response:
        return response.status, await response.json()


async def test_a_group_from_birth_to_leaving(start: Start) -> None:
    edge = await start()
    body = {"request_id": "r1", "kind": "CONVERSATION_KIND_GROUP", "name": "friends", "member_ids": ["bob"]}
    status, made = await call(edge, "POST", "/api/v1/chats", body)
    chat_id = made["conversation"]["conversation_id"]
    assert status == 200
    assert all("user_ordinal" not in member for member in made["conversation"]["members"])
    assert (await call(edge, "GET", f"/api/v1/chats/{chat_id}"))[1] == made
    assert (await call(edge, "GET", "/api/v1/chats?limit=10"))[1]["conversations"] == [made["conversation"]]
    assert (await call(edge, "PATCH", f"/api/v1/chats/{chat_id}", {"name": "foes"}))[1]["conversation"]["name"] == "foes"
    _, joined = await call(edge, "PUT", f"/api/v1/chats/{chat_id}/members/carol")
    assert [member["user_id"] for member in joined["conversation"]["members"]] == ["alice", "bob", "carol"]
    _, left = await call(edge, "DELETE", f"/api/v1/chats/{chat_id}/members/carol")
    assert [member["user_id"] for member in left["conversation"]["members"]] == ["alice", "bob"]


async def test_messages_are_sent_and_read(start: Start) -> None:
    edge = await start()
    await call(edge, "POST", "/api/v1/chats", {"kind": "CONVERSATION_KIND_DIRECT", "member_ids": ["bob"]})
    bob = await edge.online("bob")
    message = {"client_msg_id": "h1", "content": {"text": {"text": "over HTTP"}}}
    status, stored = await call(edge, "POST", f"/api/v1/chats/{CHAT}/messages", message)
    assert (status, stored["seq"], stored["client_msg_id"]) == (200, "1", "h1")
    assert (await call(edge, "POST", f"/api/v1/chats/{CHAT}/messages", message))[1]["seq"] == "1"
    assert (await bob.until("new_message")).new_message.entry.content.text.text == "over HTTP"
    await call(edge, "POST", f"/api/v1/chats/{CHAT}/messages", message | {"client_msg_id": "h2"})
    _, page = await call(edge, "GET", f"/api/v1/chats/{CHAT}/messages?after=1&limit=5")
    assert [entry["seq"] for entry in page["entries"]] == ["2"]
    _, page = await call(edge, "GET", f"/messages/bob?after_id={CHAT}:1")
    assert [entry["seq"] for entry in page["entries"]] == ["2"]


async def test_what_the_api_refuses(start: Start) -> None:
    edge = await start(api_requests_per_second=1000)
    chat = f"/api/v1/chats/{CHAT}"
    edge.world.members[CHAT] = {"alice", "bob"}
    cases: list[tuple[str, str, Any, int, str]] = [
        ("GET", "/api/v1/chats/nope", None, 404, "INVALID_CHAT_ID"),
        ("GET", f"/api/v1/chats/{direct_conversation_id('x', 'y')}", None, 404, "INVALID_CHAT_ID"),
        ("GET", chat + "/messages?limit=1001", None, 400, "INVALID_FIELD"),
        ("GET", chat + "/messages?after=-1", None, 400, "INVALID_FIELD"),
        ("GET", chat + "/messages?after=1&before=2", None, 400, "INVALID_FIELD"),
        ("GET", f"/messages/bob?after_id={CHAT}", None, 400, "INVALID_FIELD"),
        ("GET", "/messages/alice", None, 400, "INVALID_RECIPIENT"),
        ("PUT", chat + "/members/a%20b", None, 400, "INVALID_FIELD"),
        ("POST", chat + "/messages", {"content": {"text": {"text": "x"}}}, 400, "INVALID_FIELD"),
        ("POST", chat + "/messages", {"client_msg_id": "m", "content": {"text": {"text": "x" * 20_000}}}, 413, "CONTENT_TOO_LARGE"),
        ("POST", chat + "/messages", ["x"], 400, "PROTOCOL_ERROR"),
        ("POST", "/api/v1/chats", {"request_id": "x" * 65}, 400, "INVALID_FIELD"),
        ("POST", "/api/v1/chats", {"name": "x" * 1_200_000}, 413, "FRAME_TOO_LARGE"),
        ("GET", "/api/v1/nothing", None, 404, "UNKNOWN_REQUEST"),
        ("PUT", "/api/v1/chats", None, 405, "UNKNOWN_REQUEST"),
    ]
    for method, path, body, status, reason in cases:
        found, error = await call(edge, method, path, body)
        assert (found, error["code"]) == (status, e.ErrorCode.Value(f"ERROR_CODE_{reason}")), (method, path)
        assert error["message"]
    status, error = await call(edge, "GET", chat, user="mallory")
    assert (status, error["code"]) == (403, e.ERROR_CODE_NOT_A_MEMBER)
    status, error = await call(edge, "GET", chat, Authorization="Basic x")
    assert (status, error["code"]) == (401, e.ERROR_CODE_UNAUTHENTICATED)


async def test_too_many_requests(start: Start) -> None:
    edge = await start(api_requests_per_second=1)
    for _ in range(5):
        assert (await call(edge, "GET", "/api/v1/chats"))[0] == 200
    status, error = await call(edge, "GET", "/api/v1/chats")
    assert (status, error["code"]) == (429, e.ERROR_CODE_RATE_LIMITED)
    assert (await call(edge, "GET", "/api/v1/chats", user="bob"))[0] == 200


async def test_no_router_is_unavailable(start: Start) -> None:
    edge = await start()
    await edge.router.drain()
    status, error = await call(edge, "GET", "/api/v1/chats")
    assert (status, error["code"]) == (503, e.ERROR_CODE_UNAVAILABLE)
    async with edge.http.get(edge.api + "/readyz") as response:
        assert (response.status, await response.text()) == (503, "no router\n")


async def test_pages_of_allowed_origins_only(start: Start) -> None:
    edge = await start(allowed_origins=["https://chat.example"])
    preflight = {"Access-Control-Request-Method": "POST"}
    for origin, allowed in (("https://chat.example", True), ("https://evil.example", False)):
        async with edge.http.options(edge.api + "/api/v1/chats", headers=preflight | {"Origin": origin}) as response:
            assert (response.status == 204) == allowed
            assert ("Access-Control-Allow-Origin" in response.headers) == allowed
    async with edge.http.get(edge.api + "/api/v1/chats", headers={"Origin": "https://chat.example"}) as response:
        assert response.status == 401
        assert response.headers["Access-Control-Allow-Origin"] == "https://chat.example"


async def test_health_and_metrics(start: Start) -> None:
    edge = await start()
    await edge.online("alice")
    await edge.counted("concurrent_websocket_connections")
    async with edge.http.get(edge.api + "/healthz") as response:
        assert response.status == 200
    async with edge.http.get(edge.api + "/metrics") as response:
        assert "concurrent_websocket_connections" in await response.text()


async def test_metrics_are_not_for_clients_where_there_is_an_admin_port(start: Start) -> None:
    edge = await start(admin_url="http://127.0.0.1:1")
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 404)):
        async with edge.http.get(edge.api + path) as response:
            assert response.status == status


async def test_a_request_carries_its_trace_to_the_router(start: Start) -> None:
    edge = await start(traced=True)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    status, _ = await call(edge, "GET", "/api/v1/chats", traceparent=f"00-{trace_id}-b7ad6b7169203331-01")
    assert status == 200
    assert trace_id in edge.routers[0].traceparents[-1]


async def test_a_user_opens_only_so_many_connections_also_without_a_balancer(start: Start) -> None:
    edge = await start(connections_per_user=2)
    first, _ = [await edge.online("alice", device) for device in ("phone", "laptop")]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await edge.connect("alice")
    assert refused.value.status == 429
    await edge.online("bob")
    await first.socket.close()
    await edge.counted("client_errors_total", reason="TOO_MANY_CONNECTIONS")
    await until_admitted(edge, "alice", "tablet")


async def until_admitted(edge: Edge, user_id: str, device_id: str) -> None:
    """The edge makes room once it has read that a connection was closed."""
    async with asyncio.timeout(5):
        while True:
            try:
                await edge.online(user_id, device_id)
                return
            except aiohttp.WSServerHandshakeError:
                await asyncio.sleep(0.01)

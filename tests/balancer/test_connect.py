"""POST /v1/connect over real HTTP, with scripted edges behind it."""

import asyncio
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format

from balancer.settings import BalancerSettings
from mesh.credentials import TicketVerifier, mint_token
from tests.balancer.conftest import SECRET, TICKET_SECRET, Running, Start
from tidings.client.v1.http_pb2 import ConnectResponse, UnauthorizedResponse
from tidings.common.v1 import error_pb2


def bearer(user: str = "alice", lifetime: float = 60, **claims: Any) -> dict[str, str]:
    return {"Authorization": "Bearer " + mint_token(SECRET, user, time.time(), lifetime, **claims)}


async def admitted(balancer: Running, user: str = "alice", **options: Any) -> ConnectResponse:
    async with balancer.http.post(balancer.url(), headers=bearer(user), **options) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Cache-Control"] == "no-store"
        return json_format.Parse(await response.text(), ConnectResponse())


async def refused(balancer: Running, status: int, **options: Any) -> tuple[error_pb2.Error, Any]:
    options = {"headers": bearer()} | options
    async with balancer.http.post(balancer.url(), **options) as response:
        assert response.status == status, await response.text()
        return json_format.Parse(await response.text(), error_pb2.Error()), response.headers


async def test_a_client_gets_an_edge_and_a_ticket_for_it_alone(start: Start) -> None:
    async with start() as balancer:
        await balancer.edge("edge-1").hello()
        answer = await admitted(balancer)
        assert answer.url == "ws://edge-1:8081/v1/ws"
        assert answer.api_url == "http://edge-1:8081"
        assert list(answer.alternatives) == []
        identity, _ = TicketVerifier(TICKET_SECRET, "edge-1").verify(answer.ticket, time.time())
        assert identity.user_id == "alice"
        assert 25 < answer.expire_time.seconds - time.time() < 31
        assert answer.heartbeat_interval.seconds == 30
        assert answer.backoff_base.ToTimedelta().total_seconds() == 0.5
        assert answer.backoff_max.seconds == 30


async def test_alternatives_are_other_edges_that_take_more(start: Start) -> None:
    async with start() as balancer:
        for name in ("edge-1", "edge-2", "edge-3", "edge-4"):
            await balancer.edge(name).hello()
        await balancer.edge("edge-5", draining=True).hello()
        await balancer.edge("edge-6", capacity=1).hello(("10.0.0.1", "bob"))
        answer = await admitted(balancer)
        assert len(set(answer.alternatives)) == 2
        assert answer.url not in answer.alternatives
        assert not {"ws://edge-5:8081/v1/ws", "ws://edge-6:8081/v1/ws"} & {answer.url, *answer.alternatives}


async def test_the_zone_asked_for_comes_first(start: Start) -> None:
    async with start() as balancer:
        await balancer.edge("edge-a", zone="a").hello()
        await balancer.edge("edge-b", zone="b").hello()
        for zone in "abab":
            answer = await admitted(balancer, json={"zone": zone, "from_the_future": 1})
            assert answer.url == f"ws://edge-{zone}:8081/v1/ws"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer ÿ"},
        bearer(lifetime=-60),
        bearer(audience="another"),
    ],
)
async def test_without_a_valid_token_the_answer_is_401_and_where_to_get_one(start: Start, headers: dict[str, str]) -> None:
    async with start(login_url="https://login.example/") as balancer:
        await balancer.edge("edge-1").hello()
        async with balancer.http.post(balancer.url(), headers=headers) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith('Bearer realm="tidings"')
            assert ("invalid_token" in response.headers["WWW-Authenticate"]) == bool(headers)
            body = json_format.Parse(await response.text(), UnauthorizedResponse())
        assert body.reason == "UNAUTHENTICATED"
        assert body.login_url == "https://login.example/"
        assert body.message


async def test_without_room_the_answer_is_503_and_when_to_ask_again(start: Start) -> None:
    async with start(retry_after_seconds=2) as balancer:
        error, headers = await refused(balancer, 503)
        assert error.code == error_pb2.ERROR_CODE_NO_CAPACITY
        assert 2 <= error.retry_after.ToTimedelta().total_seconds() <= 4
        assert headers["Retry-After"] in {"2", "3", "4"}
        await balancer.edge("edge-1", capacity=2).hello(("10.0.0.1", "bob"))
        await admitted(balancer)
        error, _ = await refused(balancer, 503)  # the last place is under way
        assert error.code == error_pb2.ERROR_CODE_NO_CAPACITY


async def test_one_connection_per_address_counts_what_is_under_way_open_and_closed(start: Start) -> None:
    async with start(connections_per_ip=1) as balancer:
        edge = balancer.edge("edge-1")
        await edge.hello()
        answer = await admitted(balancer)
        error, headers = await refused(balancer, 429)
        assert error.code == error_pb2.ERROR_CODE_TOO_MANY_CONNECTIONS
        assert int(headers["Retry-After"]) >= 1
        _, ticket_id = TicketVerifier(TICKET_SECRET, "edge-1").verify(answer.ticket, time.time())
        here = {"ip": "127.0.0.1", "user_id": "alice"}
        await edge.load(connections=1, opened=[here], arrived_ticket_ids=[ticket_id])
        await refused(balancer, 429)
        await edge.load(connections=0, closed=[here])
        await admitted(balancer)


async def test_the_cap_per_user_spares_others_and_ends_with_the_edge(start: Start) -> None:
    async with start(connections_per_user=2) as balancer:
        edge = balancer.edge("edge-1")
        await edge.hello(("10.0.0.1", "alice"), ("10.0.0.2", "alice"))
        error, _ = await refused(balancer, 429)
        assert error.code == error_pb2.ERROR_CODE_TOO_MANY_CONNECTIONS
        await admitted(balancer, "bob")
        await balancer.edge("edge-2").hello()
        await edge.leave()
        assert (await admitted(balancer)).url == "ws://edge-2:8081/v1/ws"


async def test_the_client_address_comes_from_as_many_proxies_as_are_trusted(start: Start) -> None:
    async with start(connections_per_ip=1, trust_forwarded_for=1) as balancer:
        await balancer.edge("edge-1").hello(("10.0.0.9", "bob"))
        refused_headers = bearer() | {"X-Forwarded-For": "1.2.3.4, 10.0.0.9"}
        await refused(balancer, 429, headers=refused_headers)
        allowed_headers = bearer() | {"X-Forwarded-For": "10.0.0.9, 10.0.0.8"}
        async with balancer.http.post(balancer.url(), headers=allowed_headers) as response:
            assert response.status == 200


async def test_a_flood_from_one_address_is_slowed_whatever_its_tokens(start: Start) -> None:
    async with start(connects_per_second=0.01, connect_burst=3) as balancer:
        await balancer.edge("edge-1").hello()
        for _ in range(3):
            async with balancer.http.post(balancer.url(), headers={"Authorization": "Bearer guess"}) as response:
                assert response.status == 401
        error, headers = await refused(balancer, 429)
        assert error.code == error_pb2.ERROR_CODE_RATE_LIMITED
        assert 90 <= int(headers["Retry-After"]) <= 100


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, error_pb2.ERROR_CODE_INVALID_FIELD),
        (b"\xff\xfe", 400, error_pb2.ERROR_CODE_INVALID_FIELD),
        (b"[" * 4000, 400, error_pb2.ERROR_CODE_INVALID_FIELD),
        (b"7", 400, error_pb2.ERROR_CODE_INVALID_FIELD),
        (b'{"zone": 7}', 400, error_pb2.ERROR_CODE_INVALID_FIELD),
        (b'{"zone": "' + b"z" * 200 + b'"}', 400, error_pb2.ERROR_CODE_INVALID_FIELD),
        (b" " * 5000, 413, error_pb2.ERROR_CODE_CONTENT_TOO_LARGE),
    ],
)
async def test_a_bad_body_gets_a_named_error(start: Start, body: bytes, status: int, code: int) -> None:
    async with start() as balancer:
        await balancer.edge("edge-1").hello()
        error, _ = await refused(balancer, status, data=body)
        assert error.code == code
        await admitted(balancer)


async def test_pages_of_listed_origins_may_ask_and_read_refusals_too(start: Start) -> None:
    async with start(allowed_origins=["https://chat.example"]) as balancer:
        good, bad = {"Origin": "https://chat.example"}, {"Origin": "https://evil.example"}
        async with balancer.http.options(balancer.url(), headers=good) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "https://chat.example"
            assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
        _, headers = await refused(balancer, 503, headers=bearer() | good)
        assert headers["Access-Control-Allow-Origin"] == "https://chat.example"
        assert "Retry-After" in headers["Access-Control-Expose-Headers"]
        error, headers = await refused(balancer, 403, headers=bearer() | bad)
        assert error.code == error_pb2.ERROR_CODE_ORIGIN_REFUSED
        assert "Access-Control-Allow-Origin" not in headers


async def test_a_page_of_the_host_itself_may_ask(start: Start) -> None:
    async with start() as balancer:
        await balancer.edge("edge-1").hello()
        headers = bearer() | {"Origin": balancer.instance.public_url}
        async with balancer.http.post(balancer.url(), headers=headers) as response:
            assert response.status == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/connect HTTP/1.1\r\nHo"])
async def test_who_dawdles_over_the_headers_is_closed(start: Start, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.serve.HEADER_SECONDS", 0.1)
    async with start() as balancer:
        host, port = balancer.instance.public_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()


async def test_it_tells_its_health_and_counts_what_it_did(start: Start) -> None:
    async with start() as balancer:
        async with balancer.http.get(balancer.url("/healthz")) as response:
            assert response.status == 200
        async with balancer.http.get(balancer.url("/readyz")) as response:
            assert response.status == 503
        await refused(balancer, 503)
        await balancer.edge("edge-1").hello()
        await admitted(balancer)
        async with balancer.http.get(balancer.url("/readyz")) as response:
            assert response.status == 200
        async with balancer.http.get(balancer.url("/metrics")) as response:
            text = await response.text()
        assert 'connect_requests_total{outcome="OK"} 1.0' in text
        assert 'connect_requests_total{outcome="NO_CAPACITY"} 1.0' in text
        assert "balancer_edges" in text
    async with start(admin_url="http://127.0.0.1:1") as balancer, balancer.http.get(balancer.url("/metrics")) as response:
        assert response.status == 404, "with an admin port of its own, strangers aren't told"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    files = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return files


async def test_with_a_certificate_it_speaks_tls(start: Start, certificate: tuple[str, str]) -> None:
    trusting = ssl.create_default_context(cafile=certificate[0])
    async with start(tls_certificate=certificate[0], tls_key=certificate[1]) as balancer:
        await balancer.edge("edge-1").hello()
        assert balancer.instance.public_url.startswith("https://")
        assert (await admitted(balancer, ssl=trusting)).ticket
        with pytest.raises(aiohttp.ClientConnectionError):
            await balancer.http.post(balancer.url().replace("https", "http"), headers=bearer())


async def test_without_a_ticket_secret_it_does_not_start(start: Start) -> None:
    with pytest.raises(ValueError, match="ticket_secret is not set"):
        async with start(ticket_secret=""):
            pass


def test_an_unknown_policy_is_refused_with_the_names_that_are_known() -> None:
    with pytest.raises(ValueError, match="no policy 'coin_toss': use one of consistent_hash, two_choices"):
        BalancerSettings.model_validate({"policy": "coin_toss"})

"""The benches of large groups and of reconnect storms measure what they say, on a small mesh; and the clients they use speak the
protocol."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from bench import connect, fanout
from bench.connect import ConnectOptions
from bench.fan_out import bare_fan_out_rate
from bench.fanout import FanoutOptions
from bench.tickets import NoTicketError, ticket
from mesh.telemetry import listen


def test_a_short_run_of_fanout() -> None:
    options = FanoutOptions(
        members=150, rate=10, seconds=1.5, chatters=4, chat_rate=10, mode="process", search=False, baselines=False
    )
    figures = fanout.run(options)
    assert not figures.broken
    named = {one.name: one for one in figures.figures}
    assert named["deliveries"].value > 0
    assert "10 messages/s: 1,490 offered" in named["deliveries"].note
    assert 0 < named["1-1 chat, the group busy: p99"].value < 10_000


def test_a_short_run_of_connect() -> None:
    figures = connect.run(ConnectOptions(sessions=20, rate=100, mode="process", storm=False, baselines=False))
    assert not figures.broken
    named = {one.name: one for one in figures.figures}
    assert named["failed attempts, paced"].value == 0
    assert named["resumed, one edge"].value > 0
    assert sum(figures.series["paced: sessions back, by second"]) == 20


def test_more_sessions_than_files_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="15,000"):
        ConnectOptions(sessions=20_000)


def test_the_bare_fan_out_has_a_rate() -> None:
    assert 100 < bare_fan_out_rate(connections=5, size=100, frames=40) < 10_000_000


@pytest.fixture
async def balancer() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer good":
            return web.json_response({"code": 4102}, status=401)
        assert await request.json() == {}
        return web.json_response({"url": "ws://edge/v1/ws", "ticket": "t"})

    app = web.Application()
    app.router.add_post("/v1/connect", answer)
    async with listen(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_ticket_is_asked_for_by_a_request_of_its_own(balancer: str) -> None:
    assert await asyncio.wait_for(ticket(balancer, "good"), 10) == "ws://edge/v1/ws?ticket=t"
    with pytest.raises(NoTicketError, match="4102") as refused:
        await asyncio.wait_for(ticket(balancer, "bad"), 10)
    assert refused.value.status == 401

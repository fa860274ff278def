"""Edges that send their clients on, and balancers of which some are away."""

import asyncio
import itertools
from contextlib import AsyncExitStack

import pytest

from tests.sdk.conftest import TIMEOUT, begin_to_move, take, until_state
from tests.sdk.fake_server import FakeServer, running
from tidings.client.v1 import frames_pb2 as pb
from tidings.common.v1 import error_pb2
from tidings_client import Client, ConnectionState
from tidings_client.door import balancer_urls
from tidings_client.moving import TICKET_SECONDS, Appointment


async def test_the_ticket_is_followed_at_its_time_without_asking_a_balancer(server: FakeServer, other: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        server.go_away(0.2, other.edge_url, other.ticket("alice"))
        await other.until(lambda: len(other.hellos) == 1)
        assert loop.time() - asked >= 0.2
        await client.caught_up()
        await server.until(lambda: not server.sessions)
        assert (server.connects, other.connects) == (1, 0)
        room = server.log.direct("alice", "bob").conversation.conversation_id
        await client.conversation(room)
        assert (server.counts["chat"], other.counts["chat"]) == (0, 1), "the HTTP API is the new edge's"


async def test_the_old_edge_serves_until_the_way_to_the_next_is_open(server: FakeServer, other: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await begin_to_move(client, server, other)
        server.say("bob", server.log.direct("alice", "bob"), "one")
        assert [one.text for one in await take(client, 1)] == ["one"]
        assert (await client.send("bob", "two").stored()).seq == 2
        other.upgrading.set()
        await other.until(lambda: len(other.hellos) == 1)
        other.say("bob", server.log.direct("alice", "bob"), "three")
        assert [one.text for one in await take(client, 2)] == ["two", "three"]
        assert server.connects == 1


async def test_an_edge_that_is_gone_before_the_appointment_is_followed_all_the_same(server: FakeServer, other: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        asked = asyncio.get_running_loop().time()
        server.go_away(0.3, other.edge_url, other.ticket("alice"))
        await asyncio.sleep(0)
        server.close(error_pb2.ERROR_CODE_GOING_AWAY)
        await other.until(lambda: len(other.hellos) == 1)
        assert asyncio.get_running_loop().time() - asked >= 0.3
        assert server.connects == 1


async def test_an_edge_that_closes_while_the_next_opens_is_not_missed(server: FakeServer, other: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await begin_to_move(client, server, other)
        server.close(error_pb2.ERROR_CODE_GOING_AWAY)
        await until_state(client, ConnectionState.CONNECTING)
        other.upgrading.set()
        await client.caught_up()
        assert (len(other.hellos), other.counts["upgrades"], server.connects) == (1, 1, 1)


@pytest.mark.parametrize("fault", ["refused", "full", "gone"])
async def test_who_is_not_let_in_asks_a_balancer(server: FakeServer, fault: str) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(running())
        ticket = "never issued" if fault == "refused" else other.ticket("alice")
        other.websocket_status = 503 if fault == "full" else 0
        if fault == "gone":
            await stack.aclose()
        tokens = itertools.count(1)

        async def token() -> str:
            return f"alice/{next(tokens)}"

        async with Client(server.url, token) as client:
            await client.caught_up()
            for _ in range(4):  # more than a client's own refusals may be: these are no fault of its
                hellos = len(server.hellos)
                server.go_away(0.0, other.edge_url, ticket)
                await server.until(lambda known=hellos: len(server.hellos) > known)  # type: ignore[misc]
                await client.caught_up()
            assert server.connects == 5
            assert next(tokens) == 2, "no fault of the token's"
            assert server.counts["poll"] == 0, "no sign that WebSockets are blocked"


async def test_who_is_told_a_time_alone_asks_a_balancer_then(server: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        server.go_away(0.0)
        await server.until(lambda: len(server.hellos) == 2)
        assert server.connects == 2


async def test_the_long_poll_moves_too(server: FakeServer, other: FakeServer) -> None:
    async with Client(server.url, "alice", long_poll="always") as client:
        await client.caught_up()
        server.go_away(0.0, other.edge_url, other.ticket("alice"))
        await other.until(lambda: len(other.hellos) == 1)
        await client.caught_up()
        assert (server.connects, other.counts["upgrades"]) == (1, 0)


async def test_messages_sent_while_moving_are_stored_once_and_in_order(server: FakeServer, other: FakeServer) -> None:
    edges = [other, server]
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        sent = []
        for number in range(60):
            sent.append(client.send("bob", str(number)))
            if number % 15 == 5:
                before, after = edges[1], edges[0]
                edges.reverse()
                hellos = len(after.hellos)
                before.drop_stored = 3  # what the old edge could not answer any more
                before.go_away(0.01, after.edge_url, after.ticket("alice"))
                await after.until(lambda known=hellos, there=after: len(there.hellos) > known)  # type: ignore[misc]
                await client.caught_up()
        async with asyncio.timeout(TIMEOUT):
            assert [(await one.stored()).seq for one in sent] == list(range(1, 61))
        assert [one.text for one in await take(client, 60)] == [str(number) for number in range(60)]
        assert server.connects == 1


def test_an_appointment_is_as_the_edge_gave_it() -> None:
    frame = pb.GoAway(url="wss://edge-1.example/a/", ticket="t")
    frame.reconnect_after.FromMilliseconds(1500)
    appointment = Appointment.of(frame, 10.0)
    assert (appointment.at, appointment.websocket_url) == (11.5, "wss://edge-1.example/a/v1/ws")
    assert appointment.api_url == "https://edge-1.example/a"
    assert [appointment.holds(now) for now in (10.0, 11.4 + TICKET_SECONDS, 11.5 + TICKET_SECONDS)] == [True, True, False]
    assert not Appointment.of(pb.GoAway(url="ws://edge"), 0.0).holds(0.0)
    assert not Appointment.of(pb.GoAway(ticket="t"), 0.0).holds(0.0)


# Several balancers


async def until_connects(client: Client, *servers: FakeServer) -> list[int]:
    """Be sent off, come back, and say how often each was asked."""
    for one in servers:
        one.close(error_pb2.ERROR_CODE_GOING_AWAY)
    await until_state(client, ConnectionState.CONNECTING)
    await client.caught_up()
    return [one.connects for one in servers]


@pytest.mark.parametrize("first", [0, 1])
async def test_a_balancer_that_is_gone_is_passed_over(server: FakeServer, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings_client.door.random.randrange", lambda _: first)
    async with running() as gone:
        urls = [gone.url, server.url + "/"]
    async with Client(urls, "alice") as client:
        await client.caught_up()
        assert await until_connects(client, server) == [2]


async def test_a_balancer_that_does_not_answer_is_passed_over_and_not_asked_first_again(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_client.door.NEXT_SECONDS", 0.1)
    monkeypatch.setattr("tidings_client.door.random.randrange", lambda _: 0)
    async with running() as stuck:
        stuck.answering.clear()
        async with Client(f"{stuck.url}, {server.url}", "alice") as client:
            await client.caught_up()
            assert await until_connects(client, stuck, server) == [1, 2]
            stuck.answering.set()
            server.connect_status = 503
            assert await until_connects(client, stuck, server) == [2, 3], "and is asked when the other can't help"


async def test_what_a_balancer_answers_about_us_is_final_and_when_none_has_room_its_time_counts(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_client.door.random.randrange", lambda _: 0)
    async with running() as second:
        server.bad_tokens = {"alice"}
        async with Client([server.url, second.url], "alice") as client:
            await until_state(client, ConnectionState.REFUSED)
        assert second.connects == 0
        server.bad_tokens = set()
        server.connect_status, server.retry_after = 503, "0.3"
        second.connect_status = 500
        async with Client([server.url, second.url], "alice") as client:
            loop = asyncio.get_running_loop()
            await second.until(lambda: second.connects == 1)
            refused = loop.time()
            await server.until(lambda: server.connects == 3)
            assert loop.time() - refused >= 0.25


@pytest.mark.parametrize("url", ["", [], "http://a,", ["http://a", " "]])
def test_no_url_is_refused(url: str | list[str]) -> None:
    with pytest.raises(ValueError, match="base URL"):
        balancer_urls(url)
    with pytest.raises(ValueError, match="base URL"):
        Client(url, "alice")

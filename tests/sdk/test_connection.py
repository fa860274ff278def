"""Connecting, staying connected, and knowing when not to."""

import asyncio
import itertools
from pathlib import Path

import aiohttp
import pytest

from tests.sdk.conftest import TIMEOUT, take, until, until_state
from tests.sdk.fake_server import FakeServer, running
from tidings.client.v1 import frames_pb2 as pb
from tidings.client.v1.frames_pb2 import ServerFrame
from tidings.client.v1.http_pb2 import PollResponse
from tidings.common.v1 import error_pb2
from tidings_client import (
    Client,
    ClientStopped,
    ConnectionEvent,
    ConnectionState,
    NotConnected,
    StateFileError,
    Status,
)
from tidings_client.poll import PollTransport


async def test_events_tell_the_way_to_caught_up_and_out(server: FakeServer) -> None:
    client = Client(server.url, "alice")
    events = client.events()
    async with client:
        await client.caught_up()
        assert client.user_id == "alice"
    states = [event.state async for event in events if isinstance(event, ConnectionEvent)]
    assert states == [ConnectionState.CATCHING_UP, ConnectionState.CAUGHT_UP, ConnectionState.CLOSED]


async def test_a_refused_token_is_renewed(server: FakeServer) -> None:
    numbers = itertools.count(1)

    async def token() -> str:
        return f"alice/{next(numbers)}"

    server.bad_tokens = {"alice/1", "alice/2"}
    async with Client(server.url, token) as client:
        await client.caught_up()
        assert next(numbers) == 4


async def test_a_token_that_stays_refused_stops_the_client_and_says_where_to_get_one(server: FakeServer) -> None:
    server.bad_tokens = {"alice"}
    async with Client(server.url, "alice") as client:
        sent = client.send("bob", "hello")
        with pytest.raises(ClientStopped, match="bad token; get a token at http://login"):
            await client.caught_up(TIMEOUT)
        assert client.state is ConnectionState.REFUSED
        with pytest.raises(ClientStopped):
            await sent.stored()
        assert server.connects == 1
        server.bad_tokens = set()
        client.reconnect()
        assert (await sent.stored()).seq == 1


async def test_token_expiring_is_answered_with_a_fresh_one(server: FakeServer) -> None:
    numbers = itertools.count(1)

    async def token() -> str:
        return f"alice/{next(numbers)}"

    async with Client(server.url, token) as client:
        await client.caught_up()
        server.tell(ServerFrame(token_expiring=pb.TokenExpiring()))
        await server.until(lambda: server.refresh_tokens == ["alice/2"])


async def test_an_expired_session_comes_back_with_a_new_token(server: FakeServer) -> None:
    numbers = itertools.count(1)

    async def token() -> str:
        return f"alice/{next(numbers)}"

    async with Client(server.url, token) as client:
        await client.caught_up()
        server.bad_tokens = {"alice/1"}
        server.close(error_pb2.ERROR_CODE_UNAUTHENTICATED)
        await until_state(client, ConnectionState.CONNECTING)
        await client.caught_up()


async def test_a_token_function_that_fails_is_asked_again(server: FakeServer) -> None:
    asked = itertools.count(1)

    async def token() -> str:
        if next(asked) == 1:
            raise OSError("login service is away")
        return "alice"

    async with Client(server.url, token) as client:
        await client.caught_up()


async def test_the_replaced_device_stops_and_says_so(server: FakeServer) -> None:
    async with Client(server.url, "alice", device_id="phone") as first:
        await first.caught_up()
        async with Client(server.url, "alice", device_id="phone") as second:
            await second.caught_up()
            await until_state(first, ConnectionState.REPLACED)
            with pytest.raises(ClientStopped, match="elsewhere"):
                await first.caught_up()
            assert server.connects == 2


async def test_a_misbehaving_client_gives_up_after_a_few_attempts(server: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        for _ in range(4):
            await client.caught_up()
            hellos = len(server.hellos)
            server.tell(ServerFrame(heartbeat=pb.Heartbeat()))
            server.close(error_pb2.ERROR_CODE_PROTOCOL_ERROR)
            await until_state(client, ConnectionState.REFUSED)
            client.reconnect()
            await server.until(lambda known=hellos: len(server.hellos) > known)  # type: ignore[misc]


async def test_go_away_is_followed_at_the_time_given(server: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        server.go_away(0.3)
        await server.until(lambda: len(server.hellos) == 2)
        assert 0.3 <= loop.time() - asked < 5.0
        await client.caught_up()


async def test_an_edge_that_closes_before_its_appointment_is_left_alone_until_then(server: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        events = client.events()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        server.go_away(0.3)
        server.close(error_pb2.ERROR_CODE_GOING_AWAY)
        await until(events, lambda event: isinstance(event, ConnectionEvent) and event.state is ConnectionState.CAUGHT_UP)
        assert loop.time() - asked >= 0.3


async def test_retry_after_of_the_balancer_is_respected(server: FakeServer) -> None:
    server.connect_status, server.retry_after = 429, "0.3"
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with Client(server.url, "alice") as client:
        await server.until(lambda: server.connects == 1)
        server.connect_status = 0
        await client.caught_up()
        assert loop.time() - started >= 0.3
        assert server.connects == 2


async def test_a_server_that_goes_silent_is_left(server: FakeServer) -> None:
    server.heartbeat = 0.1
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        server.silence = lambda frame: frame.HasField("heartbeat")
        server.heartbeat = 1.0  # after this one: what stands still for a moment isn't silent
        await server.until(lambda: len(server.hellos) == 2)
        server.silence = lambda frame: False
        await client.caught_up()
        beats = server.counts["heartbeat"]
        await server.until(lambda: server.counts["heartbeat"] >= beats + 2)
        assert len(server.hellos) == 2, "a silent conversation is kept alive"


async def test_where_websockets_are_blocked_the_long_poll_carries_the_chat(server: FakeServer) -> None:
    server.websocket_status = 403
    async with Client(server.url, "alice") as alice, Client(server.url, "bob", long_poll="always") as bob:
        await alice.caught_up()
        await bob.caught_up()
        for number in range(5):
            assert (await alice.send("bob", str(number)).stored()).seq == number + 1
        assert [message.text for message in await take(bob, 5)] == ["0", "1", "2", "3", "4"]
        bob.mark_read("alice", 5)
        sent = alice.send("bob", "read me")
        await sent.stored()
        server.close(error_pb2.ERROR_CODE_GOING_AWAY)
        await until_state(alice, ConnectionState.CONNECTING)
        await alice.caught_up()
    assert server.counts["poll"] > 5


async def test_frames_that_a_poll_is_given_twice_count_once() -> None:
    beats = [ServerFrame(request_id=number, heartbeat=pb.Heartbeat()) for number in range(1, 6)]
    async with aiohttp.ClientSession() as http:
        poll = PollTransport(http, "", "")
        poll._take_in(PollResponse(sequence=2, frames=beats[:2]))
        poll._take_in(PollResponse(sequence=4, frames=beats[:4]))
        poll._take_in(PollResponse(sequence=2, frames=beats[:2]))
        poll._take_in(PollResponse(sequence=5, frames=beats[4:]))
        assert [frame.request_id for frame in await poll.receive()] == [1, 2, 3, 4, 5]


async def test_without_the_fallback_websockets_are_tried_on(server: FakeServer) -> None:
    server.websocket_status = 503
    async with Client(server.url, "alice", long_poll="never") as client:
        await server.until(lambda: server.connects >= 4)
        server.websocket_status = 0
        await client.caught_up()
    assert server.counts["poll"] == 0


async def test_a_state_of_another_user_is_refused(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    async with Client(server.url, "alice", state=state) as client:
        await client.caught_up()
    async with Client(server.url, "bob", state=state) as client:
        with pytest.raises(ClientStopped, match="another user"):
            await client.caught_up()
    with pytest.raises(StateFileError, match="belongs to alice"):
        Client(server.url, "bob", state=state, user_id="bob")


async def test_a_state_in_use_is_refused(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    async with Client(server.url, "alice", state=state):
        with pytest.raises(StateFileError, match="in use"):
            Client(server.url, "alice", state=state)


async def test_nothing_listens_there(unused_tcp_port_factory: object = None) -> None:
    async with running() as gone:
        url = gone.url
    async with Client(url, "alice") as client:
        with pytest.raises(TimeoutError, match="can't be reached"):
            await client.caught_up(0.5)
        with pytest.raises(NotConnected):
            await client._ask(pb.ClientFrame())
        assert client.send("bob", "kept").status is Status.SENDING


async def test_bad_arguments_are_named(server: FakeServer) -> None:
    async with Client(server.url, "alice", user_id="alice") as client:
        with pytest.raises(ValueError, match="neither a conversation's id nor a user's"):
            client.send("no such name!", "hello")
        with pytest.raises(ValueError, match="empty"):
            client.send("bob", "")
        with pytest.raises(ValueError, match="printable"):
            client.send("bob", "hello", client_msg_id="a b")
        client.send("bob", "hello", client_msg_id="one")
        assert client.send("bob", "hello", client_msg_id="one").client_msg_id == "one"
        with pytest.raises(ValueError, match="another message"):
            client.send("bob", "other", client_msg_id="one")
    with pytest.raises(ClientStopped):
        client.send("bob", "too late")

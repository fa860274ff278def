"""Who was cut off goes straight back to their edge, once, and to a balancer where that is not to be."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from tests.sdk.conftest import TIMEOUT, begin_to_move, take, until_state
from tests.sdk.fake_server import FakeServer, running
from tidings.client.v1 import frames_pb2 as pb
from tidings.client.v1.frames_pb2 import ServerFrame
from tidings.common.v1 import error_pb2
from tidings_client import Client, ConnectionState, StateFileError
from tidings_client.exchange import Exchange
from tidings_client.outgoing import Outgoing
from tidings_client.transport import WebSocketTransport

FIRST = 0.01  # seconds; the longest first wait that the fake balancer asks for


class Waits:
    """What the client would wait at the longest, each time; it waits `share` of it."""

    def __init__(self, share: float = 0.0) -> None:
        self.longest: list[float] = []
        self.share = share

    def __call__(self, _: float, longest: float) -> float:
        self.longest.append(longest)
        return self.share * longest


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """In place of chance."""
    waits = Waits()
    monkeypatch.setattr("tidings_client.connection.random.uniform", waits)
    return waits


async def move(client: Client, server: FakeServer, other: FakeServer) -> None:
    """Go to an edge that isn't the balancer's own."""
    hellos = len(other.hellos)
    await client.caught_up()
    server.go_away(0.0, other.edge_url, other.ticket("alice"))
    await other.until(lambda: len(other.hellos) > hellos)
    await client.caught_up()


async def cut_and_back(client: Client, server: FakeServer) -> None:
    """Lose the connection, and catch up again."""
    server.cut()
    await until_state(client, ConnectionState.CONNECTING)
    await client.caught_up(TIMEOUT)


async def stored(sent: Sequence[Outgoing]) -> list[int]:
    async with asyncio.timeout(TIMEOUT):
        return [(await one.stored()).seq for one in sent]


# Straight back


async def test_what_was_missed_comes_and_what_was_under_way_is_stored_once_without_a_second_knock(server: FakeServer) -> None:
    room = server.log.direct("alice", "bob")
    async with Client(server.url, "alice/1") as client:
        await client.caught_up()
        server.drop_stored = 3
        sent = [client.send("bob", str(number)) for number in range(5)]
        await server.until(lambda: server.counts["send_message"] == 5)
        server.cut()
        await until_state(client, ConnectionState.CONNECTING)
        server.say("bob", room, "missed")
        sent.append(client.send("bob", "5"))
        assert await stored(sent) == [1, 2, 3, 4, 5, 7]
        assert [one.text for one in await take(client, 7)] == ["0", "1", "2", "3", "4", "missed", "5"]
        assert (server.returns, server.connects) == (["alice/1"], 1)
    assert [entry.content.text.text for entry in room.entries.values()] == ["0", "1", "2", "3", "4", "missed", "5"]


async def test_each_cut_leads_straight_back_to_the_edge_that_was_moved_to(server: FakeServer, other: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await move(client, server, other)
        for _ in range(3):
            await cut_and_back(client, other)
        assert (server.connects, server.returns, other.returns) == (1, [], ["alice"] * 3)
        room = server.log.direct("alice", "bob").conversation.conversation_id
        await client.conversation(room)
        assert (server.counts["chat"], other.counts["chat"]) == (0, 1), "the HTTP API is still that edge's"


async def test_the_wait_before_is_the_usual_one(server: FakeServer, waits: Waits) -> None:
    waits.share = 20.0
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        loop = asyncio.get_running_loop()
        cut = loop.time()
        await cut_and_back(client, server)
        assert loop.time() - cut >= waits.share * FIRST
        assert (waits.longest, server.returns) == ([FIRST], ["alice"])


# Where that is not to be


@pytest.mark.parametrize("fault", ["gone", "stuck", 401, 403, 429, 503])
async def test_a_balancer_is_asked_in_the_same_attempt(
    server: FakeServer, waits: Waits, fault: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_client.transport.RETURN_TIMEOUT", 0.1)
    tokens = itertools.count(1)

    async def token() -> str:
        return f"alice/{next(tokens)}"

    async with AsyncExitStack() as stack, Client(server.url, token) as client:
        other = await stack.enter_async_context(running(log=server.log))
        await move(client, server, other)
        del waits.longest[:]
        if fault == "gone":
            await stack.aclose()
            await until_state(client, ConnectionState.CONNECTING)
            await client.caught_up(TIMEOUT)
        else:
            if fault == "stuck":
                other.upgrading.clear()
            else:
                other.websocket_status = int(fault)
            await cut_and_back(client, other)
            other.upgrading.set()
        assert waits.longest == [FIRST], "no further wait"
        assert other.returns == ([] if fault == "gone" else ["alice/1"])
        assert (server.connects, server.returns, next(tokens)) == (2, [], 2)


async def test_an_edge_in_vain_is_no_failure_and_no_sign_of_blocked_websockets_and_is_not_tried_again(
    server: FakeServer, waits: Waits
) -> None:
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        server.websocket_status = 403
        server.cut()
        await server.until(lambda: server.counts["upgrades"] == 3)  # the first one, straight back, with the balancer's ticket
        server.websocket_status = 0
        await client.caught_up(TIMEOUT)
        assert waits.longest == [FIRST, 2 * FIRST]
        assert (server.returns, server.connects, server.counts["poll"]) == (["alice"], 3, 0)


async def test_a_token_that_the_edge_refuses_is_no_refusal_of_the_balancers(server: FakeServer, other: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        other.bad_tokens = {"alice"}
        for number in range(1, 6):  # more than a client's own refusals may be
            await move(client, server, other)
            await cut_and_back(client, other)
            assert (len(other.returns), server.connects) == (number, number + 1)


# Who does not go straight back


async def sent_off(client: Client, server: FakeServer) -> None:
    """Be away, come back, and have asked a balancer for it."""
    await until_state(client, ConnectionState.CONNECTING)
    await client.caught_up(TIMEOUT)
    assert (server.returns, server.connects) == ([], 2)


@pytest.mark.parametrize("code", ["GOING_AWAY", "SLOW_CONSUMER", "UNAUTHENTICATED", "SESSION_FAILED", "FLOODING"])
async def test_who_was_closed_with_a_code_of_ours_asks_a_balancer(server: FakeServer, code: str) -> None:
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        server.close(error_pb2.ErrorCode.Value(f"ERROR_CODE_{code}"))
        await sent_off(client, server)


async def test_who_hears_nothing_asks_a_balancer(server: FakeServer) -> None:
    server.heartbeat = 0.1
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        server.silence = lambda frame: frame.HasField("heartbeat")
        server.heartbeat = 30.0
        await until_state(client, ConnectionState.CONNECTING)
        server.silence = lambda frame: False
        await sent_off(client, server)


async def test_whose_bytes_nobody_takes_asks_a_balancer(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings_client.connection.SEND_TIMEOUT", 0.05)
    monkeypatch.setattr("tidings_client.connection.GOODBYE_TIMEOUT", 0.05)

    async def stand(*_: object) -> None:
        await asyncio.Event().wait()

    async with Client(server.url, "alice") as client:
        await client.caught_up()
        with monkeypatch.context() as patch:
            patch.setattr(WebSocketTransport, "send", stand)
            client.send("bob", "hello")
            await until_state(client, ConnectionState.CONNECTING)
        await sent_off(client, server)


@pytest.mark.parametrize("cut", [False, True])
async def test_who_was_not_welcomed_asks_a_balancer(server: FakeServer, cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings_client.connection.WELCOME_TIMEOUT", TIMEOUT if cut else 0.1)
    server.silence = lambda frame: frame.HasField("hello")
    async with Client(server.url, "alice") as client:
        await server.until(lambda: server.counts["hello"] == 1)
        server.silence = lambda frame: False
        if cut:
            server.cut()
        await client.caught_up(TIMEOUT)
        assert (server.returns, server.connects) == ([], 2)


@pytest.mark.parametrize("fault", [RuntimeError, StateFileError])
async def test_after_a_fault_of_ours_a_balancer_is_asked(
    server: FakeServer, fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_client.connection.STATE_RETRY_SECONDS", 0.01)

    def fail(*_: object) -> None:
        raise fault("made by the test")

    async with Client(server.url, "alice") as client:
        await client.caught_up()
        await cut_and_back(client, server)
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "on_frames", fail)
            server.tell(ServerFrame(heartbeat=pb.Heartbeat()))
            await until_state(client, ConnectionState.CONNECTING)
        await client.caught_up(TIMEOUT)
        assert (server.returns, server.connects) == (["alice"], 2)


async def test_the_long_poll_asks_a_balancer(server: FakeServer) -> None:
    async with Client(server.url, "alice", long_poll="always") as client:
        await client.caught_up()
        server.cut()
        await sent_off(client, server)


async def test_who_has_an_appointment_keeps_it(server: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        server.go_away(0.2)
        server.say("bob", server.log.direct("alice", "bob"), "it was read")
        await take(client, 1)
        server.cut()
        await sent_off(client, server)
        assert loop.time() - asked >= 0.2


async def test_who_is_on_the_move_goes_on(server: FakeServer, other: FakeServer) -> None:
    async with Client(server.url, "alice") as client:
        await begin_to_move(client, server, other)
        server.cut()
        await until_state(client, ConnectionState.CONNECTING)
        other.upgrading.set()
        await client.caught_up(TIMEOUT)
        assert (server.connects, server.returns, other.returns, len(other.hellos)) == (1, [], [], 1)

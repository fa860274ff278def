"""Receipts sent while a client is away or catches up don't come: it asks for the others' marks, and statuses follow."""

import time
from collections.abc import Sequence

import pytest

from tests.sdk.conftest import TIMEOUT, until
from tests.sdk.fake_server import FakeServer, refusal
from tests.sdk.test_returning import cut_and_back, stored
from tidings.client.v1 import frames_pb2 as pb
from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.common.v1 import error_pb2
from tidings_client import Client, Event, Status, StatusEvent
from tidings_client.exchange import Exchange
from tidings_client.naming import direct_conversation_id
from tidings_client.notifications import NotificationInbox, ServerClock
from tidings_client.state import State

CHAT = direct_conversation_id("alice", "bob")


@pytest.mark.parametrize("refusals", [0, 1])
async def test_marks_that_moved_meanwhile_are_asked_for_until_they_are_told(server: FakeServer, refusals: int) -> None:
    async with Client(server.url, "alice") as client:
        await client.caught_up()
        events = client.events()
        assert await stored([client.send("bob", "hello")]) == [1]
        server.marks[CHAT]["bob"] = [1, 0]
        server.refuse_chats = [refusal(error_pb2.ERROR_CODE_OVERLOADED, 0.1)] * refusals
        await cut_and_back(client, server)
        await server.until(lambda: server.counts["chat"] == 1, TIMEOUT)
        if refusals:
            await stored([client.send("carol", "the next that is stored")])
        await until(events, _is_delivered)
        assert server.counts["chat"] >= 1 + refusals


@pytest.mark.parametrize("together", [False, True])
def test_what_is_stored_in_the_very_batch_that_ends_catching_up_is_asked_for(together: bool) -> None:
    exchange = alice()
    answer = ServerFrame(message_stored=pb.MessageStored(client_msg_id="a", conversation_id=CHAT, seq=1))
    caught_up = ServerFrame(caught_up=pb.CaughtUp())
    batches: Sequence[list[ServerFrame]] = [[answer, caught_up]] if together else [[answer], [caught_up]]
    for batch in batches:
        exchange.on_frames(batch, 1.0)
    assert exchange.progress.take_wanted() == [CHAT]


def alice() -> Exchange:
    """Hers, with a message on its way on a connection that was welcomed."""
    state = State(None)
    send = ClientFrame(send_message=pb.SendMessage(conversation_id=CHAT, client_msg_id="a"))
    state.insert_outgoing("a", CHAT, send)
    notifications = NotificationInbox(state, ServerClock(state, time.time), lambda: None)
    exchange = Exchange(state, 0, lambda event: None, lambda: None, lambda name, outcome: None, lambda frame: False, notifications)
    exchange.on_welcome(pb.Welcome(user_id="alice", limits=pb.Limits(frames_per_second=100, frames_burst=100)), 0.0)
    assert [frame.WhichOneof("body") for frame in exchange.take_frames(0.0)] == ["send_message"]
    return exchange


def _is_delivered(event: Event) -> bool:
    return isinstance(event, StatusEvent) and event.status is Status.DELIVERED

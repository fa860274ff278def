"""An edge whose routers give credit: how much they are asked, what happens to the rest, and to a router that falls silent."""

import asyncio
import itertools
import time

import pytest

from edge.pulse import SILENT_TICKS, Pulse
from mesh.naming import direct_conversation_id
from tests.edge.conftest import WAIT, Edge, Start
from tests.edge.fake_router import FakeRouter
from tests.edge.test_api import call
from tests.edge.test_links import owners, stored
from tidings.client.v1 import frames_pb2 as f
from tidings.common.v1 import error_pb2 as e
from tidings.router.v1 import link_pb2

CHAT = direct_conversation_id("alice", "bob")


async def credited(edge: Edge, credit: int) -> None:
    """Have every router give so much on a new link."""
    for router in edge.routers:
        router.credit = credit
        before = list(router.links)
        router.cut()
        await router.saw(lambda one, before=before: bool(one.links) and not set(one.links) & set(before))  # type: ignore[misc]


def sends(router: FakeRouter) -> list[str]:
    return [envelope.append_entry.client_msg_id for envelope in router.envelopes("append_entry")]


async def test_no_more_than_its_credit_is_unanswered_and_the_rest_follows_in_order(start: Start) -> None:
    edge = await start()
    await credited(edge, 8)
    alice = await edge.online("alice")
    edge.router.silent.add("append_entry")
    for number in range(20):
        await alice.send("bob", "hi", f"m{number}")
    await edge.router.saw(lambda router: len(sends(router)) == 6)
    await alice.say(request_id=9, fetch_messages=f.FetchMessages(conversation_id=CHAT))
    assert (await alice.until("message_page")).request_id == 9, "questions have a quarter to themselves"
    assert sends(edge.router) == [f"m{number}" for number in range(6)]
    for link in edge.router.links:
        link.send(link_pb2.LinkResponse(credit=12))
    await edge.router.saw(lambda router: len(sends(router)) == 9)
    for number in range(20):
        await edge.router.saw(lambda router, number=number: len(sends(router)) > number)
        assert len(sends(edge.router)) <= number + 9
        edge.router.answer(edge.router.envelopes("append_entry")[number])
    assert await stored(alice, 20) == [f"m{number}" for number in range(20)]


async def test_what_waits_for_credit_goes_with_what_is_unanswered_to_the_owner_after_a_lost_link(start: Start) -> None:
    edge = await start(routers=2)
    await credited(edge, 10)
    first, _ = owners(edge, CHAT)
    alice = await edge.online("alice")
    first.silent.add("append_entry")
    for number in range(20):
        await alice.send("bob", "hi", f"m{number}")
    await first.saw(lambda router: len(sends(router)) == 8)
    first.silent.clear()
    first.cut()
    assert await stored(alice, 20) == [f"m{number}" for number in range(20)]
    assert [entry.client_msg_id for entry in edge.world.logs[CHAT]] == [f"m{number}" for number in range(20)]


async def test_what_the_edge_has_no_room_for_is_refused_with_a_time_to_come_again(start: Start) -> None:
    edge = await start(max_pending=12)
    await credited(edge, 8)
    alice = await edge.online("alice")
    edge.router.silent.add("append_entry")
    for number in range(14):
        await alice.send("bob", "hi", f"m{number}")
    for name in ("m12", "m13"):
        error = (await alice.until("error")).error
        assert (error.client_msg_id, error.HasField("retry_after")) == (name, True)
        assert error.code in (e.ERROR_CODE_OVERLOADED, e.ERROR_CODE_RATE_LIMITED)
    await alice.say(request_id=5, watch_presence=f.WatchPresence(user_ids=["bob"]))
    assert (await alice.until("error")).error.code == e.ERROR_CODE_OVERLOADED
    await edge.router.saw(lambda router: len(sends(router)) == 6)


async def test_watching_nobody_is_refused_for_no_router_answers_it(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    await alice.say(request_id=5, watch_presence=f.WatchPresence())
    frame = await alice.until("error")
    assert (frame.request_id, frame.error.field) == (5, "watch_presence.user_ids")


async def test_the_conversations_of_a_frozen_router_go_elsewhere_and_nobody_waits_for_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.link.TICK_SECONDS", 0.05)
    edge = await start(routers=2)
    first, second = owners(edge, CHAT)
    alice, bob = await edge.online("alice"), await edge.online("bob")
    await alice.send("bob", "hi", "m0")
    await bob.until("new_message")
    first.credit, second.credit = 10, 0  # this one is expected to speak, and of the other, an older one, nothing is expected
    links = list(first.links)
    first.cut()
    await first.saw(lambda router: bool(router.links) and router.links != links)
    first.awake.clear()
    for number in range(1, 15):
        await alice.send("bob", "hi", f"m{number}")
    names = [f"m{number}" for number in range(15)]
    assert await stored(alice, 15) == names
    await edge.online("carol")
    assert [entry.client_msg_id for entry in edge.world.logs[CHAT]] == names
    # It wakes up, and does once more what it was asked; for others it stores something that it tells nobody here.
    edge.world.append("alice", link_pb2.AppendEntry(conversation_id=CHAT, client_msg_id="elsewhere", recipient_id="bob"))
    first.awake.set()
    heard: list[str] = []
    while "elsewhere" not in heard:
        frame = await bob.hear()
        heard += [entry.client_msg_id for entry in frame.message_page.entries]
    assert [entry.client_msg_id for entry in edge.world.logs[CHAT]] == [*names, "elsewhere"]


async def test_the_http_api_asks_another_router_when_the_owner_is_frozen(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.router_calls.FIRST_SECONDS", 0.2)
    edge = await start(routers=2)
    first, _ = owners(edge, CHAT)
    edge.world.members[CHAT] = {"alice", "bob"}
    first.awake.clear()
    began = time.monotonic()
    status, chat = await call(edge, "GET", f"/api/v1/chats/{CHAT}")
    assert (status, chat["conversation"]["conversation_id"]) == (200, CHAT)
    assert 0.2 <= time.monotonic() - began < 6.0
    first.awake.set()


async def test_a_silent_router_is_kept_when_there_is_no_other(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.link.TICK_SECONDS", 0.01)
    long_silent, ticks = asyncio.Event(), itertools.count()

    class Counted(Pulse):
        def tick(self) -> None:
            super().tick()
            if self.silent and next(ticks) > SILENT_TICKS:
                long_silent.set()

    monkeypatch.setattr("edge.link.Pulse", Counted)
    edge = await start()
    await credited(edge, 10)
    alice = await edge.online("alice")
    link = edge.router.links[0]
    edge.router.awake.clear()
    await alice.send("bob", "hi", "m0")
    await asyncio.wait_for(long_silent.wait(), WAIT)
    edge.router.awake.set()
    assert await stored(alice, 1) == ["m0"]
    assert edge.router.links == [link]

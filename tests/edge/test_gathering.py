"""Sessions that begin together share the requests that tell a router of them, however busy the link's writer is."""

import asyncio
import time
from typing import Any

import pytest

from edge import link
from tests.edge.conftest import Start
from tidings.client.v1 import frames_pb2
from tidings.router.v1 import link_pb2, link_pb2_grpc

SESSIONS = 60
WRITING_SECONDS = 0.002  # a writer that is hardly ever done before something else has come


class SlowLink:
    """A LinkServiceStub whose requests take their time."""

    def __init__(self, channel: Any) -> None:
        self.call = link_pb2_grpc.LinkServiceStub(channel).Link()

    def Link(self) -> Any:
        """See LinkServiceStub."""
        write = self.call.write

        async def slowly(request: link_pb2.LinkRequest) -> None:
            await asyncio.sleep(WRITING_SECONDS)
            await write(request)

        self.call.write = slowly
        return self.call


class Stubs:
    """In place of `link_pb2_grpc`."""

    LinkServiceStub = SlowLink


def about_sessions(request: link_pb2.LinkRequest) -> bool:
    return bool(request.batch.envelopes or request.batch.opened_user_ordinals)


async def test_sessions_that_begin_together_share_requests(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "link_pb2_grpc", Stubs)
    edge = await start()
    clients = [await edge.connect(f"user-{number}") for number in range(SESSIONS)]
    before, started = len(edge.router.requests), time.monotonic()
    for client in clients:
        await client.say(hello=frames_pb2.Hello(device_id="phone"))
        await asyncio.sleep(WRITING_SECONDS)
    await asyncio.gather(*(client.until("caught_up") for client in clients))
    turns = (time.monotonic() - started) / link.SESSIONS_SECONDS
    asked = [request for request in edge.router.requests[before:] if about_sessions(request)]
    assert sum(len(request.batch.envelopes) for request in asked) == 2 * SESSIONS, "each opens, and syncs"
    assert len(asked) <= 3 + turns + turns * link.SESSIONS_SECONDS / link.ACKNOWLEDGE_SECONDS, (
        "acknowledgements take along what is there"
    )


async def test_in_a_rush_sends_share_requests_and_a_lone_one_goes_at_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "SENDS_RUSH", 100.0)
    monkeypatch.setattr(link, "SENDS_RUSH_SECONDS", 0.1)
    edge = await start()
    alice = await edge.online("alice")
    before = len(edge.router.requests)
    await alice.send("bob", "text", "lone")
    await alice.until("message_stored")
    for number in range(99):
        await alice.send("bob", "text", f"m{number}")
        await asyncio.sleep(0.002)  # they come one by one
    for _ in range(99):
        await alice.until("message_stored")
    asked = [len(request.batch.envelopes) for request in edge.router.requests[before:] if request.batch.envelopes]
    assert (asked[0], sum(asked)) == (1, 100)
    assert len(asked) < 50, "a tenth of a second's worth go together"

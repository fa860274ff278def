"""What the wire tests share."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.sdk.fake_server import FakeServer, running
from tidings_client import Client, ConnectionState, Event, Message

TIMEOUT = 10.0


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    """A fake balancer and edge."""
    async with running() as server:
        yield server


@pytest.fixture
async def other(server: FakeServer) -> AsyncIterator[FakeServer]:
    """Another edge, with the same log; no balancer sends anyone there."""
    async with running(log=server.log) as other:
        yield other


async def begin_to_move(client: Client, server: FakeServer, other: FakeServer) -> None:
    """Be sent on to an edge that doesn't open yet."""
    other.upgrading.clear()
    await client.caught_up()
    server.go_away(0.0, other.edge_url, other.ticket("alice"))
    await other.until(lambda: other.counts["upgrades"] == 1)


async def take(client: Client, count: int) -> list[Message]:
    """The next messages."""
    found: list[Message] = []
    async with asyncio.timeout(TIMEOUT):
        async for message in client.messages():
            found.append(message)
            if len(found) == count:
                break
    return found


async def until(events: "AsyncIterator[Event]", condition: Callable[[Event], bool]) -> Event:
    """The next event that fulfils the condition."""
    async with asyncio.timeout(TIMEOUT):
        async for event in events:
            if condition(event):
                return event
    raise AssertionError("the events ended")


async def until_state(client: Client, state: ConnectionState) -> None:
    """Wait for a connection state."""
    events = client.events()
    if client.state is not state:
        await until(events, lambda event: getattr(event, "state", None) is state)

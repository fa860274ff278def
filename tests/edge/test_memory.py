"""What a session at rest keeps, and that aiohttp keeps nothing of it."""

import asyncio
import gc
import math
import sys
import weakref
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, cast

from aiohttp.web_protocol import RequestHandler

from edge import clockwork
from edge.connection import Connection, Services
from edge.frame_reader import FrameReader
from edge.rules import Rules
from edge.switchboard import Switchboard
from edge.websocket import WebSocketConnection, WebSocketHandler
from tests.edge.conftest import WAIT, Start

OBJECTS = 24  # of ours and of the aiohttp parser, for a session at rest; one more is a reason to think, and to move this number
BYTES = 1_650  # of them
SHARED = (Services, Switchboard, Rules, FrameReader, WebSocketHandler, asyncio.BaseTransport)
NO_STATE = (type, FunctionType, BuiltinFunctionType, ModuleType)


def reached(root: object) -> dict[int, object]:
    """What an object leads to, without what it shares with others by design, by identity."""
    found: dict[int, object] = {}
    left: list[object] = [root]
    while left:
        one = left.pop()
        if id(one) not in found and not isinstance(one, SHARED + NO_STATE):
            found[id(one)] = one
            left += gc.get_referents(one)
    return found


def own(connection: Connection, others: Iterable[Connection]) -> list[object]:
    """What this connection leads to and no other does."""
    mine = reached(connection)
    for other in others:
        for shared in mine.keys() & reached(other).keys():
            del mine[shared]
    return list(mine.values())


def alive(kind: type) -> list[Any]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, kind)]


async def test_a_session_at_rest_is_small(start: Start) -> None:
    before = {id(one) for one in alive(WebSocketConnection)}
    edge = await start()
    for user in ("alice", "bob", "carol"):
        await edge.online(user, f"phone-of-{user}")
    first, *others = (one for one in alive(WebSocketConnection) if id(one) not in before)
    mine = own(first, others)
    names = sorted(f"{type(one).__module__}.{type(one).__qualname__} {sys.getsizeof(one)}" for one in mine)
    assert first in mine, "the walk went through something shared"
    assert len(mine) <= OBJECTS, names
    assert sum(map(sys.getsizeof, mine)) <= BYTES, names


async def test_aiohttp_forgets_an_upgraded_connection(start: Start) -> None:
    before, tasks = len(alive(RequestHandler)), len(asyncio.all_tasks())
    edge = await start()
    started = len(asyncio.all_tasks())
    for user in ("alice", "bob", "carol"):
        await edge.online(user)
    assert len(alive(RequestHandler)) <= before
    assert len(asyncio.all_tasks()) <= started, "no task per session"
    assert started > tasks


async def test_an_ended_session_goes_without_the_collector(start: Start) -> None:
    """Else those who come and go would fill an edge until the collector looks at everything."""
    before, edge = len(alive(WebSocketConnection)), await start()
    clients = [await edge.online(user, "phone") for user in ("alice", "bob")]
    assert len(alive(WebSocketConnection)) == before + 2
    gc.disable()
    try:
        for client in clients:
            await client.socket.close()
        async with asyncio.timeout(WAIT):
            while sum(isinstance(one, WebSocketConnection) for one in gc.get_objects()) > before:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.05)
    finally:
        gc.enable()


class Resting:
    """A connection with nothing to be done about it."""

    session = SimpleNamespace(deadline=math.inf)


class Here:
    """Whom an edge finds when it looks at its sessions; it is told of each look."""

    def __init__(self, *connections: object) -> None:
        self.connections = list(connections)
        self.looks: asyncio.Queue[None] = asyncio.Queue()

    def all(self) -> list[object]:
        self.looks.put_nowait(None)
        return list(self.connections)


async def test_who_has_gone_is_not_held_until_another_comes() -> None:
    """Whoever looks at all sessions by and by keeps none of them, the last one neither."""
    here = Here(Resting())
    last, board = weakref.ref(here.connections[0]), SimpleNamespace(flush=lambda: None)
    looking = asyncio.create_task(clockwork.tick_sessions(cast(Any, here), cast(Any, board), lambda: 0.0, 0.0))
    await here.looks.get()
    here.connections.clear()
    for _ in range(2):  # the second shows that the first is through
        await asyncio.wait_for(here.looks.get(), WAIT)
    assert last() is None
    looking.cancel()

"""Clients that do harm: one that never reads, one that sends nonsense. What they did to others the history shows; what became of
themselves is looked at here.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import psutil

from bench import wire
from tests.faults.stage import Stage
from tests.system.fleet_fixture import HOST
from tidings.client.v1 import frames_pb2 as f
from tidings.common.v1.content_pb2 import Content, Text
from tidings_client import Client, Message

LETTERS = 400  # of LETTER_BYTES each: five times what the outbox holds, and more than the kernel's buffers
LETTER_BYTES = 12_000
GROWN_BYTES = 48 * 1024 * 1024  # one edge's memory, with all the rest of the load; the outbox is 1 MiB
_WAIT_SECONDS = 30.0


@asynccontextmanager
async def never_reading(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """A client is sent five times what its outbox holds, and reads nothing of it. It is closed, and what it missed is there for the
    device that comes back."""
    deaf, friend = (f"{name}-{secrets.token_hex(3)}" for name in ("deaf", "friend"))
    url = stage.fleet.url.split(",")[0]
    before = _memory(stage)
    closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    connection = await _enter(stage, deaf, closed)
    connection.pause()
    beating = asyncio.create_task(_beat(connection))
    async with Client(url, stage.fleet.token(friend), user_id=friend) as client:
        text = "x" * LETTER_BYTES
        sent = [client.send(deaf, f"{number:05} {text}") for number in range(LETTERS)]
        yield
        await asyncio.gather(*(one.stored() for one in sent))
    beating.cancel()
    grown = max(after - before.get(name, after) for name, after in _memory(stage).items())
    assert grown < GROWN_BYTES, f"an edge grew by {grown:,} bytes for one client that does not read"
    slow = sum(stage.fleet.metric(name, "client_errors_total", 'reason="SLOW_CONSUMER"') for name in stage.names("edge"))
    assert slow > 0, "the client that does not read was not closed as SLOW_CONSUMER"
    connection.abort()
    await _read_all(url, stage.fleet.token(deaf), deaf)


@asynccontextmanager
async def poisonous(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """Clients send bytes that are no frames, frames that are no requests, and texts that databases choke on."""

    async def poison() -> None:
        while True:
            with suppress(OSError, wire.HandshakeRefusedError, aiohttp.ClientError):
                await _poison_once(stage, rng)
            await asyncio.sleep(0.1)

    poisoning = [asyncio.create_task(poison()) for _ in range(4)]
    yield
    for task in poisoning:
        task.cancel()
    await asyncio.gather(*poisoning, return_exceptions=True)
    told = sum(stage.fleet.metric(name, "client_errors_total", "reason=") for name in stage.names("edge"))
    assert told > 0, "nobody was told what was wrong"


async def _poison_once(stage: Stage, rng: random.Random) -> None:
    user, closed = f"poison-{rng.randrange(1000)}", asyncio.get_running_loop().create_future()
    connection = await _enter(stage, user, closed)
    for number in range(20):
        connection.send(wire.client_frame(_nonsense(rng, f"p{number}")))
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(closed), 1.0)
    connection.abort()


def _nonsense(rng: random.Random, name: str) -> bytes:
    texts = ["\x00", "\ufffe\uffff", "' OR 1=1; --", "\u202e" * 500, "{}" * 500, "\x00" * 1000 + "x"]
    content = Content(text=Text(text=rng.choice(texts)))
    frames = [
        f.ClientFrame(send_message=f.SendMessage(client_msg_id=name, recipient_id=f"victim-{rng.randrange(5)}", content=content)),
        f.ClientFrame(send_message=f.SendMessage(client_msg_id=name, conversation_id="g" + "0" * 26, content=content)),
        f.ClientFrame(delete_message=f.DeleteMessage(client_msg_id=name, conversation_id="nowhere", target_seq=2**63)),
        f.ClientFrame(),
    ]
    kind = rng.randrange(6)
    return frames[kind].SerializeToString() if kind < len(frames) else rng.randbytes(rng.randrange(1, 200))


async def _enter(stage: Stage, user: str, closed: "asyncio.Future[int]") -> wire.WireConnection:
    """A session that has said Hello, straight to the edge, with little room in between; what it is sent is thrown away."""
    url, token = stage.fleet.url.split(",")[0], stage.fleet.token(user)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/connect", json={}, headers=headers) as answer:
        place = await answer.json()
    edge = next(name for name, proxy in stage.proxies.items() if f":{proxy.port}/" in place["url"])
    at = f"ws://{HOST}:{stage.proxies[edge].target}/v1/ws?ticket={place['ticket']}"
    connection = await wire.connect(at, lambda frame: None, lambda code: _end(closed, code), receive_buffer=4096)
    hello = f.ClientFrame(hello=f.Hello(device_id=f"d-{secrets.token_hex(4)}"))
    connection.send(wire.client_frame(hello.SerializeToString()))
    return connection


def _end(closed: "asyncio.Future[int]", code: int) -> None:
    if not closed.done():
        closed.set_result(code)


async def _beat(connection: wire.WireConnection) -> None:
    """It is alive, and says so."""
    while True:
        connection.send(wire.client_frame(f.ClientFrame(heartbeat=f.Heartbeat()).SerializeToString()))
        await asyncio.sleep(0.5)


async def _read_all(url: str, token: str, user: str) -> None:
    """All that was stored for the client comes once it reads."""
    texts: set[str] = set()
    everything = asyncio.Event()

    def on_message(message: Message) -> None:
        texts.add(message.text[:5])
        if len(texts) == LETTERS:
            everything.set()

    async with Client(url, token, user_id=user) as client:
        client.on(Message, on_message)
        try:
            await asyncio.wait_for(everything.wait(), _WAIT_SECONDS)
        except TimeoutError:
            raise AssertionError(f"only {len(texts)} of {LETTERS} messages came when it read at last") from None


def _memory(stage: Stage) -> dict[str, int]:
    """Resident bytes of each edge."""
    processes = {one.name: one.process for one in stage.fleet.of("edge")}
    return {name: psutil.Process(process.pid).memory_info().rss for name, process in processes.items() if process is not None}

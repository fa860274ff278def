"""An edge on a free port, with fake routers, and a client that speaks frames."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from edge.serve import serve
from edge.settings import EdgeSettings
from mesh.credentials import Identity, TicketIssuer, mint_token
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from tests.edge.fake_router import FakeRouter, World
from tidings.client.v1.frames_pb2 import ClientFrame, Hello, ServerFrame
from tidings.common.v1.instance_pb2 import Instance

SECRET = "a secret of at least thirty-two bytes"
WAIT = 10.0  # seconds a test waits for what must come


def token(user_id: str, lifetime: float = 3600) -> str:
    return mint_token(SECRET, user_id, time.time(), lifetime)


def metric(telemetry: Telemetry, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    text = telemetry.exposition().decode()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name and all(w in line for w in wanted)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Client:
    """One WebSocket that speaks binary frames."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, **fields: Any) -> None:
        await self.socket.send_bytes(ClientFrame(**fields).SerializeToString())

    async def hear(self) -> ServerFrame:
        """The next frame."""
        message = await self.socket.receive(WAIT)
        assert message.type is aiohttp.WSMsgType.BINARY, f"{message} code {self.socket.close_code}"
        return ServerFrame.FromString(message.data)

    async def until(self, arm: str) -> ServerFrame:
        """The next frame with this arm; others are skipped."""
        while True:
            frame = await self.hear()
            if frame.WhichOneof("body") == arm:
                return frame

    async def closed(self) -> int:
        """The close code; frames before it are skipped."""
        while True:
            message = await self.socket.receive(WAIT)
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
                return self.socket.close_code or 0
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message

    async def open(self, device_id: str = "phone", **fields: Any) -> ServerFrame:
        """Say Hello and wait until caught up; gives the welcome."""
        await self.say(hello=Hello(device_id=device_id, **fields))
        welcome = await self.until("welcome")
        await self.until("caught_up")
        return welcome

    async def send(self, to: str, text: str, msg_id: str) -> None:
        frame = ClientFrame()
        frame.send_message.client_msg_id = msg_id
        frame.send_message.content.text.text = text
        if len(to) == 27:
            frame.send_message.conversation_id = to
        else:
            frame.send_message.recipient_id = to
        await self.socket.send_bytes(frame.SerializeToString())


class Edge:
    """An edge under test, its routers, and clients of it."""

    def __init__(self, stack: AsyncExitStack, instance: Instance, routers: list[FakeRouter], parts: "Parts") -> None:
        self.instance = instance
        self.routers = routers
        self.router = routers[0]
        self.world = routers[0].world
        self.telemetry = parts.telemetry
        self.registry = parts.registry
        self.http = parts.http
        self.stop = parts.server.aclose
        self._stack = stack

    @property
    def ws(self) -> str:
        return self.instance.public_url

    @property
    def api(self) -> str:
        return self.instance.public_url.replace("ws", "http", 1)

    def ticket(self, user_id: str) -> str:
        return TicketIssuer(SECRET).issue(Identity(user_id, time.time() + 3600), self.instance.instance_id, time.time()).text

    async def connect(self, user_id: str, **options: Any) -> Client:
        headers = {"Authorization": f"Bearer {token(user_id, options.pop('lifetime', 3600))}"}
        options.setdefault("protocols", ("tidings.v1.proto",))
        path = options.pop("path", "/v1/ws")
        socket = await self.http.ws_connect(self.ws + path, headers=headers, max_msg_size=0, **options)
        self._stack.push_async_callback(_close, socket)
        return Client(socket)

    async def online(self, user_id: str, device_id: str = "phone", **fields: Any) -> Client:
        client = await self.connect(user_id)
        await client.open(device_id, **fields)
        return client

    async def metric(self, name: str, **labels: str) -> float:
        """See `metric`."""
        return metric(self.telemetry, name, **labels)

    async def counted(self, name: str, at_least: float = 1, **labels: str) -> None:
        """Wait until a metric shows so many."""
        async with asyncio.timeout(WAIT):
            while await self.metric(name, **labels) < at_least:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # metrics are read by polling, as Prometheus does


async def _close(socket: aiohttp.ClientWebSocketResponse) -> None:
    await asyncio.wait_for(socket.close(), 5)


class Parts:
    def __init__(self, registry: MemoryRegistry, telemetry: Telemetry, http: aiohttp.ClientSession, server: AsyncExitStack) -> None:
        self.server = server
        self.registry = registry
        self.telemetry = telemetry
        self.http = http


Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts an edge: `await start(routers=2, heartbeat_seconds=1, …)`."""
    async with AsyncExitStack() as stack:

        async def begin(routers: int = 1, **settings: Any) -> Edge:
            return await stack.enter_async_context(running(routers, **settings))

        yield begin


@asynccontextmanager
async def running(routers: int, **settings: Any) -> AsyncIterator[Edge]:
    registry, telemetry = MemoryRegistry(), Telemetry("test")
    trusting = settings.pop("wait_ready", None)
    telemetry._tracing = settings.pop("traced", False)  # without an exporter, which would need someone to export to
    options: dict[str, Any] = {
        "port": 0,
        "token_secret": SecretStr(SECRET),
        "ticket_secret": SecretStr(SECRET),
        "drain_seconds": 0.0,
        **settings,
    }
    world = World()
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.close)
        fakes = [await stack.enter_async_context(FakeRouter.serve(world, registry, telemetry)) for _ in range(routers)]
        server = await stack.enter_async_context(AsyncExitStack())
        instance = await server.enter_async_context(serve(EdgeSettings(**options), registry, telemetry))
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        edge = Edge(stack, instance, fakes, Parts(registry, telemetry, http, server))
        for fake in fakes:
            await fake.saw(lambda router: any(request.processed_sequence for request in router.requests))  # its link is live
        async with asyncio.timeout(WAIT):
            while (await (trusting or http).get(edge.api + "/readyz")).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # /readyz is read by polling
        yield edge

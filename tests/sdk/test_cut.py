"""What counts as a cut: the end, without a code of ours, of a connection whose server had spoken."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tidings.client.v1 import frames_pb2 as pb
from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.common.v1 import error_pb2
from tidings_client.transport import ConnectionEnded, open_websocket

Ending = Callable[[web.WebSocketResponse, web.Request], Any]


async def abort(_: web.WebSocketResponse, request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


ENDINGS: dict[str, tuple[bool, Ending]] = {
    "a reset": (True, abort),
    "closed": (True, lambda socket, _: socket.close()),
    "closed by a proxy that leaves": (True, lambda socket, _: socket.close(code=1001)),
    "closed with a code of ours": (False, lambda socket, _: socket.close(code=error_pb2.ERROR_CODE_SLOW_CONSUMER)),
    "text": (False, lambda socket, _: socket.send_str("{}")),
    "no frame": (False, lambda socket, _: socket.send_bytes(b"\xff")),
    "too large": (False, lambda socket, _: socket.send_bytes(bytes(2_000))),
}


@asynccontextmanager
async def ending_with(end: Ending, *, spoke: bool) -> AsyncIterator[str]:
    """The URL of WebSockets that end so, with one frame before if they `spoke`."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["tidings.v1.proto"], timeout=0.1)
        await socket.prepare(request)
        if spoke:
            await socket.send_bytes(ServerFrame(heartbeat=pb.Heartbeat()).SerializeToString())
        await end(socket, request)
        await socket.receive()
        return socket

    app = web.Application()
    app.router.add_get("/v1/ws", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/v1/ws"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("spoke", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_only_the_end_of_a_connection_that_had_spoken_is_a_cut(
    ending: str, spoke: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_client.transport.MAX_MESSAGE_BYTES", 1_000)
    cut, end = ENDINGS[ending]

    async with ending_with(end, spoke=spoke) as url, aiohttp.ClientSession() as http:
        transport = await open_websocket(http, url, "ticket")
        if spoke:
            await transport.receive()
        with pytest.raises(ConnectionEnded) as ended:
            await transport.receive()
        await transport.close()
        assert ended.value.ended.cut == (url if spoke and cut else "")


async def test_a_reset_that_sending_finds_is_a_cut() -> None:
    async with ending_with(abort, spoke=True) as url, aiohttp.ClientSession() as http:
        transport = await open_websocket(http, url, "ticket")
        await transport.receive()
        with pytest.raises(ConnectionEnded) as ended:
            while True:
                await transport.send([ClientFrame()])
                await asyncio.sleep(0)  # sending alone never lets the loop hear of the reset
        await transport.close()
        assert ended.value.ended.cut == url

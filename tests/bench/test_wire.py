"""The raw client speaks WebSocket as aiohttp does, and the hand-made frames are what protobuf makes of the same message."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from aiohttp import WSMsgType, web
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.frames import MessageMould, text_of
from bench.wire import SUBPROTOCOL, HandshakeRefusedError, WireConnection, client_frame, connect
from mesh.naming import direct_conversation_id
from mesh.telemetry import listen
from tidings.client.v1.frames_pb2 import ClientFrame

CHAT = direct_conversation_id("a", "b")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=[SUBPROTOCOL], max_msg_size=1 << 24, compress=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data == b"close me":
                await socket.close(code=4501)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/ws", echo)
    async with listen(app, "127.0.0.1", 0) as port:
        yield port


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 300_000])
async def test_frames_of_every_length_come_back(port: int, size: int) -> None:
    frames: asyncio.Queue[bytes] = asyncio.Queue()
    connection = await connect(f"ws://127.0.0.1:{port}/ws?x=1", frames.put_nowait, lambda code: None)
    connection.send(client_frame(b"\x07" * size) + client_frame(b"after"))
    assert await asyncio.wait_for(frames.get(), 5) == b"\x07" * size
    assert await asyncio.wait_for(frames.get(), 5) == b"after"
    connection.close()


async def test_the_close_code_is_told(port: int) -> None:
    closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    connection = await connect(f"ws://127.0.0.1:{port}/ws", lambda frame: None, closed.set_result)
    connection.send(client_frame(b"close me"))
    assert await asyncio.wait_for(closed, 5) == 4501


async def test_a_refused_handshake_says_so(port: int) -> None:
    with pytest.raises(HandshakeRefusedError, match="404"):
        await connect(f"ws://127.0.0.1:{port}/elsewhere", lambda frame: None, lambda code: None)


@settings(deadline=None)
@given(payloads=st.lists(st.binary(max_size=300), max_size=8), cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_it_does_not_matter_how_the_bytes_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"HTTP/1.1 101 ok\r\n" + b"X: y\r\n" * 20 + b"\r\n" + b"".join(_server_frame(payload) for payload in payloads)
    got: list[bytes] = []

    async def feed() -> None:
        connection = WireConnection(b"", got.append, lambda code: None)
        places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
        for start, end in itertools.pairwise(places):
            connection.data_received(stream[start:end])

    asyncio.run(feed())
    assert got == payloads


@given(number=st.integers(0, 10**12 - 1), size=st.integers(1, 5000))
def test_a_moulded_message_is_the_message(number: int, size: int) -> None:
    frame = ClientFrame.FromString(_payload(MessageMould(CHAT, size).frame(number)))
    assert frame.send_message.client_msg_id == f"{number:012d}"
    assert frame.send_message.conversation_id == CHAT
    assert frame.send_message.content.text.text == text_of(size)
    assert len(text_of(size)) == size


def test_a_greeting_names_the_user() -> None:
    frame = ClientFrame.FromString(_payload(MessageMould("bob", 120, recipient=True).frame(7)))
    assert frame.send_message.recipient_id == "bob"


def _payload(frame: bytes) -> bytes:
    length = frame[1] & 0x7F
    return frame[6:] if length < 126 else frame[8:] if length == 126 else frame[14:]


def _server_frame(payload: bytes) -> bytes:
    frame = client_frame(payload)
    head = bytes([frame[0], frame[1] & 0x7F])
    return head + frame[2 : 2 + (2 if head[1] == 126 else 0)] + payload

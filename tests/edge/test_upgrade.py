"""A WebSocket as bytes: what comes with the handshake, in pieces, as control frames; and that connections don't mix."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypothesis import given
from hypothesis import strategies as st

from bench.wire import client_frame
from edge.frame_reader import FrameReader
from tests.edge.conftest import WAIT, Edge, Start, token
from tidings.client.v1 import frames_pb2 as f

HELLO = client_frame(f.ClientFrame(hello=f.Hello(device_id="phone")).SerializeToString())
PING, PONG, CLOSE = 0x9, 0xA, 0x8


def handshake(user: str) -> bytes:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    lines = [
        "GET /v1/ws HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: tidings.v1.proto",
        f"Authorization: Bearer {token(user)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Raw:
    """A client of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def answer(self) -> str:
        """The answer to the handshake."""
        return (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), WAIT)).decode()

    async def frame(self) -> tuple[int, bytes]:
        """The next frame's opcode and payload; all are short here."""
        first, size = await asyncio.wait_for(self._reader.readexactly(2), WAIT)
        if size == 126:
            size = int.from_bytes(await self._reader.readexactly(2), "big")
        return first & 0xF, await self._reader.readexactly(size)

    async def until(self, arm: str) -> None:
        while f.ServerFrame.FromString((await self.frame())[1]).WhichOneof("body") != arm:
            pass

    async def ended(self) -> bool:
        return await asyncio.wait_for(self._reader.read(1), WAIT) == b""


@asynccontextmanager
async def raw(edge: Edge) -> AsyncIterator[Raw]:
    host, _, port = edge.api.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    yield Raw(reader, writer)
    writer.close()


async def test_the_handshake_is_answered_as_the_rfc_has_it(start: Start) -> None:
    edge = await start()
    async with raw(edge) as client:
        client.writer.write(handshake("alice"))
        answer = await client.answer()
    assert answer.startswith("HTTP/1.1 101 ")
    headers = answer.lower()
    assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in headers  # of RFC 6455 section 1.3
    assert "sec-websocket-protocol: tidings.v1.proto" in headers
    assert "upgrade: websocket" in headers
    assert "connection: upgrade" in headers


async def test_what_comes_with_the_handshake_is_heard(start: Start) -> None:
    edge = await start()
    async with raw(edge) as client:
        client.writer.write(handshake("alice") + HELLO[:7])  # too early, and only half of it
        await client.answer()
        client.writer.write(HELLO[7:])
        await client.until("caught_up")


async def test_pings_are_answered_and_a_close_too(start: Start) -> None:
    edge = await start()
    async with raw(edge) as client:
        client.writer.write(handshake("alice") + HELLO)
        await client.answer()
        await client.until("caught_up")
        client.writer.write(client_frame(b"are you there", PING) + client_frame(b"", PONG))
        assert await client.frame() == (PONG, b"are you there")
        client.writer.write(client_frame((1000).to_bytes(2, "big"), CLOSE) + client_frame(b"said after the close"))
        assert (await client.frame())[0] == CLOSE
        assert await client.ended()
    await edge.router.saw(lambda router: any(request.batch.closed_user_ordinals for request in router.requests))


async def test_who_hangs_up_without_a_close_is_gone(start: Start) -> None:
    edge = await start()
    async with raw(edge) as client:
        client.writer.write(handshake("alice") + HELLO)
        await client.answer()
        await client.until("caught_up")
    await edge.router.saw(lambda router: any(request.batch.closed_user_ordinals for request in router.requests))


async def test_an_edge_that_ends_cuts_off_who_does_not_answer_its_close(start: Start) -> None:
    edge = await start()
    async with raw(edge) as client:
        client.writer.write(handshake("alice") + HELLO)
        await client.answer()
        await client.until("caught_up")
        stopping = asyncio.create_task(edge.stop())
        while (await client.frame())[0] != CLOSE:
            pass
        assert await client.ended()
        await stopping


@given(messages=st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=12), size=st.integers(1, 50))
def test_connections_that_share_a_reader_do_not_mix(messages: list[tuple[bool, bytes]], size: int) -> None:
    """Two clients' messages, read in pieces by turns, come out as each client's own."""
    reader = FrameReader(1000)
    parsers = {one: reader.parser() for one in (False, True)}
    left = {one: b"".join(client_frame(payload) for who, payload in messages if who is one) for one in parsers}
    heard: dict[bool, list[bytes]] = {one: [] for one in parsers}
    while any(left.values()):
        for one, parser in parsers.items():
            found, failure = reader.read(parser, left[one][:size])
            left[one] = left[one][size:]
            heard[one] += [message.data for message in found]
            assert failure is None
    assert heard == {one: [payload for who, payload in messages if who is one] for one in parsers}


def test_a_failure_is_its_connections_own() -> None:
    reader = FrameReader(1000)
    good, bad = reader.parser(), reader.parser()
    assert reader.read(bad, client_frame(b"fine") + client_frame(b"x" * 1001))[1] == 1009
    assert reader.read(bad, client_frame(b"fine")) == ([], None), "after a failure it gives nothing more"
    assert [message.data for message in reader.read(good, client_frame(b"x" * 1000))[0]] == [b"x" * 1000]


async def test_who_leaves_during_the_upgrade_is_no_fault_of_ours(start: Start) -> None:
    edge = await start()
    host, port = edge.api.removeprefix("http://").split(":")
    for _ in range(20):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(handshake("alice"))
        writer.transport.abort()
    await edge.online("bob")  # served in turn: the others were before
    assert await edge.metric("client_errors_total", reason="INTERNAL") == 0

"""The proxy passes everything when whole, and fails in the way it says it does."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tests.system.proxy import CLEAR, CUT, Proxy, Weather, open_proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, open_proxy(random.Random(1)) as proxy:
        proxy.target = server.sockets[0].getsockname()[1]
        yield proxy


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
    return reader, writer


async def test_whole_it_passes_both_ways_and_the_end(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_an_abort_is_a_reset(proxy: Proxy) -> None:
    reader, _ = await connect(proxy)
    proxy.fail_all()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)


async def test_a_half_close_ends_one_direction(proxy: Proxy) -> None:
    reader, _ = await connect(proxy)
    proxy._half_close(proxy._pairs[0])
    assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_black_hole_swallows_until_healed(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    proxy._black_hole(proxy._pairs[0])
    writer.write(b"lost")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), 5)


async def test_without_a_target_nobody_gets_in(proxy: Proxy) -> None:
    proxy.target = 0
    with pytest.raises(OSError):
        await connect(proxy)


async def test_random_faults_are_counted_and_harm_only_connections(proxy: Proxy) -> None:
    for _ in range(20):
        await connect(proxy)
    for _ in range(10):
        proxy.fail_one()
    assert sum(proxy.faults.values()) == 10
    await connect(proxy)


async def test_what_is_held_one_way_comes_later_and_the_other_way_passes(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    proxy.weather(CLEAR, CUT)
    writer.write(b"later")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    assert proxy.passed == 5 + 5 + 5, "hello went up and down, and `later` went up"
    proxy.clear()
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"later"


async def test_a_cut_that_is_forgotten_ends_in_a_reset(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    proxy.weather(CUT, CUT)
    writer.write(b"lost")
    proxy.clear(reset=True)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), 5)


async def test_slices_and_delays_change_nothing_but_the_time(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    proxy.weather(Weather(delay=0.01, piece=2), Weather(piece=3))
    began = asyncio.get_running_loop().time()
    writer.write(b"a longer word")
    assert await asyncio.wait_for(reader.readexactly(13), 5) == b"a longer word"
    assert asyncio.get_running_loop().time() - began >= 7 * 0.01


async def test_weather_over_one_dialer_spares_the_others(proxy: Proxy) -> None:
    names = iter(["edge-1", "scheduler-1"])
    proxy.dialer = lambda port: next(names)
    edge, _ = await connect(proxy), await connect(proxy)
    proxy.weather(CUT, CUT, "edge")
    edge[1].write(b"lost?")
    await connect_as(proxy, "scheduler-2")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(edge[0].read(1), 0.1)


async def connect_as(proxy: Proxy, name: str) -> None:
    proxy.dialer = lambda port: name
    await connect(proxy)

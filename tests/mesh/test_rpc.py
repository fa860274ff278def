"""One way to serve and one way to call: deadlines, health, traces, counting, stopping."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from mesh import errors, rpc
from mesh.business import BusinessDoor, BusinessSettings
from mesh.telemetry import Telemetry
from tidings.balancer.v1 import balancer_pb2, balancer_pb2_grpc
from tidings.common.v1 import error_pb2
from tidings_client.business_calls import BusinessChannel
from tidings_client.errors import BusinessError

SERVICE = "tidings.test.Echo"
ROUNDING = 0.2  # gRPC sends a deadline with few digits, rounded up
Method = Callable[[bytes, Any], Awaitable[bytes]]


@asynccontextmanager
async def echo(method: Method, telemetry: Telemetry, drain_seconds: float = 5) -> AsyncIterator[str]:
    """A server of one method; gives its address."""
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Echo": grpc.unary_unary_rpc_method_handler(method)})
    add = {SERVICE: lambda server: server.add_generic_rpc_handlers((handler,))}
    async with rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=drain_seconds) as port:
        yield f"127.0.0.1:{port}"


def call(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(f"/{SERVICE}/Echo")


async def test_deadlines_shrink_from_hop_to_hop(telemetry: Telemetry) -> None:
    async def innermost(_: bytes, context: Any) -> bytes:
        return str(context.time_remaining()).encode()

    async with echo(innermost, telemetry) as address, rpc.channel(address, telemetry) as inner:

        async def outer(request: bytes, context: Any) -> bytes:
            here = context.time_remaining()
            there = await call(inner)(request)
            return f"{here} {there.decode()}".encode()

        async with echo(outer, telemetry) as front, rpc.channel(front, telemetry) as channel:
            here, there = map(float, (await call(channel)(b"", timeout=9.0)).split())
            assert there < here * 0.9 + ROUNDING
            assert there > here * 0.9 - 5
            here, there = map(float, (await call(channel)(b"")).split())
            assert 5 < here < 10 + ROUNDING, "no call goes without a deadline"
            assert there < here * 0.9 + ROUNDING


async def test_a_callers_own_shorter_limit_stands(telemetry: Telemetry) -> None:
    async def left(_: bytes, context: Any) -> bytes:
        return str(context.time_remaining()).encode()

    async with echo(left, telemetry) as address, rpc.channel(address, telemetry) as channel:
        assert float(await call(channel)(b"", timeout=5.0)) < 5.0 + ROUNDING
    assert rpc.remaining(3.0) == 3.0


async def test_a_call_that_outlasts_its_deadline_is_unavailable_in_time(telemetry: Telemetry) -> None:
    async def never(_: bytes, __: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with echo(never, telemetry, drain_seconds=0) as address, rpc.channel(address, telemetry) as channel:
        before = time.monotonic()
        with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
            await call(channel)(b"", timeout=0.1)
        assert raised.value.code == error_pb2.ERROR_CODE_UNAVAILABLE
        assert "DEADLINE_EXCEEDED" in raised.value.message
        assert time.monotonic() - before < 5


async def test_an_inner_error_reaches_the_outer_caller_by_its_name(telemetry: Telemetry) -> None:
    async def refusing(_: bytes, __: Any) -> bytes:
        raise errors.rate_limited(1.5)

    async with echo(refusing, telemetry) as address, rpc.channel(address, telemetry) as inner:

        async def outer(request: bytes, _: Any) -> bytes:
            with rpc.named_errors():
                return bytes(await call(inner)(request))

        async with echo(outer, telemetry) as front, rpc.channel(front, telemetry) as channel:
            with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
                await call(channel)(b"")
    assert (raised.value.code, raised.value.retry_after) == (error_pb2.ERROR_CODE_RATE_LIMITED, 1.5)


async def test_health_says_serving_for_the_server_and_each_service(telemetry: Telemetry) -> None:
    async def method(request: bytes, _: Any) -> bytes:
        return request

    async with echo(method, telemetry) as address, rpc.channel(address, telemetry) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stopping_server_says_so_and_lets_calls_under_way_finish(telemetry: Telemetry) -> None:
    entered, finish = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, _: Any) -> bytes:
        entered.set()
        await finish.wait()
        return request

    async with rpc_channel_of(slow, telemetry) as (channel, stop):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        under_way = asyncio.ensure_future(call(channel)(b"kept"))
        await entered.wait()
        stopping = asyncio.create_task(stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not stopping.done()
        finish.set()
        assert await under_way == b"kept"
        watch.cancel()
        await asyncio.wait_for(stopping, 5)
        with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
            await call(channel)(b"", timeout=1)
        assert raised.value.code == error_pb2.ERROR_CODE_UNAVAILABLE


@asynccontextmanager
async def rpc_channel_of(
    method: Method, telemetry: Telemetry
) -> AsyncIterator[tuple[grpc.aio.Channel, Callable[[], Coroutine[Any, Any, None]]]]:
    """A channel to a server that the test stops itself."""
    serving = echo(method, telemetry)
    address = await serving.__aenter__()

    async def stop() -> None:
        await serving.__aexit__(None, None, None)

    async with rpc.channel(address, telemetry) as channel:
        yield channel, stop


async def test_calls_that_outlast_the_drain_are_ended(telemetry: Telemetry) -> None:
    entered = asyncio.Event()

    async def never(_: bytes, __: Any) -> bytes:
        entered.set()
        await asyncio.Event().wait()
        return b""

    async with asyncio.timeout(10):
        async with echo(never, telemetry, drain_seconds=0.05) as address:
            channel = rpc.channel(address, telemetry)
            under_way = asyncio.ensure_future(call(channel)(b""))
            await entered.wait()
        with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
            await under_way
        await channel.close()
    assert raised.value.code == error_pb2.ERROR_CODE_UNAVAILABLE


async def test_calls_are_counted_by_method_and_outcome(telemetry: Telemetry) -> None:
    async def sometimes(request: bytes, _: Any) -> bytes:
        if request == b"bad":
            raise errors.last_owner()
        return request

    async with echo(sometimes, telemetry) as address, rpc.channel(address, telemetry) as channel:
        await call(channel)(b"good")
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError):
                await call(channel)(b"bad")
    text = telemetry.exposition().decode()
    assert f'rpc_server_duration_seconds_count{{method="/{SERVICE}/Echo",outcome="OK"}} 1.0' in text
    assert f'rpc_server_duration_seconds_count{{method="/{SERVICE}/Echo",outcome="LAST_OWNER"}} 2.0' in text


async def test_a_message_of_the_size_limit_crosses_and_a_larger_one_is_refused(telemetry: Telemetry) -> None:
    async def length(request: bytes, _: Any) -> bytes:
        return str(len(request)).encode()

    async with echo(length, telemetry) as address, rpc.channel(address, telemetry) as channel:
        assert await call(channel)(bytes(rpc.MAX_MESSAGE_BYTES)) == str(rpc.MAX_MESSAGE_BYTES).encode()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(channel)(bytes(rpc.MAX_MESSAGE_BYTES + 1))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_two_servers_never_share_a_port(telemetry: Telemetry) -> None:
    async def method(request: bytes, _: Any) -> bytes:
        return request

    async with echo(method, telemetry) as address:
        with pytest.raises(RuntimeError):
            async with rpc.serve(address, {}, telemetry, reflect=False, drain_seconds=0):
                pass


async def test_reflection_lists_the_services_when_asked_for(telemetry: Telemetry) -> None:
    class Nothing(balancer_pb2_grpc.BalancerServiceServicer):
        """Every method is still missing."""

        def ReportLoad(self, request_iterator: Any, context: Any) -> Any: ...

        def ListEdges(self, request: Any, context: Any) -> Any: ...

        def DrainEdge(self, request: Any, context: Any) -> Any: ...

        def Rebalance(self, request: Any, context: Any) -> Any: ...

        def ListSessions(self, request: Any, context: Any) -> Any: ...

    name = balancer_pb2.DESCRIPTOR.services_by_name["BalancerService"].full_name
    add = {name: lambda server: balancer_pb2_grpc.add_BalancerServiceServicer_to_server(Nothing(), server)}
    async with rpc.serve("127.0.0.1:0", add, telemetry, reflect=True, drain_seconds=0) as port:
        assert name in await asyncio.to_thread(listed, f"127.0.0.1:{port}")


def listed(address: str) -> list[str]:
    """What a tool outside sees."""
    with grpc.insecure_channel(address) as channel:
        return list(ProtoReflectionDescriptorDatabase(channel).get_services())


async def test_an_idle_stream_outlives_its_keepalive(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server must allow the pings our channels send: one that thinks them too many ends the connection at the third."""
    tenth = {"grpc.http2.min_ping_interval_without_data_ms": 500, "grpc.keepalive_time_ms": 1_000}
    for name in ("_SERVER_OPTIONS", "_CHANNEL_OPTIONS"):
        monkeypatch.setattr(rpc, name, [(option, tenth.get(option, value)) for option, value in getattr(rpc, name)])
    async with (
        rpc.serve("127.0.0.1:0", {}, telemetry, reflect=False, drain_seconds=0) as port,
        rpc.channel(f"127.0.0.1:{port}", telemetry) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        ended = asyncio.ensure_future(watch.read())
        done, _ = await asyncio.wait({ended}, timeout=5)
        assert not done
        watch.cancel()
        await asyncio.gather(ended, return_exceptions=True)


@asynccontextmanager
async def streaming(method: Any, telemetry: Telemetry) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of one method handler."""
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Stream": method})
    add = {SERVICE: lambda server: server.add_generic_rpc_handlers((handler,))}
    async with (
        rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=0.1) as port,
        rpc.channel(f"127.0.0.1:{port}", telemetry) as channel,
    ):
        yield channel


async def generated(_: Any, __: Any) -> AsyncIterator[bytes]:
    """One response, then an error; written as a generator."""
    yield b"one"
    raise errors.snapshot_gone(3, 4, 5)


async def written(_: Any, context: Any) -> None:
    """The same, written as a coroutine."""
    await context.write(b"one")
    raise errors.snapshot_gone(3, 4, 5)


async def unforeseen(_: Any, __: Any) -> AsyncIterator[bytes]:
    """One response, then a fault of ours."""
    yield b"one"
    raise KeyError("secret")


STREAMS: dict[str, tuple[Any, Any, str]] = {
    "generated": (grpc.unary_stream_rpc_method_handler, generated, "SNAPSHOT_GONE"),
    "written": (grpc.unary_stream_rpc_method_handler, written, "SNAPSHOT_GONE"),
    "unforeseen": (grpc.unary_stream_rpc_method_handler, unforeseen, "INTERNAL"),
    "both ways, generated": (grpc.stream_stream_rpc_method_handler, generated, "SNAPSHOT_GONE"),
    "both ways, written": (grpc.stream_stream_rpc_method_handler, written, "SNAPSHOT_GONE"),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_ends_with_the_named_error_after_what_came_before_it(telemetry: Telemetry, name: str) -> None:
    make, method, reason = STREAMS[name]
    async with streaming(make(method), telemetry) as channel:
        opened: Any = channel.stream_stream if make is grpc.stream_stream_rpc_method_handler else channel.unary_stream
        requests = () if make is grpc.stream_stream_rpc_method_handler else (b"",)
        under_way = opened(f"/{SERVICE}/Stream")(*requests)
        assert await under_way.read() == b"one"
        with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
            await under_way.read()
    assert raised.value.reason == reason
    assert "secret" not in raised.value.message


async def test_a_stream_of_requests_fails_with_the_named_error(telemetry: Telemetry) -> None:
    async def collected(requests: AsyncIterator[bytes], _: Any) -> bytes:
        async for request in requests:
            raise errors.invalid_field("chunk", request.decode())
        return b""

    async with streaming(grpc.stream_unary_rpc_method_handler(collected), telemetry) as channel:
        opened: Any = channel.stream_unary(f"/{SERVICE}/Stream")
        under_way = opened()
        await under_way.write(b"too short to be one")
        with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
            await under_way
    assert (raised.value.reason, raised.value.field) == ("INVALID_FIELD", "chunk")
    assert raised.value.message == "chunk: too short to be one"


async def test_a_caller_that_leaves_a_stream_ends_its_method_there(telemetry: Telemetry) -> None:
    ended = asyncio.Event()

    async def endless(_: bytes, __: Any) -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with streaming(grpc.unary_stream_rpc_method_handler(endless), telemetry) as channel:
        opened: Any = channel.unary_stream(f"/{SERVICE}/Stream")
        under_way = opened(b"")
        assert await under_way.read() == b"one"
        under_way.cancel()
        await asyncio.wait_for(ended.wait(), 10)


PARSED = error_pb2.Error.FromString
GARBAGE = b"\xff\xff\xff"


async def _accept(_: Any, __: Any) -> bytes:
    return b"fine"


async def _accept_as_stream(_: Any, __: Any) -> AsyncIterator[bytes]:
    yield b"fine"


async def _accept_many(requests: AsyncIterator[Any], _: Any) -> bytes:
    return str(len([request async for request in requests])).encode()


async def _echo_many(requests: AsyncIterator[Any], _: Any) -> AsyncIterator[bytes]:
    async for _request in requests:
        yield b"fine"


KINDS: dict[str, tuple[Any, Any, Any]] = {
    "unary_unary": (grpc.unary_unary_rpc_method_handler, _accept, GARBAGE),
    "unary_stream": (grpc.unary_stream_rpc_method_handler, _accept_as_stream, GARBAGE),
    "stream_unary": (grpc.stream_unary_rpc_method_handler, _accept_many, [error_pb2.Error().SerializeToString(), GARBAGE]),
    "stream_stream": (grpc.stream_stream_rpc_method_handler, _echo_many, [error_pb2.Error().SerializeToString(), GARBAGE]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("allowed", [True, False])
async def test_bytes_that_are_no_message_are_refused_by_name_after_the_door(
    telemetry: Telemetry, kind: str, allowed: bool, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    make, method, sent = KINDS[kind]
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Take": make(method, request_deserializer=PARSED)})
    add = {SERVICE: lambda server: server.add_generic_rpc_handlers((handler,))}
    door = BusinessDoor(BusinessSettings(allowed_networks=["127.0.0.0/8"] if allowed else ["10.0.0.0/8"]))
    async with (
        rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=0.1, door=door) as port,
        # grpc.aio itself now and then loses the status of a stream refused while it writes; this channel asks for it again.
        BusinessChannel(rpc.channel(f"127.0.0.1:{port}", telemetry), "", (), 10.0) as channel,
    ):
        opened: Any = getattr(channel, kind)(f"/{SERVICE}/Take")
        with pytest.raises(BusinessError) as raised:
            if kind.endswith("stream"):
                [_ async for _ in opened(sent)]
            else:
                await opened(sent)
    assert (raised.value.reason, raised.value.field) == (("INVALID_FIELD", "request") if allowed else ("NETWORK_REFUSED", ""))
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err + caplog.text

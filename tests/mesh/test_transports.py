"""One table of behaviours for both transports, gRPC and within one process: whoever calls or serves can't tell which it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh import bulkhead, errors, rpc
from mesh.business import BusinessDoor, BusinessSettings
from mesh.local_channel import LocalChannel
from mesh.local_server import LocalServers
from mesh.telemetry import Telemetry
from tidings.common.v1 import error_pb2

SERVICE = "tidings.test.Transport"
LARGE = bytes(1024 * 1024)  # more than any transport holds for a reader that doesn't read, when there are many
SOON = 10  # seconds, of what should happen at once
Connect = Callable[..., Any]
KINDS: dict[str, Any] = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


class Wire:
    """A server of one method, and a channel to it."""

    def __init__(self, channel: grpc.aio.Channel, port: int, kind: str, stop: Callable[[], Awaitable[None]]) -> None:
        self.channel = channel
        self.port = port
        self.stop = stop
        self._kind = kind

    def method(self, name: str = "Method", **codec: Any) -> Any:
        """The method, to be called."""
        return getattr(self.channel, self._kind)(f"/{SERVICE}/{name}", **codec)


@pytest.fixture(params=["grpc", "local"])
def connect(request: pytest.FixtureRequest, telemetry: Telemetry) -> Connect:
    """Opens a `Wire` of the transport to a method of a kind."""
    local = LocalServers() if request.param == "local" else None

    @asynccontextmanager
    async def connected(
        kind: str, method: Any, door: BusinessDoor | None = None, drain_seconds: float = 0.05, **codec: Any
    ) -> AsyncIterator[Wire]:
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Method": KINDS[kind](method, **codec)})
        add = {SERVICE: lambda server: server.add_generic_rpc_handlers((handler,))}
        serving = rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=drain_seconds, door=door, local=local)
        async with AsyncExitStack() as stack, asyncio.timeout(6 * SOON):
            server = await stack.enter_async_context(AsyncExitStack())
            port = await server.enter_async_context(serving)
            channel = await stack.enter_async_context(rpc.channel(f"127.0.0.1:{port}", telemetry, local=local))
            assert isinstance(channel, LocalChannel) == (local is not None)
            yield Wire(channel, port, kind, server.aclose)

    return connected


async def echo(request: bytes, _: Any) -> bytes:
    """What was asked."""
    return request


async def echo_many(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    """What was asked, one by one."""
    async for request in requests:
        yield request


async def test_one_is_asked_and_answered(connect: Connect) -> None:
    async with connect("unary_unary", echo) as wire:
        call = wire.method()(b"hello")
        assert await call == b"hello"
        assert (await call.code(), call.done(), call.cancelled()) == (grpc.StatusCode.OK, True, False)


async def test_an_error_comes_with_all_it_says(connect: Connect) -> None:
    async def refuse(_: bytes, __: Any) -> bytes:
        raise errors.overloaded(1.5, "the queue")

    async with connect("unary_unary", refuse) as wire:
        with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
            await wire.method()(b"")
    assert (raised.value.reason, raised.value.retry_after) == ("OVERLOADED", 1.5)
    assert "the queue" in raised.value.message


async def test_an_unforeseen_fault_is_internal_and_keeps_its_words_to_itself(connect: Connect) -> None:
    async def fail(_: bytes, __: Any) -> bytes:
        raise KeyError("secret")

    async with connect("unary_unary", fail) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await wire.method()(b"")
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(raised.value.details())


async def test_an_unknown_method_is_unimplemented(connect: Connect) -> None:
    async with connect("unary_unary", echo) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await wire.method("Other")(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_that_is_too_large_is_refused(connect: Connect) -> None:
    async with connect("unary_unary", echo) as wire:
        assert len(await wire.method()(bytes(rpc.MAX_MESSAGE_BYTES))) == rpc.MAX_MESSAGE_BYTES
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await wire.method()(bytes(rpc.MAX_MESSAGE_BYTES + 1))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


class Never:
    """A method of any kind that never ends by itself, and says how it did."""

    def __init__(self) -> None:
        self.entered, self.ended = asyncio.Event(), asyncio.Event()
        self.left: float | None = None

    async def serve(self, _: Any, context: Any) -> Any:
        """Wait until cancelled."""
        self.left = context.time_remaining()
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def test_a_deadline_ends_the_call_at_both_ends(connect: Connect) -> None:
    never = Never()
    async with connect("unary_unary", never.serve) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await wire.method()(b"", timeout=0.1)
        await asyncio.wait_for(never.ended.wait(), SOON)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert never.left is not None
    assert never.left < 0.3


async def test_a_deadline_ends_a_stream(connect: Connect) -> None:
    never = Never()
    async with connect("stream_stream", never.serve) as wire:
        call = wire.method()(timeout=0.1)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        await asyncio.wait_for(never.ended.wait(), SOON)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_stream_without_a_deadline_has_none(connect: Connect) -> None:
    never = Never()
    async with connect("stream_stream", never.serve) as wire:
        call = wire.method()()
        await asyncio.wait_for(never.entered.wait(), SOON)
        call.cancel()
    assert never.left is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_that_cancels_ends_the_method(connect: Connect, kind: str) -> None:
    never = Never()
    async with connect(kind, never.serve) as wire:
        call = wire.method()(*([] if kind.startswith("stream") else [b""]))
        waiting = asyncio.ensure_future(call.read() if kind.endswith("stream") else call)
        await asyncio.wait_for(never.entered.wait(), SOON)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(never.ended.wait(), SOON)
        assert (call.cancelled(), call.done(), call.cancel()) == (True, True, False)
        assert await call.code() is grpc.StatusCode.CANCELLED


async def test_a_reader_that_is_cancelled_cancels_the_call(connect: Connect) -> None:
    never = Never()
    async with connect("stream_stream", never.serve) as wire:
        call = wire.method()()
        reading = asyncio.create_task(call.read())
        await asyncio.wait_for(never.entered.wait(), SOON)
        reading.cancel()
        await asyncio.wait_for(never.ended.wait(), SOON)
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"")


async def test_both_sides_speak_in_turn_until_the_caller_has_said_all(connect: Connect) -> None:
    async with connect("stream_stream", echo_many) as wire:
        call = wire.method()()
        for n in range(100):
            await call.write(b"%d" % n)
            assert await call.read() == b"%d" % n
        await call.done_writing()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"")


async def test_streams_are_written_and_read_by_iterators(connect: Connect) -> None:
    async def numbers() -> AsyncIterator[bytes]:
        for n in range(100):
            yield b"%d" % n

    async with connect("stream_stream", echo_many) as wire:
        assert [answer async for answer in wire.method()(numbers())] == [b"%d" % n for n in range(100)]
        assert [answer async for answer in wire.method()([b"one", b"two"])] == [b"one", b"two"]


async def test_many_are_taken_and_answered_once(connect: Connect) -> None:
    async def count(requests: AsyncIterator[bytes], _: Any) -> bytes:
        return b"%d" % len([request async for request in requests])

    async with connect("stream_unary", count) as wire:
        call = wire.method()()
        for _ in range(100):
            await call.write(b"")
        await call.done_writing()
        assert await call == b"100"
        assert await wire.method()([b"one", b"two"]) == b"2"


async def test_a_servicer_reads_and_writes_as_it_likes(connect: Connect) -> None:
    async def converse(_: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request)

    async with connect("stream_stream", converse) as wire:
        assert [answer async for answer in wire.method()([b"one", b"two"])] == [b"one", b"two"]


async def test_what_came_before_an_error_is_read_before_it(connect: Connect) -> None:
    async def fail(_: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"
        context.set_trailing_metadata((("why", "because"),))
        await context.abort(grpc.StatusCode.ABORTED, "enough")

    async with connect("unary_stream", fail) as wire:
        call = wire.method()(b"")
        assert [await call.read(), await call.read()] == [b"one", b"two"]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.ABORTED, "enough")
    assert dict(raised.value.trailing_metadata()) == {"why": "because"}


async def test_who_writes_to_a_server_that_has_ended_hears_so(connect: Connect) -> None:
    async def leave(_: Any, __: Any) -> AsyncIterator[bytes]:
        raise errors.fenced("too old")
        yield b""

    async with connect("stream_stream", leave) as wire:
        call = wire.method()()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            while True:
                await call.write(LARGE)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    # gRPC now and then loses the status of a stream that was ended while it was being written to.
    assert raised.value.code() in {grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL}


async def test_a_writer_waits_for_a_reader_that_does_not_read(connect: Connect) -> None:
    reading = asyncio.Event()

    async def collect(requests: AsyncIterator[bytes], _: Any) -> bytes:
        await reading.wait()
        return b"%d" % len([request async for request in requests])

    async with connect("stream_unary", collect) as wire:
        call, written = wire.method()(), 0
        with pytest.raises(TimeoutError):
            for written in range(100):  # noqa: B007
                await asyncio.wait_for(asyncio.shield(writing := asyncio.ensure_future(call.write(LARGE))), 0.5)
        assert 0 < written < 50
        reading.set()
        await asyncio.wait_for(writing, SOON)
        await call.done_writing()
        assert await call == b"%d" % (written + 1)


async def test_a_servicer_waits_for_a_caller_that_does_not_read(connect: Connect) -> None:
    written = 0
    wrote = asyncio.Event()

    async def pour(_: bytes, __: Any) -> AsyncIterator[bytes]:
        nonlocal written
        for written in range(100):  # noqa: B007
            wrote.set()
            yield LARGE

    async with connect("unary_stream", pour) as wire:
        call = wire.method()(b"")
        with pytest.raises(TimeoutError):
            while True:
                wrote.clear()
                await asyncio.wait_for(wrote.wait(), 0.5)
        assert written < 50
        assert len([response async for response in call]) == 100


async def test_a_busy_stream_leaves_others_their_turn(connect: Connect) -> None:
    async def pour(_: bytes, __: Any) -> AsyncIterator[bytes]:
        while True:
            yield b""

    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with connect("unary_stream", pour) as wire:
        call, bystander = wire.method()(b""), asyncio.create_task(others())
        for _ in range(1_000):
            await call.read()
        bystander.cancel()
        call.cancel()
    assert turns >= 1_000 / 16


async def test_metadata_goes_both_ways(connect: Connect) -> None:
    async def tell(_: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\x00\xff")))
        return str(dict(context.invocation_metadata())["asked"]).encode()

    async with connect("unary_unary", tell) as wire:
        call = wire.method()(b"", metadata=(("asked", "yes"),))
        assert await call == b"yes"
        assert dict(await call.initial_metadata())["first"] == "1"
        assert dict(await call.trailing_metadata()) == {"last": "2", "last-bin": b"\x00\xff"}


async def test_a_code_that_is_set_without_aborting_counts(connect: Connect) -> None:
    async def say(_: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("nothing there")
        return b"ignored"

    async with connect("unary_unary", say) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await wire.method()(b"")
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.NOT_FOUND, "nothing there")


async def test_neither_side_sees_what_the_other_changes_afterwards(connect: Connect) -> None:
    changed = asyncio.Event()

    async def answer(request: error_pb2.Error, _: Any) -> error_pb2.Error:
        await changed.wait()
        return request

    codec = {"request_deserializer": error_pb2.Error.FromString, "response_serializer": error_pb2.Error.SerializeToString}
    async with connect("unary_unary", answer, **codec) as wire:
        asked = error_pb2.Error(message="before")
        method = wire.method(request_serializer=error_pb2.Error.SerializeToString, response_deserializer=error_pb2.Error.FromString)
        under_way = asyncio.ensure_future(method(asked))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked.message = "after"
        changed.set()
        assert (await under_way).message == "before"


async def test_nothing_of_the_callers_context_reaches_the_method(connect: Connect) -> None:
    mood: ContextVar[str] = ContextVar("mood", default="none")

    async def tell(_: bytes, __: Any) -> AsyncIterator[bytes]:
        yield mood.get().encode()

    async with connect("unary_stream", tell) as wire:
        mood.set("sour")
        assert await wire.method()(b"").read() == b"none"


async def test_a_door_keeps_callers_out_of_every_kind_of_method(connect: Connect) -> None:
    door = BusinessDoor(BusinessSettings(allowed_networks=["10.0.0.0/8"]))
    async with connect("unary_unary", echo, door) as wire:
        with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
            await wire.method()(b"")
        assert raised.value.reason == "NETWORK_REFUSED"
    async with connect("unary_stream", Never().serve, door) as wire:
        with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
            await wire.method()(b"").read()
        assert raised.value.reason == "NETWORK_REFUSED"


async def test_a_method_that_is_full_refuses(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "CALLS", 1)
    monkeypatch.setattr(bulkhead, "CALLS_WAITING", 0)
    never = Never()
    async with connect("unary_unary", never.serve) as wire, rpc.operator_channel(f"127.0.0.1:{wire.port}", "test") as dialled:
        under_way = asyncio.ensure_future(wire.method()(b""))
        await asyncio.wait_for(never.entered.wait(), SOON)
        by_port: Any = dialled.unary_unary(f"/{SERVICE}/Method")
        for method in (wire.method(), by_port):  # the room is one, whichever way a call comes
            with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
                await method(b"", timeout=5.0)
            assert raised.value.reason == "OVERLOADED"
        under_way.cancel()


async def test_it_answers_for_its_health(connect: Connect) -> None:
    async with connect("unary_unary", echo) as wire:
        answer = await health_pb2_grpc.HealthStub(wire.channel).Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_server_that_stops_lets_what_is_under_way_finish(connect: Connect) -> None:
    entered, finish = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, _: Any) -> bytes:
        entered.set()
        await finish.wait()
        return request

    async with connect("unary_unary", slow, drain_seconds=SOON) as wire:
        under_way = asyncio.ensure_future(wire.method()(b"kept"))
        await asyncio.wait_for(entered.wait(), SOON)
        stopping = asyncio.create_task(wire.stop())
        await asyncio.sleep(0)
        finish.set()
        assert await under_way == b"kept"
        await asyncio.wait_for(stopping, SOON)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await wire.method()(b"", timeout=1)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_stops_ends_the_streams_that_do_not_end(connect: Connect) -> None:
    never = Never()
    async with connect("stream_stream", never.serve) as wire:
        call = wire.method()()
        await asyncio.wait_for(never.entered.wait(), SOON)
        await asyncio.wait_for(wire.stop(), SOON)
        assert never.ended.is_set()
        with pytest.raises(errors.TidingsError) as raised, rpc.named_errors():
            await call.read()
    assert raised.value.reason == "UNAVAILABLE"


async def test_a_channel_that_is_closed_ends_its_calls_and_takes_no_more(connect: Connect) -> None:
    never = Never()
    async with connect("stream_stream", never.serve) as wire:
        assert wire.channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.SHUTDOWN
        await wire.channel.channel_ready()
        call = wire.method()()
        reading = asyncio.ensure_future(call.read())
        await asyncio.wait_for(never.entered.wait(), SOON)
        await wire.channel.close()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(never.ended.wait(), SOON)
        with pytest.raises(grpc.aio.UsageError):
            wire.method()()
        assert wire.channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_a_channel_may_close_when_its_calls_have_ended(connect: Connect) -> None:
    entered, finish = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, _: Any) -> bytes:
        entered.set()
        await finish.wait()
        return request

    async with connect("unary_unary", slow) as wire:
        under_way = asyncio.ensure_future(wire.method()(b"kept"))
        await asyncio.wait_for(entered.wait(), SOON)
        closing = asyncio.create_task(wire.channel.close(SOON))
        await asyncio.sleep(0)
        finish.set()
        assert await under_way == b"kept"
        await asyncio.wait_for(closing, SOON)

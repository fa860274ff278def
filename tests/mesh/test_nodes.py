"""The instances of a service that others call: which is picked, what is asked again elsewhere, what happens when one leaves."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from mesh import errors, naming, rpc
from mesh.breaker import FAILURES, State
from mesh.errors import TidingsError
from mesh.local_server import LocalServers
from mesh.nodes import ATTEMPTS, NodePool
from mesh.registry import MemoryRegistry, Registration
from mesh.telemetry import Telemetry
from tidings.common.v1.instance_pb2 import Instance

SERVICE = "tidings.test.Echo"


class Stub:
    """As a generated stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.Call: Any = channel.unary_unary(f"/{SERVICE}/Call")
        self.Stream: Any = channel.unary_stream(f"/{SERVICE}/Stream")


@dataclass
class Server:
    """One instance: answers with its id, unless told to fail.

    Attributes:
        fail: raised by every call.
        fail_after: a stream fails after so many responses; -1 for never.
        pause_after: a stream says nothing more after so many; likewise.
        calls: calls it has seen.
        called: set when it has seen one.
        holding: cleared to hold its answers.
    """

    instance: Instance
    fail: Exception | None = None
    fail_after: int = -1
    pause_after: int = -1
    calls: int = 0
    called: asyncio.Event = field(default_factory=asyncio.Event)
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    registration: Registration | None = None

    @property
    def name(self) -> bytes:
        """Its id."""
        return self.instance.instance_id.encode()

    async def call(self, _: bytes, __: Any) -> bytes:
        """Answer once."""
        self.calls += 1
        self.called.set()
        await self.holding.wait()
        if self.fail is not None:
            raise self.fail
        return self.name

    async def stream(self, _: bytes, __: Any) -> AsyncIterator[bytes]:
        """Answer three times."""
        self.calls += 1
        await self.holding.wait()
        for number in range(3):
            if number == self.fail_after:
                raise self.fail or errors.unavailable("it fails")
            if number == self.pause_after:
                await asyncio.Event().wait()
            yield self.name

    async def drain(self) -> None:
        """Say that it leaves."""
        assert self.registration is not None
        self.instance.draining = True
        await self.registration.update(self.instance)


class Fleet:
    """Servers in one registry, and the pool that knows them."""

    def __init__(self, registry: MemoryRegistry, telemetry: Telemetry, stack: AsyncExitStack) -> None:
        self.registry = registry
        self.telemetry = telemetry
        self.retries = 0
        self._stack = stack
        self.pool = NodePool("echo", telemetry, self._retried)

    def _retried(self) -> None:
        self.retries += 1

    async def open(self) -> None:
        """Have the pool follow the registry."""
        opening = NodePool.open(self.registry, "echo", self.telemetry, self._retried)
        self.pool = await self._stack.enter_async_context(opening)

    async def add(self, stack: AsyncExitStack | None = None) -> Server:
        """One more, until the end of the test or until that stack is closed; the pool knows of it."""
        server = await (stack or self._stack).enter_async_context(serving(self.registry, self.telemetry))
        await until(lambda: server.instance.instance_id in self.pool._nodes)
        return server

    async def call(self, timeout: float = 5) -> bytes:
        """Ask somebody."""
        answer: bytes = await self.pool.call(lambda node: node.stub(Stub).Call, b"", timeout)
        return answer

    async def stream(self) -> list[bytes]:
        """Hear all that somebody has to say."""
        return [response async for response in self.pool.stream(lambda node: node.stub(Stub).Stream, b"", 5)]


@asynccontextmanager
async def serving(registry: MemoryRegistry, telemetry: Telemetry) -> AsyncIterator[Server]:
    """One server, registered."""
    server = Server(Instance(service="echo", instance_id=naming.new_instance_id("echo")))
    server.holding.set()
    methods: dict[str, Any] = {
        "Call": grpc.unary_unary_rpc_method_handler(server.call),
        "Stream": grpc.unary_stream_rpc_method_handler(server.stream),
    }
    handler = grpc.method_handlers_generic_handler(SERVICE, methods)
    add = {SERVICE: lambda one: one.add_generic_rpc_handlers((handler,))}
    async with rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=0.1, local=registry.local) as port:
        server.instance.grpc_address = f"127.0.0.1:{port}"
        async with registry.register(server.instance) as registration:
            server.registration = registration
            yield server


async def until(holds: Any) -> None:
    """Let the loop turn until the pool has heard."""
    for _ in range(100_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come")


@pytest.fixture(params=["dialled", "local"])
async def fleet(request: pytest.FixtureRequest, telemetry: Telemetry) -> AsyncIterator[Fleet]:
    """Nobody yet."""
    local = LocalServers() if request.param == "local" else None
    async with AsyncExitStack() as stack:
        fleet = Fleet(MemoryRegistry(local), telemetry, stack)
        await fleet.open()
        yield fleet


async def test_without_an_instance_everything_is_unavailable(fleet: Fleet) -> None:
    for ask in (fleet.call, fleet.stream):
        with pytest.raises(TidingsError, match="no echo is up") as raised:
            await ask()
        assert (raised.value.reason, raised.value.retry_after) == ("UNAVAILABLE", 1.0)
    with pytest.raises(TidingsError, match="no echo is up"):
        fleet.pool.owner("key")


async def test_calls_go_round(fleet: Fleet) -> None:
    servers = [await fleet.add() for _ in range(3)]
    answers = [await fleet.call() for _ in range(9)]
    assert {server.name: answers.count(server.name) for server in servers} == dict.fromkeys({one.name for one in servers}, 3)


async def test_what_may_pass_is_asked_of_another_and_one_that_fails_again_and_again_is_left_alone_for_a_moment(
    fleet: Fleet,
) -> None:
    servers = [await fleet.add() for _ in range(3)]
    servers[0].fail = errors.overloaded(1.0)
    assert {await fleet.call() for _ in range(24)} == {servers[1].name, servers[2].name}
    assert (servers[0].calls, fleet.retries) == (FAILURES, FAILURES)


async def test_one_whose_breaker_is_open_owns_nothing_while_others_live(fleet: Fleet) -> None:
    failing, fine = await fleet.add(), await fleet.add()
    node = fleet.pool._nodes[failing.instance.instance_id]
    assert {fleet.pool.owner(str(key)).instance_id for key in range(20)} > {fine.instance.instance_id}
    node.failed(errors.unavailable("away"))
    node.failed(errors.unavailable("away"))
    assert node.breaker.state is State.CLOSED
    node.failed(errors.unavailable("away"))
    assert {fleet.pool.owner(str(key)).instance_id for key in range(20)} == {fine.instance.instance_id}
    assert not fleet.pool.others(fleet.pool._nodes[fine.instance.instance_id])
    assert "mesh_echo_breakers_open 1.0" in fleet.telemetry.exposition().decode()


async def test_the_last_one_is_asked_though_it_failed(fleet: Fleet) -> None:
    server = await fleet.add()
    server.fail = errors.unavailable("it fails")
    for _ in range(2):
        with pytest.raises(TidingsError, match="it fails"):
            await fleet.call()
    server.fail = None
    assert await fleet.call() == server.name
    assert (server.calls, fleet.retries) == (3, 0)


async def test_it_gives_up_after_so_many_instances(fleet: Fleet) -> None:
    servers = [await fleet.add() for _ in range(ATTEMPTS + 2)]
    for server in servers:
        server.fail = errors.unavailable("it fails")
    with pytest.raises(TidingsError, match="it fails"):
        await fleet.call()
    assert (sum(server.calls for server in servers), fleet.retries) == (ATTEMPTS, ATTEMPTS - 1)


async def test_what_will_not_pass_is_asked_once(fleet: Fleet) -> None:
    servers = [await fleet.add() for _ in range(2)]
    for server in servers:
        server.fail = errors.notification_not_found("nabc")
    for ask in (fleet.call, fleet.stream):
        for server in servers:
            server.fail_after, server.calls = 0, 0
        with pytest.raises(TidingsError) as raised:
            await ask()
        assert raised.value.reason == "NOTIFICATION_NOT_FOUND"
        assert sum(server.calls for server in servers) == 1


async def test_an_instance_that_died_is_passed_over(fleet: Fleet) -> None:
    alive = await fleet.add()
    async with fleet.registry.register(Instance(service="echo", instance_id="echo-dead", grpc_address="127.0.0.1:1")):
        await until(lambda: "echo-dead" in fleet.pool._nodes)
        assert {await fleet.call() for _ in range(6)} == {alive.name}
        assert [await fleet.stream() for _ in range(2)] == [[alive.name] * 3] * 2


async def test_a_call_that_lasts_too_long_is_asked_of_another(fleet: Fleet) -> None:
    slow, quick = await fleet.add(), await fleet.add()
    slow.holding.clear()
    assert {await fleet.call(timeout=3.0) for _ in range(4)} == {quick.name}
    assert slow.calls == 1


async def test_one_that_is_frozen_costs_a_share_of_the_time_and_then_nothing(fleet: Fleet) -> None:
    frozen, quick = await fleet.add(), await fleet.add()
    frozen.holding.clear()
    began = time.monotonic()
    assert {await fleet.call(timeout=4.0) for _ in range(10)} == {quick.name}
    assert time.monotonic() - began < 3.9, "half the time at most, once"
    assert frozen.calls == 1
    frozen.holding.set()
    async with asyncio.timeout(5):
        while {await fleet.call(), await fleet.call()} == {quick.name}:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # it is found alive by asking it now and then
    assert fleet.pool._nodes[frozen.instance.instance_id].breaker.state is State.CLOSED


async def test_the_only_one_gets_all_the_time_there_is(fleet: Fleet) -> None:
    slow = await fleet.add()
    slow.holding.clear()
    began = time.monotonic()
    with pytest.raises(TidingsError, match="did not answer"):
        await fleet.call(timeout=0.3)
    assert time.monotonic() - began >= 0.29
    assert (slow.calls, fleet.retries) == (1, 0)
    slow.holding.set()
    assert await fleet.call() == slow.name, "however open its breaker"


async def test_a_stream_whose_first_response_does_not_come_is_asked_of_another(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.nodes._STREAM_SECONDS", 1.5)
    frozen, quick = await fleet.add(), await fleet.add()
    frozen.holding.clear()
    for timeout in (None, 6.0):
        fleet.pool._nodes[frozen.instance.instance_id].answered()
        heard = [[one async for one in fleet.pool.stream(lambda node: node.stub(Stub).Stream, b"", timeout)] for _ in range(3)]
        assert heard == [[quick.name] * 3] * 3
    assert frozen.calls == 2


async def test_a_stream_that_falls_silent_where_it_should_speak_is_lost(fleet: Fleet) -> None:
    server = await fleet.add()
    server.pause_after = 1
    responses = fleet.pool.stream(lambda node: node.stub(Stub).Stream, b"", silence=0.2)
    assert await anext(responses) == server.name
    with pytest.raises(TidingsError, match="did not answer in time"):
        await anext(responses)


async def test_a_call_given_up_by_its_caller_says_nothing_about_the_instance(fleet: Fleet) -> None:
    server = await fleet.add()
    server.holding.clear()
    breaker = fleet.pool._nodes[server.instance.instance_id].breaker
    call = asyncio.create_task(fleet.call())
    await asyncio.wait_for(server.called.wait(), 10)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert breaker.state is State.CLOSED
    with pytest.raises(TidingsError):
        await fleet.call(timeout=0.01)
    assert breaker.state is State.CLOSED, "nor does one that had no time"


async def test_a_stream_goes_to_another_only_before_its_first_response(fleet: Fleet) -> None:
    failing, fine = await fleet.add(), await fleet.add()
    failing.fail_after = 0
    assert [await fleet.stream() for _ in range(8)] == [[fine.name] * 3] * 8
    assert failing.calls == FAILURES
    fine.fail_after = failing.fail_after = 2
    responses = fleet.pool.stream(lambda node: node.stub(Stub).Stream, b"", 5)
    assert await anext(responses) == await anext(responses)
    with pytest.raises(TidingsError, match="it fails"):
        await anext(responses)


async def test_one_that_leaves_gets_nothing_new_and_finishes_what_it_has(fleet: Fleet) -> None:
    leaving, staying = await fleet.add(), await fleet.add()
    leaving.holding.clear()
    under_way = [asyncio.create_task(fleet.call()) for _ in range(2)]
    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    await leaving.drain()
    await until(lambda: fleet.pool._nodes[leaving.instance.instance_id].leaving.is_set())
    assert {await fleet.call() for _ in range(4)} == {staying.name}
    assert {fleet.pool.owner(str(key)).instance_id.encode() for key in range(20)} == {staying.name}
    leaving.holding.set()
    assert {await call for call in under_way} == {leaving.name, staying.name}


async def test_one_that_leaves_is_still_asked_when_it_is_the_only_one(fleet: Fleet) -> None:
    leaving = await fleet.add()
    await leaving.drain()
    await until(lambda: fleet.pool._nodes[leaving.instance.instance_id].leaving.is_set())
    assert await fleet.call() == leaving.name
    with pytest.raises(TidingsError, match="no echo is up"):
        fleet.pool.owner("key")  # but it owns nothing


async def test_one_that_is_gone_is_forgotten_while_its_calls_end(fleet: Fleet) -> None:
    staying = await fleet.add()
    async with AsyncExitStack() as life:
        server = await life.enter_async_context(serving(MemoryRegistry(fleet.registry.local), fleet.telemetry))
        async with fleet.registry.register(server.instance):
            await until(lambda: server.instance.instance_id in fleet.pool._nodes)
            server.holding.clear()
            calls = [asyncio.create_task(fleet.call()) for _ in range(2)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: server.instance.instance_id not in fleet.pool._nodes)
        assert {await fleet.call() for _ in range(4)} == {staying.name}
        server.holding.set()
        assert {await call for call in calls} == {server.name, staying.name}


async def test_the_owner_of_a_key_is_the_rendezvous_over_those_alive(fleet: Fleet) -> None:
    servers = [await fleet.add() for _ in range(4)]
    ids = [server.instance.instance_id for server in servers]
    keys = [f"key-{number}" for number in range(50)]
    assert [fleet.pool.owner(key).instance_id for key in keys] == [naming.owner(key, ids) for key in keys]
    assert len({fleet.pool.owner(key).instance_id for key in keys}) == 4


async def test_a_pool_that_closes_ends_the_calls_under_way(telemetry: Telemetry) -> None:
    async with AsyncExitStack() as stack:
        fleet = Fleet(MemoryRegistry(), telemetry, stack)
        async with AsyncExitStack() as life:
            fleet._stack = life
            await fleet.open()
            server = await fleet.add(stack)
            server.holding.clear()
            call = asyncio.create_task(fleet.call())
            await asyncio.wait_for(server.called.wait(), 10)
        done, _ = await asyncio.wait({call}, timeout=10)
        assert done
        server.holding.set()


async def test_one_in_this_process_is_asked_first_and_in_turn_when_it_has_failed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.registry.local = None
    far = [await fleet.add() for _ in range(2)]
    fleet.registry.local = LocalServers()
    near = await fleet.add()
    known = fleet.pool._nodes
    for _ in range(6):
        await fleet.call()
    assert [near.calls, *(one.calls for one in far)] == [6, 0, 0]
    assert [fleet.pool.nearer(known[one.instance.instance_id]) for one in (near, *far)] == [False, True, True]
    near.fail = errors.unavailable("not now")
    await fleet.call()
    near.fail = None
    known[near.instance.instance_id].answered()  # a probe says that it lives
    assert {await fleet.call() for _ in range(6)} == {one.name for one in (near, *far)}
    assert not any(fleet.pool.nearer(known[one.instance.instance_id]) for one in far)
    monkeypatch.setattr("mesh.node._STEADY_SECONDS", 0.0)
    assert {await fleet.call() for _ in range(6)} == {near.name}

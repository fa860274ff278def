"""Bulkheads: what is full refuses by name, and nothing else is any slower for it."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import rpc
from mesh.bulkhead import RETRY_SECONDS, Bulkhead
from mesh.errors import TidingsError
from mesh.telemetry import Telemetry

SERVICE = "tidings.test.Desk"


async def enter(room: Bulkhead, stack: AsyncExitStack) -> None:
    await stack.enter_async_context(room.room())


async def test_so_many_are_under_way_so_many_wait_and_the_next_is_refused() -> None:
    room = Bulkhead(1, 1, "the desk")
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await enter(room, first)
        waiting = asyncio.create_task(enter(room, second))
        await asyncio.sleep(0)
        with pytest.raises(TidingsError, match="the desk has no room") as refused:
            await enter(room, AsyncExitStack())
        assert (refused.value.reason, refused.value.retry_after) == ("OVERLOADED", RETRY_SECONDS)
        await first.aclose()
        await asyncio.wait_for(waiting, 5)
    assert (len(room), room.refused) == (0, 1)


@given(st.lists(st.tuples(st.sampled_from(["come", "go", "give up"]), st.integers(0, 9))))
def test_a_place_is_never_lost_nor_given_twice(steps: list[tuple[str, int]]) -> None:
    async def live() -> None:
        room, inside, visitors = Bulkhead(2, 3, "it"), set[int](), dict[int, tuple[asyncio.Task[None], asyncio.Event]]()

        async def visit(number: int, leave: asyncio.Event) -> None:
            async with room.room():
                inside.add(number)
                try:
                    assert len(inside) <= 2
                    await leave.wait()
                finally:
                    inside.discard(number)

        for number, (step, which) in enumerate(steps):
            if step == "come":
                leave = asyncio.Event()
                visitors[number] = asyncio.create_task(visit(number, leave)), leave
            elif visitors:
                task, leave = list(visitors.values())[which % len(visitors)]
                leave.set() if step == "go" else task.cancel()
            if which % 2:  # else several things happen in one turn of the loop
                await asyncio.sleep(0)
        for _, leave in visitors.values():
            leave.set()
        outcomes = await asyncio.gather(*(task for task, _ in visitors.values()), return_exceptions=True)
        assert all(isinstance(one, TidingsError | asyncio.CancelledError | None) for one in outcomes)
        assert len(room) == 0

    asyncio.run(live())


async def test_a_flood_of_one_method_is_refused_by_name_and_another_method_is_served(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.bulkhead.CALLS", 2)
    monkeypatch.setattr("mesh.bulkhead.CALLS_WAITING", 3)
    let_go = asyncio.Event()

    async def slow(_: bytes, __: Any) -> bytes:
        await let_go.wait()
        return b"slow"

    async def quick(_: bytes, __: Any) -> bytes:
        return b"quick"

    methods: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(one) for name, one in (("Slow", slow), ("Quick", quick))}
    handler = grpc.method_handlers_generic_handler(SERVICE, methods)
    add = {SERVICE: lambda one: one.add_generic_rpc_handlers((handler,))}
    async with (
        rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=0.1) as port,
        rpc.channel(f"127.0.0.1:{port}", telemetry) as channel,
    ):

        async def ask(method: str) -> bytes:
            with rpc.named_errors():
                call: Any = channel.unary_unary(f"/{SERVICE}/{method}")
                answer: bytes = await call(b"")
                return answer

        flood = [asyncio.create_task(ask("Slow")) for _ in range(9)]
        refused = [await flood_error for flood_error in _errors(flood, 4)]
        assert {(one.reason, one.retry_after) for one in refused} == {("OVERLOADED", RETRY_SECONDS)}
        assert await ask("Quick") == b"quick"
        let_go.set()
        answers = await asyncio.gather(*flood, return_exceptions=True)
        assert answers.count(b"slow") == 5


def _errors(tasks: "list[asyncio.Task[bytes]]", count: int) -> "list[asyncio.Future[TidingsError]]":
    """The errors with which so many of the tasks end, as they come."""
    found: list[asyncio.Future[TidingsError]] = [asyncio.get_running_loop().create_future() for _ in range(count)]
    left = iter(found)

    def on_done(task: "asyncio.Task[bytes]") -> None:
        error = task.exception()
        if isinstance(error, TidingsError):
            next(left).set_result(error)

    for task in tasks:
        task.add_done_callback(on_done)
    return found

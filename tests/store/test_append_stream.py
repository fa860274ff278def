"""One stream of batches, over a socket and within the process, before a log that waits for a word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from mesh import rpc
from mesh.local_server import LocalServers
from mesh.telemetry import Telemetry
from store.appender import Appender
from store.service_message_log import MessageLogServicer
from tests.eventually import eventually
from tests.store.client import message
from tests.store.test_appender import MemoryLog, running
from tidings.store.v1 import message_log_pb2 as pb
from tidings.store.v1.message_log_pb2_grpc import MessageLogServiceStub, add_MessageLogServiceServicer_to_server

CHAT = "d" + "a" * 26


class Stage:
    """A log, what serves it, and a stub."""

    def __init__(self, log: MemoryLog, appender: Appender, servicer: MessageLogServicer, channel: grpc.aio.Channel) -> None:
        self.log = log
        self.servicer = servicer
        self._appender = appender
        self._stub: Any = MessageLogServiceStub(channel)

    def stream(self) -> Any:
        """A new one."""
        return self._stub.Append()

    async def until_storing(self) -> None:
        """Wait until the log has been called."""
        await asyncio.wait_for(self.log.called.wait(), 5)

    async def until_waiting(self, batches: int) -> None:
        """Wait until so many batches wait for the next transaction."""
        await eventually(lambda: len(self._appender._queue) == batches, 5.0)

    async def until_left(self) -> None:
        """Wait until the store has noticed that all callers left."""
        await eventually(lambda: not self.servicer._streams, 5.0)


@pytest.fixture(params=["socket", "process"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    log, telemetry, local = MemoryLog(), Telemetry("append-stream-test"), LocalServers()
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.close)
        appender = await stack.enter_async_context(running(log))
        nothing: Any = None  # the stream needs neither database nor history
        servicer = MessageLogServicer(nothing, log, appender, lambda: 0, nothing)
        add = partial(add_MessageLogServiceServicer_to_server, servicer)
        serving = rpc.serve("127.0.0.1:0", {"store": add}, telemetry, reflect=False, drain_seconds=1, local=local)
        port = await stack.enter_async_context(serving)
        near = local if request.param == "process" else None
        channel = await stack.enter_async_context(rpc.channel(f"127.0.0.1:{port}", telemetry, local=near))
        stack.callback(log.may_go.set)
        yield Stage(log, appender, servicer, channel)


def asked(number: int, *names: str) -> pb.AppendRequest:
    """A batch of messages by these client_msg_ids."""
    return pb.AppendRequest(batch_id=number, entries=[message(CHAT, 1, name) for name in names])


async def test_what_comes_while_one_is_stored_goes_together_and_is_answered_in_order(stage: Stage) -> None:
    stage.log.may_go.clear()
    call = stage.stream()
    await call.write(asked(1, "a"))
    await stage.until_storing()
    for number in range(2, 12):
        await call.write(asked(number, f"b{number}"))
    await stage.until_waiting(10)
    stage.log.may_go.set()
    answers = [await asyncio.wait_for(call.read(), 5) for _ in range(11)]
    assert [(answer.batch_id, answer.results[0].seq) for answer in answers] == [(n, n) for n in range(1, 12)]
    assert [len(names) for names in stage.log.batches] == [1, 10]
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_is_read_no_further_than_its_share(stage: Stage) -> None:
    stage.log.may_go.clear()
    call = stage.stream()
    await call.write(asked(1, "m1"))
    await stage.until_storing()
    writing = asyncio.create_task(_write(call, 2, 120))
    await stage.until_waiting(31)
    await asyncio.sleep(0.2)  # nothing happens in it: that is the promise
    stage.log.may_go.set()
    answers = [await asyncio.wait_for(call.read(), 5) for _ in range(120)]
    await writing
    assert [answer.batch_id for answer in answers] == list(range(1, 121))
    assert len(stage.log.batches[1]) == 31, "32 under way, one of them in the first transaction"


async def test_one_that_is_stopped_answers_what_it_has_read(stage: Stage) -> None:
    stage.log.may_go.clear()
    call = stage.stream()
    await call.write(asked(1, "a"))
    await stage.until_storing()
    stage.servicer.stop()
    stage.log.may_go.set()
    assert (await asyncio.wait_for(call.read(), 5)).batch_id == 1
    assert await asyncio.wait_for(call.read(), 5) is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_caller_who_leaves_is_no_fault_and_what_it_sent_is_stored(stage: Stage) -> None:
    stage.log.may_go.clear()
    with capture_logs() as logs:
        call = stage.stream()
        await call.write(asked(1, "a"))
        await stage.until_storing()
        call.cancel()
        await stage.until_left()
        stage.log.may_go.set()
        other = stage.stream()
        await other.write(asked(1, "a", "b"))
        answer = await asyncio.wait_for(other.read(), 5)
        other.cancel()
    assert [(result.seq, result.duplicate) for result in answer.results] == [(1, True), (2, False)]
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def _write(call: Any, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await call.write(asked(number, f"m{number}"))

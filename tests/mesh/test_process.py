"""A process serves until it is told to stop, then leaves in order; what runs beside it is looked after."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.process import background, stop_signal

SERVICE = """
import sys
from contextlib import asynccontextmanager
from mesh import process
from mesh.settings import ServiceSettings, environment

class Settings(ServiceSettings):
    model_config = environment("example")

@asynccontextmanager
async def serve(settings, registry, telemetry):
    print("built", flush=True)
    yield None
    print("closed", flush=True)

process.run("example", Settings.from_command_line(sys.argv[1:]), serve)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_in_order(number: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "gen/python")])}
    command = [sys.executable, "-c", SERVICE, "--log-json", "true"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "built\n"
        assert '"serving"' in process.stderr.readline()
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert output == "closed\n"
    assert '"stopping"' in errors
    assert process.returncode == 0


async def test_the_first_signal_sets_the_event() -> None:
    stop = stop_signal()
    assert not stop.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(stop.wait(), 5)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_work_runs_beside_the_body_and_ends_with_it() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with background(work(), work()):
        await started.wait()
        assert not ended.is_set()
    assert ended.is_set()


async def test_work_that_fails_ends_the_body_with_its_own_exception() -> None:
    async def failing() -> None:
        raise LookupError("the cause")

    reached = False
    with pytest.raises(LookupError, match="the cause"):
        async with background(failing()):
            await asyncio.Event().wait()
            reached = True
    assert not reached
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0, "the task goes on as if nobody had cancelled it"
    await asyncio.sleep(0)


async def test_work_that_ends_by_itself_leaves_the_body_alone() -> None:
    async def brief() -> None:
        return

    async with background(brief()):
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_the_bodys_own_exception_passes_and_the_work_still_ends() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(KeyError):
        async with background(work()):
            await asyncio.sleep(0)
            raise KeyError("body")
    assert ended.is_set()


async def test_work_that_fails_while_it_is_being_ended_does_not_cancel_what_follows() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("while closing")

    async with background(stubborn()):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_cancellation_from_outside_stays_one() -> None:
    entered = asyncio.Event()

    async def body() -> None:
        async with background(asyncio.sleep(3600)):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

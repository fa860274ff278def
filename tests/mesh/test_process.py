"""A process serves until it is told to stop, then leaves in order; what runs beside it is looked after."""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
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


def started(program: str, *flags: str) -> subprocess.Popen[str]:
    """A process that runs a service."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "gen/python")])}
    command = [sys.executable, "-c", program, "--log-json", "true", *flags]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_in_order(number: signal.Signals) -> None:
    with started(SERVICE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "built\n"
        assert '"serving"' in process.stderr.readline()
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert output == "closed\n"
    assert '"stopping"' in errors
    assert process.returncode == 0


def policies(process: subprocess.Popen[str]) -> set[int]:
    """Of its threads."""
    return {os.sched_getscheduler(int(thread.name)) for thread in Path(f"/proc/{process.pid}/task").iterdir()}


@pytest.mark.skipif(os.sched_getscheduler(0) != os.SCHED_OTHER, reason="these tests were given another policy")
@pytest.mark.parametrize(("chosen", "kept"), [(os.SCHED_OTHER, os.SCHED_BATCH), (os.SCHED_IDLE, os.SCHED_IDLE)])
def test_a_process_interrupts_nobody_unless_it_was_told_how_to_run(chosen: int, kept: int) -> None:
    program = f"import os; os.sched_setscheduler(0, {chosen}, os.sched_param(0))\n{SERVICE}"
    with started(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "built\n"
        assert policies(process) == {kept}
        process.terminate()
        process.communicate(timeout=20)


SLOW = """
import asyncio, sys
from contextlib import asynccontextmanager
from mesh import process
from mesh.settings import ServiceSettings, environment

class Settings(ServiceSettings):
    model_config = environment("example")

@asynccontextmanager
async def serve(settings, registry, telemetry):
    print(settings.admin_url, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    yield None
    print("leaving", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

process.run("example", Settings.from_command_line(sys.argv[1:]), serve)
"""


def test_the_admin_port_answers_from_start_to_end_and_the_service_knows_it() -> None:
    with started(SLOW) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert asked(f"{url}/readyz") == (503, "starting")
        assert asked(f"{url}/healthz") == (200, "ok")
        process.stdin.write("go\n")
        process.stdin.flush()
        while asked(f"{url}/readyz") != (200, "ready"):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "leaving\n"
        assert asked(f"{url}/readyz") == (503, "stopping")
        process.communicate("done\n", timeout=20)
    assert process.returncode == 0


def test_an_admin_port_that_is_mapped_is_told_as_others_reach_it() -> None:
    with started(SLOW, "--admin-url", "http://example.com:9100") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "http://example.com:9100\n"
        process.kill()


def asked(url: str) -> tuple[int, str]:
    """Status and text of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode().strip()


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

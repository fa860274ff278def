"""`tidings up` as its user runs it: a process with a data folder, killed without warning, started again; nothing is lost."""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.credentials import mint_token
from tests.checker.recorder import Recorder
from tests.checker.workload import Plan, Workload
from tests.system.living import SETTLE_SECONDS, verdict
from tests.system.ports import lasting_port

TIDINGS = Path(sys.executable).with_name("tidings")
_FREE = ("--tagsvc-port", "0", "--scheduler-port", "0")
START_SECONDS = 30.0


class Up:
    """`tidings up`, and the rest of the command line beside it."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._ports = lasting_port(), lasting_port()
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"http://127.0.0.1:{self._ports[0]}"

    async def start(self) -> None:
        """Start it, and wait until it says that it is up."""
        ports = ["--port", str(self._ports[0]), "--edge-port", str(self._ports[1]), *_FREE]
        self._process = await _run("up", "--data", str(self._data), *ports)
        async with asyncio.timeout(START_SECONDS):
            assert self._process.stdout is not None
            while b"is up at" not in (line := await self._process.stdout.readline()):
                assert line, f"`tidings up` ended with status {await self._process.wait()}"

    async def kill(self) -> None:
        """kill -9."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def token(self, user_id: str) -> str:
        """As `tidings token` makes it."""
        secret = json.loads((self._data / "secrets.json").read_text())["token_secret"]
        return mint_token(secret, user_id, time.time(), 3600.0)

    async def command(self, *words: str) -> str:
        """What another command prints."""
        process = await _run(*words, "--data", str(self._data))
        out, _ = await asyncio.wait_for(process.communicate(), START_SECONDS)
        assert process.returncode == 0, words
        return out.decode()


@asynccontextmanager
async def up(data: Path) -> AsyncIterator[Up]:
    one = Up(data)
    await one.start()
    try:
        yield one
    finally:
        await one.kill()


async def test_a_message_survives_the_death_of_the_mesh(tmp_path: Path) -> None:
    async with up(tmp_path / "data") as mesh:
        first = json.loads(await mesh.command("send", "--as", "alice", "bob", "before", "--json"))
        await mesh.kill()
        await mesh.start()
        second = json.loads(await mesh.command("send", "--as", "alice", "bob", "after", "--json"))
        told = await mesh.command("history", "--as", "bob", "alice", "--json")
    assert (first["seq"], second["seq"]) == (1, 2)
    assert [text in told for text in ("before", "after")] == [True, True]


async def test_killed_while_everyone_talks(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1, 2**32)
    async with up(tmp_path / "data") as mesh:
        recorder = Recorder(seed, mesh.url)
        workload = Workload(
            mesh.url, mesh.token, tmp_path, recorder, random.Random(seed), Plan(clients=8, second_devices=2, directs=5, groups=1)
        )
        async with workload.open():
            talking = asyncio.create_task(workload.work(6.0))
            await asyncio.sleep(2.0)
            await mesh.kill()
            await mesh.start()
            await talking
            settled = await workload.settle(SETTLE_SECONDS)
            await workload.read_back()
    verdict(recorder.history, seed, settled=settled)


async def _run(*words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(str(TIDINGS), *words, stdout=asyncio.subprocess.PIPE)

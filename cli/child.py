"""One service as a process that is started again whenever it ends, on the same ports, until it is told to stop.

It knows nothing of the others: see `cli.fleet`.
"""

import asyncio
import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping

import aiohttp

from cli.comeback import Comeback
from cli.orders import Order

STOP_SECONDS = 15.0  # a child that has not drained by then is killed
POLL_SECONDS = 0.1
LINE_BYTES = 1 << 20  # a log line longer than this is left out; tracebacks are far below

Tell = Callable[[Order, str], None]
"""Prints a line that a child said."""


class Child:
    """See the module.

    Args:
        order: what to start.
        environment: of the process.
        session: asks it whether it is ready.
        said: takes each line of its output.
        note: takes what is to be said of it: that it ended, how, what follows, and that it is back.
        restart: whether it is started again.

    Attributes:
        ready: set while it serves.
        lost: how it ended for good: before it was ever ready, or with no restart wanted.
    """

    def __init__(
        self, order: Order, environment: Mapping[str, str], session: aiohttp.ClientSession, said: Tell, note: Tell, *, restart: bool
    ) -> None:
        self.order = order
        self.ready = asyncio.Event()
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._environment = environment
        self._session = session
        self._said = said
        self._note = note
        self._restart = restart
        self._comeback = Comeback()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Keep it running until it is stopped or lost."""
        while not self._stopping.is_set():
            ending = await self._live()
            if self._stopping.is_set():
                return
            pause = self._comeback.ended(time.monotonic())
            if not (self._restart and self._comeback.has_been_ready):
                self.lost.set_result(f"{self.order.name} {ending}")
                return
            self._note(self.order, f"{ending}; starting it again in {pause:.0f} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def stop(self) -> None:
        """End it: by SIGTERM, and if that takes longer than STOP_SECONDS by SIGKILL."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if self._process is None:
            return
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    async def _live(self) -> str:
        """One life; gives how it ended."""
        try:
            self._process = process = await self._spawn()
        except OSError as error:  # no memory, or no room in a table: that may pass
            return f"could not be started ({error.strerror or error})"
        if self._stopping.is_set():  # meanwhile
            self._signal(signal.SIGTERM)
        looking = asyncio.create_task(self._look())
        try:
            if process.stdout is not None:
                await self._listen(process.stdout)
            return _ending(await process.wait())
        finally:
            looking.cancel()
            self.ready.clear()

    async def _listen(self, said: asyncio.StreamReader) -> None:
        """Pass on what it says until it ends; to one that nobody listens to, its next words would be the last."""
        while True:
            try:
                line = await said.readline()
            except ValueError:
                line = b"(a line too long to be shown)\n"
            if not line:
                return
            self._said(self.order, line.decode(errors="replace").rstrip())

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *_dying_with_us(),
            sys.executable,
            "-m",
            self.order.module,
            *self.order.flags,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for us: we stop them in order
        )

    async def _look(self) -> None:
        """Ask until it says that it is ready."""
        while not await self._answers():  # noqa: ASYNC110  (it can only be asked)
            await asyncio.sleep(POLL_SECONDS)
        if self._comeback.has_been_ready:
            self._note(self.order, "is ready again")
        self._comeback.ready(time.monotonic())
        self.ready.set()

    async def _answers(self) -> bool:
        try:
            async with self._session.get(f"{self.order.admin}/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _ending(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _dying_with_us() -> list[str]:
    """Has the kernel send a command SIGTERM when our process dies, however it dies: nothing is left holding the ports (Linux;
    util-linux). Not by code between fork and exec: gRPC's threads in this process don't survive that."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    return [found, "--pdeathsig", "TERM", "--"] if found else []

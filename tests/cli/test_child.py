"""A process that is kept running, tried with services of a few lines."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from cli import child, comeback
from cli.child import Child
from cli.orders import Order
from cli.plan import free_port, http_url

HOST = "127.0.0.1"
PATIENCE = 10.0
SERVE = """
import http.server, os, signal, sys
{first}
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
print("process", os.getpid(), flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""


class Kept:
    """A child of a service written for the test, and what was said."""

    def __init__(self, folder: Path, program: str, session: aiohttp.ClientSession, *, restart: bool = True) -> None:
        (folder / "little_service.py").write_text(program)
        port = free_port(HOST)
        order = Order("little-1", "little", "little_service", http_url(HOST, port), [str(port)])
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        self.lines: asyncio.Queue[str] = asyncio.Queue()
        self.notes: asyncio.Queue[str] = asyncio.Queue()
        self.child = Child(order, environment, session, self._said, self._noted, restart=restart)

    async def pid(self) -> int:
        """That of the process which said so next."""
        while True:
            word, _, number = (await self.lines.get()).partition(" ")
            if word == "process":
                return int(number)

    def _said(self, _: Order, line: str) -> None:
        self.lines.put_nowait(line)

    def _noted(self, _: Order, what: str) -> None:
        self.notes.put_nowait(what)


@asynccontextmanager
async def kept(folder: Path, program: str, *, restart: bool = True) -> AsyncIterator[Kept]:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        one = Kept(folder, program, session, restart=restart)
        running = asyncio.create_task(one.child.run())
        try:
            yield one
        finally:
            one.child.kill()
            await running


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(comeback, "FIRST_PAUSE", 0.05)


async def test_one_that_dies_is_started_again_where_it_was(tmp_path: Path) -> None:
    async with kept(tmp_path, SERVE.format(first="")) as one:
        first = await one.pid()
        await one.child.ready.wait()
        os.kill(first, signal.SIGKILL)
        assert await one.notes.get() == "was killed by SIGKILL; starting it again in 0 s"
        assert await one.pid() != first
        assert await one.notes.get() == "is ready again"
        assert one.child.ready.is_set()
        assert not one.child.lost.done()
        await one.child.stop()
    assert one.notes.empty(), "one that is told to end is not missed"


async def test_one_that_leaves_by_itself_is_started_again(tmp_path: Path) -> None:
    leaving = "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))"
    async with kept(tmp_path, SERVE.format(first=leaving)) as one:
        first = await one.pid()
        await one.child.ready.wait()
        os.kill(first, signal.SIGTERM)
        assert await one.notes.get() == "ended with status 0; starting it again in 0 s"
        assert await one.pid() != first


async def test_one_that_was_never_ready_is_lost(tmp_path: Path) -> None:
    async with kept(tmp_path, "print('no'); raise SystemExit(3)") as one:
        assert await one.child.lost == "little-1 ended with status 3"
        assert one.lines.get_nowait() == "no"


async def test_none_is_started_again_when_that_is_not_wanted(tmp_path: Path) -> None:
    async with kept(tmp_path, SERVE.format(first=""), restart=False) as one:
        pid = await one.pid()
        await one.child.ready.wait()
        os.kill(pid, signal.SIGKILL)
        assert await one.child.lost == "little-1 was killed by SIGKILL"


async def test_one_that_says_too_much_at_once_is_still_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LINE_BYTES", 1_000)
    async with kept(tmp_path, SERVE.format(first="print('x' * 1_000_000, flush=True)")) as one:
        pid = await one.pid()
        os.kill(pid, 0)
        await one.child.ready.wait()


async def test_one_that_cannot_be_started_again_just_now_is_tried_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with kept(tmp_path, SERVE.format(first="")) as one:
        first = await one.pid()
        await one.child.ready.wait()
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "create_subprocess_exec", _no_memory)
            os.kill(first, signal.SIGKILL)
            assert "was killed by SIGKILL" in await one.notes.get()
            assert "could not be started (Cannot allocate memory)" in await one.notes.get()
        assert await one.pid() != first


async def _no_memory(*_: object, **__: object) -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


async def test_one_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "STOP_SECONDS", 0.1)
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    async with kept(tmp_path, SERVE.format(first=deaf)) as one:
        pid = await one.pid()
        await one.child.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_stopping_does_not_wait_for_the_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comeback, "FIRST_PAUSE", 1000.0)
    async with kept(tmp_path, SERVE.format(first="")) as one:
        pid = await one.pid()
        await one.child.ready.wait()
        os.kill(pid, signal.SIGKILL)
        assert "in 1000 s" in await one.notes.get()
        await one.child.stop()

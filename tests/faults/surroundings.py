"""Faults of what is around the fleet: a clock that jumps, a disk that is full, and everything restarted one after the other."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from tests.faults.stage import Stage
from tests.system.fleet_fixture import HOST

JUMP_SECONDS = 3_600
CROWD = 300  # clients who only stay connected, and count how often they have to come back
MOST_RECONNECTS = 100  # of the crowd in any second: a third of it
RECONNECTS = Path("build") / "faults" / "reconnects.json"
_FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
DISK_BYTES = 512 * 1024 * 1024
_SPARE_BYTES = 64 * 1024


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A disk of its own for the database, which can be filled; None where we may not mount one."""
    folder = Path(tempfile.mkdtemp(prefix="tidings-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)])
        folder.rmdir()


class NotHereError(Exception):
    """This machine lacks what the fault needs; the text says what."""


@asynccontextmanager
async def clock_jumps(stage: Stage, rng: random.Random, back: bool) -> AsyncIterator[None]:
    """The wall clock of a router, a store, a scheduler and an edge jumps by an hour, and goes right again."""
    if _FAKETIME is None:
        raise NotHereError("needs libfaketime (Debian's package of that name)")
    names = [rng.choice(stage.names(service)) for service in ("router", "store", "scheduler", "edge")]
    clock = stage.folder / "clock"
    clock.write_text("+0")
    told = {"LD_PRELOAD": str(_FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock)}
    told |= {"DONT_FAKE_MONOTONIC": "1", "FAKETIME_CACHE_DURATION": "1"}
    await _restarted(stage, names, told)
    clock.write_text(f"{'-' if back else '+'}{JUMP_SECONDS}")
    yield
    clock.write_text("+0")
    await _restarted(stage, names, {})


async def _restarted(stage: Stage, names: list[str], told: dict[str, str]) -> None:
    for name in names:
        stage.fleet.stop(name)
        await asyncio.to_thread(stage.fleet.await_end, name)
        stage.fleet.members[name].environment = told
        await stage.back(name)


@asynccontextmanager
async def disk_full(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """Nothing more fits on the database's disk, until something is removed; where PostgreSQL gave up it is started again."""
    disk = stage.postgres.folder
    free = shutil.disk_usage(disk).free
    if free > 1 << 30:
        raise NotHereError("needs a small disk for the database: root, to mount one")
    ballast = disk / "ballast"
    await asyncio.to_thread(_fill, ballast)
    yield
    ballast.unlink()
    await asyncio.to_thread(stage.postgres.revive)


def _fill(path: Path) -> None:
    with path.open("wb") as file, suppress(OSError):
        while True:
            file.write(b"\0" * _SPARE_BYTES)
            file.flush()


@asynccontextmanager
async def all_restarted(stage: Stage, rng: random.Random) -> AsyncIterator[None]:
    """Every process, one after the other, is stopped in order and started again; nobody is asked to come back in a crowd."""
    async with _crowd(stage) as reconnects:
        for name in list(stage.fleet.members):
            stage.fleet.stop(name)
            await asyncio.to_thread(stage.fleet.await_end, name)
            await stage.back(name)
        yield
    RECONNECTS.write_text(json.dumps(reconnects))
    worst = max(reconnects.values(), default=0)
    assert sum(reconnects.values()) >= CROWD / 2, f"only {sum(reconnects.values())} reconnects: the crowd was not there"
    assert worst <= MOST_RECONNECTS, f"{worst} of {CROWD} clients came back within one second"


@asynccontextmanager
async def _crowd(stage: Stage) -> AsyncIterator[dict[str, int]]:
    """Clients in a process of their own; in the end, how many came back in each second."""
    keys = json.dumps({"url": stage.fleet.url, "tokens": [[f"crowd{n}", stage.fleet.token(f"crowd{n}")] for n in range(CROWD)]})
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.faults.crowd", stdin=pipe, stdout=pipe)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(keys.encode() + b"\n")
    reconnects: dict[str, int] = {}
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"all there\n", f"the crowd did not come to {HOST}"
        yield reconnects
        process.stdin.write(b"enough\n")
        reconnects |= json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

"""The example in the docs does what the docs say, as a program of its own."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.scheduler.mesh_under_test import Mesh
from tests.scheduler.router_twin import Router

EXAMPLE = Path(__file__).parents[2] / "docs/examples/python/notify.py"


async def test_it_uploads_and_watches_to_the_end(mesh: Mesh, router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh.real_time(monkeypatch)
    store = await mesh.store()
    mesh.tags.put("vip", *await store.ordinals("ann", "bob"))
    await mesh.audience()
    business = await mesh.scheduler()
    command = [sys.executable, str(EXAMPLE), "vip", "The doors are open", "--scheduler", business.address]
    program = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert program.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await program.stdout.readline() == b"2 of 2 clients are meant\n"
            uploaded = (await program.stdout.readline()).decode().split()
            assert uploaded[0] == "uploaded"
            await router.until(lambda: uploaded[1] in router.ids)
            await business.cancel(uploaded[1])
            told = (await program.stdout.read()).decode().splitlines()
            assert told[-1].startswith("CANCELLED: 0 of 0 have it")
            assert await program.wait() == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


async def test_it_says_what_is_wrong(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    await mesh.store()
    await mesh.audience()
    business = await mesh.scheduler()
    command = [sys.executable, str(EXAMPLE), "nosuch", "The doors are open", "--scheduler", business.address]
    program = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(program.communicate(), 30)
    assert said.startswith(b"UNKNOWN_TAG: audience.expression: column 1")
    assert program.returncode == 1

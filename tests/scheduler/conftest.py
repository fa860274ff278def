"""A scheduler over a real store on SQLite."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from store.migrate import migrate
from store.serve import open_database
from store.settings import StoreSettings
from tests.scheduler.business import Business
from tests.scheduler.mesh_under_test import Mesh, Store
from tests.scheduler.router_twin import Router


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy, so that a test doesn't wait for the migrations."""
    path = tmp_path_factory.mktemp("scheduler") / "migrated.sqlite"
    asyncio.run(_migrate(path))
    return path


@pytest.fixture
async def mesh(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mesh]:
    """An empty mesh."""
    async with AsyncExitStack() as stack:
        mesh = Mesh(stack, tmp_path, migrated, monkeypatch)
        try:
            yield mesh
        finally:
            await stack.aclose()
            mesh.telemetry.close()


@pytest.fixture
async def store(mesh: Mesh) -> Store:
    """The mesh's store."""
    return await mesh.store()


@pytest.fixture
async def router(mesh: Mesh) -> Router:
    """A router that takes what it is given."""
    return await mesh.router()


@pytest.fixture
async def business(mesh: Mesh, store: Store) -> Business:
    """A business that calls a scheduler beside the store and the tags' service; without routers unless a test asks for one."""
    await mesh.audience()
    return await mesh.scheduler()


async def _migrate(path: Path) -> None:
    options: dict[str, Any] = {"database": f"sqlite:///{path}"}
    async with open_database(StoreSettings(**options)) as (database, _):
        await database.write(migrate)

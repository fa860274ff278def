"""tagsvc over a store in memory, in one process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from tagsvc.serve import serve
from tagsvc.settings import TagsvcSettings
from tests.tagsvc import twin
from tests.tagsvc.client import TagClient, connected
from tests.tagsvc.twin import Memory
from tidings.common.v1.instance_pb2 import Instance


class Mesh:
    """Stores and tagsvcs over one registry and one memory.

    Attributes:
        memory: what the stores hold.
        registry: where all are registered.
        telemetry: everyone's.
    """

    def __init__(self, stack: AsyncExitStack) -> None:
        self.memory = Memory()
        self.registry = MemoryRegistry()
        self.telemetry = Telemetry("test")
        self._stack = stack

    async def store(self, stack: AsyncExitStack | None = None) -> Instance:
        """One more store, until the end of the test or until that stack is closed."""
        return await (stack or self._stack).enter_async_context(twin.serve(self.memory, self.registry, self.telemetry))

    async def instance(self, stack: AsyncExitStack | None = None, **settings: object) -> Instance:
        """One more tagsvc, likewise."""
        quick: dict[str, object] = {"port": 0, "drain_seconds": 2.0}
        configured = TagsvcSettings(**(quick | settings))  # type: ignore[arg-type]
        return await (stack or self._stack).enter_async_context(serve(configured, self.registry, self.telemetry))

    async def queued(self, number: int) -> None:
        """Wait until so many changes wait to be logged."""
        async with asyncio.timeout(10):
            while f"tagsvc_write_queue {float(number)}" not in self.telemetry.exposition().decode():  # noqa: ASYNC110  (it can only be looked at)
                await asyncio.sleep(0.01)

    async def tagsvc(self, stack: AsyncExitStack | None = None, **settings: object) -> TagClient:
        """One more tagsvc, likewise; a client of it."""
        instance = await self.instance(stack, **settings)
        return await (stack or self._stack).enter_async_context(connected(instance.public_url))


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    """An empty mesh."""
    async with AsyncExitStack() as stack:
        mesh = Mesh(stack)
        try:
            yield mesh
        finally:
            await stack.aclose()
            mesh.telemetry.close()


@pytest.fixture
async def tagsvc(mesh: Mesh) -> TagClient:
    """A tagsvc over one store."""
    await mesh.store()
    return await mesh.tagsvc()

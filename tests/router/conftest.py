"""A router over a store in memory, in one process."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from router.serve import serve
from router.settings import RouterSettings
from tests.router import store_twin
from tests.router.store_twin import Memory
from tidings.common.v1.instance_pb2 import Instance


class Mesh:
    """Stores and routers over one registry and one memory.

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

    async def store(self) -> Instance:
        """One more store, until the end of the test."""
        return await self._stack.enter_async_context(store_twin.serve(self.memory, self.registry, self.telemetry))

    async def store_on(self, stack: AsyncExitStack) -> Instance:
        """One more store, until that stack is closed."""
        return await stack.enter_async_context(store_twin.serve(self.memory, self.registry, self.telemetry))

    async def router(self, stack: AsyncExitStack | None = None, **settings: object) -> Instance:
        """One more router, until the end of the test or until that stack is closed."""
        quick: dict[str, object] = {"port": 0, "presence_grace_seconds": 0.2, "drain_seconds": 2.0, "dispatch_seconds": 0.05}
        configured = RouterSettings(**(quick | settings))  # type: ignore[arg-type]
        return await (stack or self._stack).enter_async_context(serve(configured, self.registry, self.telemetry))


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
async def router(mesh: Mesh) -> Instance:
    """A router over one store."""
    await mesh.store()
    return await mesh.router()

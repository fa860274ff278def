"""Who exists: the port by which services find each other, and its twin in memory.

What a watcher gets is always a whole set, so a missed or repeated update does no harm. The registry is a hint: whatever must
have one owner carries a fencing number that the store checks.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from mesh.local_server import LocalServers
from tidings.common.v1.instance_pb2 import Instance

Nodes = dict[str, Instance]
"""Instances of one service by instance id."""


class Registration(Protocol):
    """An instance's entry, kept alive while its context is open."""

    async def update(self, instance: Instance) -> None:
        """Replace the entry, for example to say that the instance drains."""


class Registry(Protocol):
    """The port. `MemoryRegistry` and `EtcdRegistry` implement it; one contract test runs against both.

    Attributes:
        local: those of the servers it names that are in this very process, to be called without a socket; None to dial them all.
    """

    local: LocalServers | None

    def register(self, instance: Instance) -> AbstractAsyncContextManager[Registration]:
        """Enter the instance until the context ends; enter it again whenever the lease was lost."""

    def watch(self, service: str) -> AsyncIterator[Nodes]:
        """The service's instances: at once as they are now, then again after each change. Never ends by itself."""


def trusted(known: Nodes, update: Nodes) -> bool:
    """Whether to believe an update at first sight: one that drops more than half of three or more nodes at once is more likely
    a fault of the registry than of the nodes."""
    gone = sum(1 for node in known if node not in update)
    return len(known) < 3 or gone * 2 <= len(known)


class MemoryRegistry:
    """The registry of a mesh that lives in one process; it knows no leases, because nothing can die by itself there."""

    def __init__(self, local: LocalServers | None = None) -> None:
        self.local = local
        self._nodes: dict[str, Nodes] = {}
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def register(self, instance: Instance) -> AsyncIterator[Registration]:
        """See `Registry`."""
        registration = _MemoryRegistration(self)
        await registration.update(instance)
        try:
            yield registration
        finally:
            await self._put(instance.service, instance.instance_id, None)

    async def watch(self, service: str) -> AsyncIterator[Nodes]:
        """See `Registry`."""
        seen: Nodes | None = None
        while True:
            async with self._changed:
                while self._nodes.get(service, {}) == seen:
                    await self._changed.wait()
                seen = self._nodes.get(service, {})  # replaced at each change, never changed
            yield dict(seen)

    async def _put(self, service: str, instance_id: str, instance: Instance | None) -> None:
        async with self._changed:
            nodes = dict(self._nodes.get(service, {}))
            if instance is None:
                nodes.pop(instance_id, None)
            else:
                nodes[instance_id] = instance
            self._nodes[service] = nodes
            self._changed.notify_all()


class _MemoryRegistration:
    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry

    async def update(self, instance: Instance) -> None:
        copy = Instance()
        copy.CopyFrom(instance)
        await self._registry._put(instance.service, instance.instance_id, copy)

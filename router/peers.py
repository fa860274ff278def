"""The routers there are, and which of them owns a key. Ownership is for batching and caching: nothing's truth hangs on it."""

import asyncio

from mesh.naming import owner
from mesh.registry import Nodes, Registry


class Peers:
    """The live routers, this one among them once it is registered."""

    def __init__(self, router_id: str) -> None:
        self._me = router_id
        self._live: frozenset[str] = frozenset()
        self.changed = asyncio.Event()

    def owns(self, key: str) -> bool:
        """Whether this router owns a key: a conversation id, or the decimal text of a user ordinal."""
        return owner(key, self._live) == self._me

    def update(self, nodes: Nodes) -> None:
        """The registry's word. Routers that drain own nothing."""
        live = frozenset(one for one, instance in nodes.items() if not instance.draining)
        if live != self._live:
            self._live = live
            self.changed.set()

    async def follow(self, registry: Registry) -> None:
        """Keep up with the registry until cancelled."""
        async for nodes in registry.watch("router"):
            self.update(nodes)

"""One long conversation with each registered instance of a service, kept up for as long as the instance is registered.

A conversation that ends is begun again with backoff and full jitter. An instance that left the registry keeps its conversation
until that ends by itself: the registry is a hint, the stream is the fact.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog

from mesh import rpc
from mesh.local_server import LocalServers
from mesh.mutual_tls import MutualTls
from mesh.registry import Nodes, Registry
from mesh.telemetry import Telemetry
from tidings.common.v1.instance_pb2 import Instance

BACKOFF_BASE_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 2.0

_FAULTS = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError, TimeoutError, ConnectionError)
_log = structlog.get_logger(__name__)


class Peer:
    """One instance.

    Attributes:
        instance: as it registered itself.
        channel: the gRPC channel to it; closed when the peer is given up.
        wanted: cleared when the instance is no longer registered.
        settled: set by the conversation once it works, so that the backoff begins anew.
    """

    def __init__(self, instance: Instance, channel: grpc.aio.Channel) -> None:
        self.instance = instance
        self.channel = channel
        self.wanted = True
        self.settled = False


Converse = Callable[[Peer], Coroutine[Any, Any, None]]


class Peers:
    """Follows the registry. Open it with `following`."""

    def __init__(self, service: str, converse: Converse, telemetry: Telemetry, tls: MutualTls | None) -> None:
        self._service = service
        self._converse = converse
        self._telemetry = telemetry
        self._tls = tls
        self._peers: dict[str, tuple[Peer, asyncio.Task[None]]] = {}

    @classmethod
    @asynccontextmanager
    async def following(
        cls, registry: Registry, service: str, converse: Converse, telemetry: Telemetry, tls: MutualTls | None = None
    ) -> AsyncIterator[None]:
        """Hold a conversation with every instance of a service until the context ends; in plain text without `tls`."""
        peers = cls(service, converse, telemetry, tls)
        watcher = asyncio.create_task(peers._watch(registry), name=f"watch {service}")
        try:
            yield
        finally:
            tasks = [watcher, *(task for _, task in peers._peers.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, registry: Registry) -> None:
        async for nodes in registry.watch(self._service):
            self._follow(nodes, registry.local)

    def _follow(self, nodes: Nodes, local: LocalServers | None) -> None:
        for instance_id, (peer, _) in self._peers.items():
            peer.wanted = instance_id in nodes
        for instance_id, instance in nodes.items():
            if instance_id not in self._peers:
                channel = rpc.channel(instance.grpc_address, self._telemetry, self._service, self._tls, local)
                peer = Peer(instance, channel)
                self._peers[instance_id] = (peer, asyncio.create_task(self._keep(peer), name=f"peer {instance_id}"))

    async def _keep(self, peer: Peer) -> None:
        attempt = 0
        try:
            while peer.wanted:
                peer.settled = False
                await self._converse_once(peer)
                attempt = 0 if peer.settled else attempt + 1
                await asyncio.sleep(_backoff(attempt))
        finally:
            del self._peers[peer.instance.instance_id]
            await peer.channel.close()

    async def _converse_once(self, peer: Peer) -> None:
        who = peer.instance.instance_id
        try:
            await self._converse(peer)
            _log.info("conversation ended", peer=who)
        except _FAULTS as fault:
            _log.warning("conversation lost", peer=who, fault=_describe(fault))
        except asyncio.CancelledError:  # so ends, too, a call that the conversation itself gave up
            if _being_cancelled():
                raise
            _log.warning("conversation given up", peer=who)
        except Exception:
            _log.exception("conversation failed", peer=who)  # a fault of ours; the next attempt begins clean


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _backoff(attempt: int) -> float:
    """Full jitter: anywhere up to a limit that doubles."""
    return random.uniform(0, min(BACKOFF_MAX_SECONDS, BACKOFF_BASE_SECONDS * 2**attempt))  # noqa: S311  (no secret)


def _describe(fault: BaseException) -> str:
    return f"{fault.code().name}: {fault.details()}" if isinstance(fault, grpc.aio.AioRpcError) else repr(fault)

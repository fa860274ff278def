"""The registry over etcd 3: keys /tidings/<service>/<instance_id> under leases, values are `Instance` messages.

A watch event only says "list again"; besides, everything is listed again every 30 s and after each reconnect, so an event that
etcd lost, repeated or compacted away does no harm. While etcd is away the last known nodes stay.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from etcd3aio import Etcd3Client
from etcd3aio.errors import EtcdError
from etcd3aio.kv import KVService, prefix_range_end
from etcd3aio.lease import LeaseService
from etcd3aio.watch import WatchService
from google.protobuf.message import DecodeError
from grpc.aio import AioRpcError

from mesh.local_server import LocalServers
from mesh.registry import Nodes, Registration, trusted
from tidings.common.v1.instance_pb2 import Instance

LEASE_SECONDS = 5
RELIST_SECONDS = 30.0
DOUBT_SECONDS = 10.0  # how long an update that drops most nodes must last before it is believed
RETRY_SECONDS = 0.5
CALL_SECONDS = 3.0

_log = structlog.get_logger(__name__)
_FAULTS = (EtcdError, AioRpcError, TimeoutError)


class EtcdRegistry:
    """See `mesh.registry.Registry`. Open it with `EtcdRegistry.open`."""

    local: LocalServers | None = None

    def __init__(self, kv: KVService, leases: LeaseService, watches: WatchService) -> None:
        self._kv = kv
        self._leases = leases
        self._watches = watches

    @classmethod
    @asynccontextmanager
    async def open(cls, endpoints: list[str]) -> AsyncIterator["EtcdRegistry"]:
        """Connect to a cluster, given as host:port."""
        async with Etcd3Client(endpoints) as client:
            assert client.kv and client.lease and client.watch  # noqa: S101  (they are there while the client is open)
            yield cls(client.kv, client.lease, client.watch)

    @asynccontextmanager
    async def register(self, instance: Instance) -> AsyncIterator[Registration]:
        """See `Registry`. Returns once the instance is entered for the first time."""
        registration = _EtcdRegistration(self._kv, self._leases, instance)
        task = asyncio.create_task(registration.keep())
        try:
            await registration.entered.wait()
            yield registration
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await registration.leave()

    async def watch(self, service: str) -> AsyncIterator[Nodes]:
        """See `Registry`."""
        changed = asyncio.Event()
        pump = asyncio.create_task(self._pump(_key(service), changed))
        known: Nodes | None = None
        try:
            while True:
                changed.clear()
                nodes = await self._list(service)
                if known is not None and not trusted(known, nodes):
                    _log.warning("most nodes gone at once; waiting before believing it", service=service)
                    await asyncio.sleep(DOUBT_SECONDS)
                    nodes = await self._list(service)
                if nodes != known:
                    known = nodes
                    yield dict(nodes)
                # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RELIST_SECONDS):
                        await changed.wait()
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _list(self, service: str) -> Nodes:
        prefix = _key(service)
        while True:
            try:
                found = await self._kv.get(prefix, prefix_range_end(prefix), timeout=CALL_SECONDS)
            except _FAULTS as fault:
                _log.warning("etcd did not answer; keeping what is known", fault=str(fault))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            instances = [instance for pair in found.kvs if (instance := _parse(pair.key, pair.value)) is not None]
            return {instance.instance_id: instance for instance in instances}

    async def _pump(self, prefix: str, changed: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(*_FAULTS):
                async for _ in self._watches.watch(prefix, prefix_range_end(prefix)):
                    changed.set()
            await asyncio.sleep(RETRY_SECONDS)
            changed.set()


class _EtcdRegistration:
    def __init__(self, kv: KVService, leases: LeaseService, instance: Instance) -> None:
        self._kv = kv
        self._leases = leases
        self._instance = instance
        self._lease = 0
        self._behind = False  # an update hasn't reached etcd yet
        self._writing = asyncio.Lock()
        self.entered = asyncio.Event()

    async def update(self, instance: Instance) -> None:
        """See `Registration`. When etcd is away, the next entry carries the update."""
        self._instance, self._behind = instance, True
        with contextlib.suppress(*_FAULTS):
            await self._put()

    async def keep(self) -> None:
        """Hold a lease; take a new one and enter again whenever it is lost."""
        while True:
            try:
                await self._enter()
                await self._hold()
            except _FAULTS as fault:
                _log.warning("can't register; trying again", fault=str(fault), instance=self._instance.instance_id)
                await asyncio.sleep(RETRY_SECONDS)

    async def _enter(self) -> None:
        lease = (await self._leases.grant(LEASE_SECONDS, timeout=CALL_SECONDS)).ID
        await self._put(lease)
        self.entered.set()

    async def _hold(self) -> None:
        """Renew the lease until it is lost or an update is; or for a while, so that an entry removed by hand comes back."""
        until = time.monotonic() + RELIST_SECONDS
        while time.monotonic() < until and await self._renew():
            await asyncio.sleep(LEASE_SECONDS / 4)
            if self._behind:
                return

    async def _renew(self) -> bool:
        stream = self._leases.keep_alive(self._lease)
        try:
            # Not the library's own keep-alive loop: it waits without a deadline, so a frozen etcd would hold it for ever.
            async with asyncio.timeout(CALL_SECONDS):
                return any([answer.TTL > 0 async for answer in stream])
        finally:
            stream.cancel()

    async def leave(self) -> None:
        """Give the lease back, and the entry with it."""
        with contextlib.suppress(*_FAULTS):
            await self._leases.revoke(self._lease, timeout=CALL_SECONDS)

    async def _put(self, lease: int | None = None) -> None:
        """Write the entry; under a new lease when one is given. One at a time, so that the newest write is the last."""
        async with self._writing:
            self._lease = self._lease if lease is None else lease
            written, key = self._instance, _key(self._instance.service) + self._instance.instance_id
            await self._kv.put(key, written.SerializeToString(), lease=self._lease, timeout=CALL_SECONDS)
            self._behind = self._behind and written is not self._instance


def _key(service: str) -> str:
    return f"/tidings/{service}/"


def _parse(key: bytes, value: bytes) -> Instance | None:
    try:
        return Instance.FromString(value)
    except DecodeError:
        _log.warning("an entry is not an Instance; leaving it out", key=key.decode(errors="replace"))
        return None

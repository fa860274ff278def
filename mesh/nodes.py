"""The instances of a service that others call: found through the registry, one channel each, one picked for each call.

Rules: an instance that failed is passed over for a moment while others live. One that leaves is given nothing new, and its channel
closes when its calls have ended. `call` and `stream` may ask several instances, so only what may be repeated goes through them.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import grpc
import structlog

from mesh import errors, naming, process, rpc
from mesh.patience import PASSING
from mesh.registry import Nodes, Registry
from mesh.telemetry import Telemetry
from tidings.common.v1.instance_pb2 import Instance

ATTEMPTS = 3  # instances asked before a call gives up; a caller that must succeed calls again
_SHUN_SECONDS = 1.0  # how long an instance that failed is passed over while others live
_CLOSE_SECONDS = 30.0  # how long calls under way at an instance that left may take
_log = structlog.get_logger(__name__)
Q = TypeVar("Q")
R = TypeVar("R")
S = TypeVar("S")


class Node:
    """One instance: its channel and stubs.

    Attributes:
        leaving: set when it drains or is gone from the registry.
        shunned_until: monotonic seconds until which it is passed over.
    """

    def __init__(self, instance: Instance, telemetry: Telemetry) -> None:
        self.instance_id = instance.instance_id
        self.channel = rpc.channel(instance.grpc_address, telemetry)
        self.leaving = asyncio.Event()
        self.shunned_until = 0.0
        self._stubs: dict[object, Any] = {}

    def stub(self, kind: Callable[[grpc.aio.Channel], S]) -> S:
        """The stub of this generated class on its channel."""
        found = self._stubs.get(kind)
        if found is None:
            found = self._stubs[kind] = kind(self.channel)
        return cast(S, found)

    def shun(self) -> None:
        """Pass it over for a moment: it failed."""
        self.shunned_until = time.monotonic() + _SHUN_SECONDS


class NodePool:
    """The instances of one service, as the registry tells of them.

    Args:
        service: "store", "router" or "tagsvc".
        retried: called when a call failed and is made again.
    """

    def __init__(self, service: str, telemetry: Telemetry, retried: Callable[[], None] | None = None) -> None:
        self._service = service
        self._telemetry = telemetry
        self._retried = retried or (lambda: None)
        self._nodes: dict[str, Node] = {}
        self._turn = itertools.count()
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, registry: Registry, service: str, telemetry: Telemetry, retried: Callable[[], None] | None = None
    ) -> "AsyncIterator[NodePool]":
        """Follow the registry until the context ends."""
        pool = cls(service, telemetry, retried)
        try:
            async with process.background(pool._follow(registry)):
                yield pool
        finally:
            await pool._close()

    def pick(self) -> Node:
        """An instance to ask, in turn.

        Raises:
            TidingsError: UNAVAILABLE when there is none.
        """
        nodes = [node for node in self._nodes.values() if not node.leaving.is_set()] or list(self._nodes.values())
        if not nodes:
            raise errors.unavailable(f"no {self._service} is up")
        now = time.monotonic()
        willing = [node for node in nodes if node.shunned_until <= now] or nodes
        return willing[next(self._turn) % len(willing)]

    def owner(self, key: str) -> Node:
        """The instance that owns a key: rendezvous over those that don't leave.

        Raises:
            TidingsError: UNAVAILABLE when there is none.
        """
        chosen = naming.owner(key, (one for one, node in self._nodes.items() if not node.leaving.is_set()))
        if chosen is None:
            raise errors.unavailable(f"no {self._service} is up")
        return self._nodes[chosen]

    async def call(
        self, method: "Callable[[Node], grpc.aio.UnaryUnaryMultiCallable[Q, R]]", request: Q, timeout: float | None = None
    ) -> R:
        """Ask an instance, and others when it fails.

        Raises:
            TidingsError: what the instance answered; UNAVAILABLE when none did.
        """
        for attempt in itertools.count(1):
            node = self.pick()
            try:
                with rpc.named_errors():
                    return await cast(Awaitable[R], method(node)(request, timeout=timeout))
            except errors.TidingsError as error:
                self._failed(node, error, attempt)
        raise AssertionError("count never ends")

    async def stream(
        self, method: "Callable[[Node], grpc.aio.UnaryStreamMultiCallable[Q, R]]", request: Q, timeout: float | None = None
    ) -> AsyncIterator[R]:
        """The responses of an instance, or of another when it fails before the first of them.

        Raises:
            TidingsError: as `call`; after the first response whatever ends the stream.
        """
        for attempt in itertools.count(1):
            node, begun = self.pick(), False
            responses = method(node)(request, timeout=timeout)
            try:
                with rpc.named_errors():
                    async for response in responses:
                        begun = True
                        yield response
                return
            except errors.TidingsError as error:
                if begun:
                    raise
                self._failed(node, error, attempt)
            finally:
                responses.cancel()

    def _failed(self, node: Node, error: errors.TidingsError, attempt: int) -> None:
        """Raise the error again unless another instance may do better."""
        if error.code not in PASSING:
            raise error
        node.shun()
        if attempt >= min(ATTEMPTS, len(self._nodes)):
            raise error
        self._retried()

    async def _follow(self, registry: Registry) -> None:
        async for instances in registry.watch(self._service):
            self._update(instances)

    def _update(self, instances: Nodes) -> None:
        for instance_id, instance in instances.items():
            if instance_id not in self._nodes:
                self._nodes[instance_id] = Node(instance, self._telemetry)
                _log.info("found", service=self._service, instance=instance_id, address=instance.grpc_address)
            if instance.draining:
                self._nodes[instance_id].leaving.set()
        for gone in self._nodes.keys() - instances.keys():
            self._retire(self._nodes.pop(gone))

    def _retire(self, node: Node) -> None:
        _log.info("gone", service=self._service, instance=node.instance_id)
        node.leaving.set()
        closing = asyncio.create_task(node.channel.close(_CLOSE_SECONDS))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self) -> None:
        for closing in self._closing:
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for node in self._nodes.values():
            with contextlib.suppress(asyncio.CancelledError):
                await node.channel.close()

"""The stores there are: found through the registry, one channel each, one picked for each call.

Rules: a store that failed is passed over for a moment while others live. A store that leaves is given nothing new, and its channel
closes when its calls have ended. Every call to a store may be repeated at another: the store's contract makes that safe.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import grpc
import structlog

from mesh import errors, process, rpc
from mesh.registry import Nodes, Registry
from mesh.telemetry import Telemetry
from router.meters import Meters
from tidings.common.v1 import error_pb2
from tidings.common.v1.instance_pb2 import Instance
from tidings.store.v1.conversation_pb2_grpc import ConversationServiceStub
from tidings.store.v1.message_log_pb2_grpc import MessageLogServiceStub
from tidings.store.v1.user_pb2_grpc import UserServiceStub

PASSING = {error_pb2.ERROR_CODE_UNAVAILABLE, error_pb2.ERROR_CODE_OVERLOADED, error_pb2.ERROR_CODE_RATE_LIMITED}
ATTEMPTS = 3  # stores asked before a call gives up; a caller that must succeed calls again
_SHUN_SECONDS = 1.0  # how long a store that failed is passed over while others live
_CLOSE_SECONDS = 30.0  # how long calls under way at a store that left may take
_log = structlog.get_logger(__name__)
Q = TypeVar("Q")
R = TypeVar("R")


class StoreNode:
    """One store: its channel and stubs.

    Attributes:
        leaving: set when it drains or is gone from the registry.
        shunned_until: monotonic seconds until which it is passed over.
    """

    def __init__(self, instance: Instance, telemetry: Telemetry) -> None:
        self.instance_id = instance.instance_id
        self.channel = rpc.channel(instance.grpc_address, telemetry)
        self.log = MessageLogServiceStub(self.channel)
        self.conversations = ConversationServiceStub(self.channel)
        self.users = UserServiceStub(self.channel)
        self.leaving = asyncio.Event()
        self.shunned_until = 0.0

    def shun(self) -> None:
        """Pass it over for a moment: it failed."""
        self.shunned_until = time.monotonic() + _SHUN_SECONDS


class StorePool:
    """The stores, as the registry tells of them."""

    def __init__(self, telemetry: Telemetry, meters: Meters) -> None:
        self._telemetry = telemetry
        self._meters = meters
        self._nodes: dict[str, StoreNode] = {}
        self._turn = itertools.count()
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, registry: Registry, telemetry: Telemetry, meters: Meters) -> "AsyncIterator[StorePool]":
        """Follow the registry until the context ends."""
        pool = cls(telemetry, meters)
        try:
            async with process.background(pool._follow(registry)):
                yield pool
        finally:
            await pool._close()

    def pick(self) -> StoreNode:
        """A store to ask, in turn.

        Raises:
            TidingsError: UNAVAILABLE when there is none.
        """
        nodes = [node for node in self._nodes.values() if not node.leaving.is_set()] or list(self._nodes.values())
        if not nodes:
            raise errors.unavailable("no store is up")
        now = time.monotonic()
        willing = [node for node in nodes if node.shunned_until <= now] or nodes
        return willing[next(self._turn) % len(willing)]

    async def call(self, method: "Callable[[StoreNode], grpc.aio.UnaryUnaryMultiCallable[Q, R]]", request: Q) -> R:
        """Ask a store, and others when it fails.

        Raises:
            TidingsError: what the store answered; UNAVAILABLE when none did.
        """
        for attempt in itertools.count(1):
            node = self.pick()
            try:
                with rpc.named_errors():
                    return await cast(Awaitable[R], method(node)(request))
            except errors.TidingsError as error:
                if error.code not in PASSING:
                    raise
                node.shun()
                if attempt >= min(ATTEMPTS, len(self._nodes)):
                    raise
                self._meters.retried()
        raise AssertionError("count never ends")

    async def _follow(self, registry: Registry) -> None:
        async for instances in registry.watch("store"):
            self._update(instances)

    def _update(self, instances: Nodes) -> None:
        for instance_id, instance in instances.items():
            if instance_id not in self._nodes:
                self._nodes[instance_id] = StoreNode(instance, self._telemetry)
                _log.info("store found", store=instance_id, address=instance.grpc_address)
            if instance.draining:
                self._nodes[instance_id].leaving.set()
        for gone in self._nodes.keys() - instances.keys():
            self._retire(self._nodes.pop(gone))

    def _retire(self, node: StoreNode) -> None:
        _log.info("store gone", store=node.instance_id)
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

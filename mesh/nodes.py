"""The instances of a service that others call: found through the registry, one channel each, one picked for each call.

Rules: one in the same process, which costs no socket and no thread, is asked before the others, unless it failed within the last
half a minute. An instance that failed is passed over for a while, as its `Breaker` says, while others live; when all have failed,
the one whose time is nearest is asked; one that was silent is asked now and then whether it lives. One that leaves is given nothing
new, and its channel closes when its calls have ended. `call` and `stream` may ask several instances, so only what may be repeated
goes through them; each but the last gets a share of the caller's time, so that one which is frozen, and keeps its connections open,
costs that share and no more.
"""

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import grpc
import structlog

from mesh import errors, naming, process, rpc
from mesh.breaker import State
from mesh.local_server import LocalServers
from mesh.mutual_tls import MutualTls
from mesh.node import Node
from mesh.patience import PASSING
from mesh.registry import Nodes, Registry
from mesh.telemetry import Telemetry

ATTEMPTS = 3  # instances asked before a call gives up; a caller that must succeed calls again
DEADLINE_SECONDS = 10.0  # of a call for which none is named
_SHARE = 0.25  # of the time that is left, for each instance but the last
_SHARE_SECONDS = 1.0  # but not less than this, nor than half of what is left: a healthy store may take as long
_STREAM_SECONDS = 5.0  # until the first response of a stream without a deadline; those that follow something answer at once
_PROBE_SECONDS = 0.25  # how often to look whether one that was silent is to be asked if it lives
_CLOSE_SECONDS = 30.0  # how long calls under way at an instance that left may take
_log = structlog.get_logger(__name__)
Q = TypeVar("Q")
R = TypeVar("R")


class NodePool:
    """The instances of one service, as the registry tells of them.

    Args:
        service: "store", "router" or "tagsvc".
        retried: called when a call failed and is made again.
        tls: None to call in plain text.
    """

    def __init__(
        self, service: str, telemetry: Telemetry, retried: Callable[[], None] | None = None, tls: MutualTls | None = None
    ) -> None:
        self._service = service
        self._telemetry = telemetry
        self._retried = retried or (lambda: None)
        self._tls = tls
        self._nodes: dict[str, Node] = {}
        self._turn = itertools.count()
        self._closing: set[asyncio.Task[None]] = set()
        self._probes: set[asyncio.Task[None]] = set()
        telemetry.gauge(f"mesh_{service}_nodes", f"Instances of {service} known to those who call it", lambda: len(self._nodes))
        telemetry.gauge(f"mesh_{service}_breakers_open", "Those of them that are passed over, for they failed", self._open)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        registry: Registry,
        service: str,
        telemetry: Telemetry,
        retried: Callable[[], None] | None = None,
        tls: MutualTls | None = None,
    ) -> "AsyncIterator[NodePool]":
        """Follow the registry until the context ends."""
        pool = cls(service, telemetry, retried, tls)
        try:
            async with process.background(pool._follow(registry), pool._probe()):
                yield pool
        finally:
            await pool._close()

    def pick(self, tried: Collection[str] = ()) -> Node:
        """An instance to ask: one in this very process, else in turn.

        Args:
            tried: ids of those to be asked only when there are no others.

        Raises:
            TidingsError: UNAVAILABLE when there is none.
        """
        nodes = self._choice(tried)
        if not nodes:
            raise errors.unavailable(f"no {self._service} is up")
        now = time.monotonic()
        willing = [node for node in nodes if node.breaker.admits(now)]
        if not willing:
            return min(nodes, key=lambda node: node.breaker.until)
        near = [node for node in willing if node.near]
        chosen = near if near and all(node.steady for node in near) else willing
        return chosen[next(self._turn) % len(chosen)]

    def nearer(self, node: Node) -> bool:
        """Whether one in this very process is to be asked rather than this one, which isn't."""
        return not node.near and any(one.near and one.steady and one.breaker.admits(time.monotonic()) for one in self._staying())

    def others(self, node: Node) -> bool:
        """Whether there is another instance to ask in place of this one."""
        now = time.monotonic()
        return any(one is not node and one.breaker.admits(now) for one in self._staying())

    def owner(self, key: str) -> Node:
        """The instance that owns a key: rendezvous over those that don't leave and, while there are such, have not just failed.

        Raises:
            TidingsError: UNAVAILABLE when there is none.
        """
        now = time.monotonic()
        nodes = {node.instance_id: node for node in self._staying()}
        willing = [one for one, node in nodes.items() if node.breaker.admits(now)]
        chosen = naming.owner(key, willing or nodes)
        if chosen is None:
            raise errors.unavailable(f"no {self._service} is up")
        return nodes[chosen]

    async def call(
        self, method: "Callable[[Node], grpc.aio.UnaryUnaryMultiCallable[Q, R]]", request: Q, timeout: float | None = None
    ) -> R:
        """Ask an instance, and others when it fails.

        Args:
            timeout: seconds for all of them together; None for 10, or what is left to the call being served.

        Raises:
            TidingsError: what the instance answered; UNAVAILABLE when none did.
        """
        until = time.monotonic() + rpc.remaining(DEADLINE_SECONDS if timeout is None else timeout)
        tried: set[str] = set()
        while True:
            node = self.pick(tried)
            tried.add(node.instance_id)
            within = self._share(until, tried)
            try:
                with node.judged(within):
                    return await cast(Awaitable[R], method(node)(request, timeout=within))
            except errors.TidingsError as error:
                self._ask_on(error, tried, until)

    async def stream(
        self,
        method: "Callable[[Node], grpc.aio.UnaryStreamMultiCallable[Q, R]]",
        request: Q,
        timeout: float | None = None,
        silence: float = math.inf,
    ) -> AsyncGenerator[R, None]:
        """The responses of an instance, or of another when it fails, or is silent for too long, before the first of them.

        Args:
            timeout: seconds for all of it; None for no bound, but then the first response is to come within 5.
            silence: seconds between two responses after which the stream counts as lost, where the other side speaks regularly.

        Raises:
            TidingsError: as `call`; after the first response whatever ends the stream.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        tried: set[str] = set()
        while True:
            node, begun = self.pick(tried), False
            tried.add(node.instance_id)
            within = self._share(until, tried)
            responses = method(node)(request, timeout=None if timeout is None else max(0.0, until - time.monotonic()))
            try:
                with node.judged(within):
                    async for response in _prompt(responses, min(within, silence), silence):
                        if not begun:
                            begun = True
                            node.answered()
                        yield response
                return
            except errors.TidingsError as error:
                if begun:
                    raise
                self._ask_on(error, tried, until)
            finally:
                responses.cancel()

    def _share(self, until: float, tried: Collection[str]) -> float:
        """Seconds that the instance asked now may take, of all that are left."""
        if until == math.inf:
            return _STREAM_SECONDS if self._more(tried) else math.inf
        left = max(0.0, until - time.monotonic())
        return max(left * _SHARE, min(_SHARE_SECONDS, left / 2)) if self._more(tried) else left

    def _ask_on(self, error: errors.TidingsError, tried: Collection[str], until: float) -> None:
        """Raise the error again unless another instance may do better."""
        if error.code not in PASSING or not self._more(tried) or time.monotonic() >= until:
            raise error
        self._retried()

    def _more(self, tried: Collection[str]) -> bool:
        """Whether another instance may be asked after these."""
        return len(tried) < ATTEMPTS and any(one not in tried for one in self._nodes)

    def _choice(self, tried: Collection[str]) -> list[Node]:
        """Those to choose from, the best kind of which there are any."""
        fresh = [node for node in self._nodes.values() if node.instance_id not in tried]
        return [node for node in fresh if not node.leaving.is_set()] or fresh or list(self._nodes.values())

    def _staying(self) -> list[Node]:
        return [node for node in self._nodes.values() if not node.leaving.is_set()]

    def _open(self) -> int:
        return sum(1 for node in self._nodes.values() if node.breaker.state is not State.CLOSED)

    async def _follow(self, registry: Registry) -> None:
        async for instances in registry.watch(self._service):
            self._update(instances, registry.local)

    def _update(self, instances: Nodes, local: LocalServers | None = None) -> None:
        for instance_id, instance in instances.items():
            if instance_id not in self._nodes:
                channel = rpc.channel(instance.grpc_address, self._telemetry, self._service, self._tls, local)
                self._nodes[instance_id] = Node(instance, channel)
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

    async def _probe(self) -> None:
        """Ask those that were silent whether they live, when it is time to."""
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            for node in self._nodes.values():
                if node.breaker.doubted(time.monotonic()):
                    node.breaker.on_asked(time.monotonic())
                    probe = asyncio.create_task(node.probe())
                    self._probes.add(probe)
                    probe.add_done_callback(self._probes.discard)

    async def _close(self) -> None:
        ending = [*self._closing, *self._probes]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for node in self._nodes.values():
            with contextlib.suppress(asyncio.CancelledError):
                await node.channel.close()


async def _prompt(responses: "grpc.aio.UnaryStreamCall[Q, R]", within: float, silence: float) -> AsyncIterator[R]:
    """The responses of a stream: the first must come within so many seconds, each of the others after no longer silence."""
    iterator, patience = aiter(responses), within
    while True:
        try:
            async with asyncio.timeout(None if patience == math.inf else patience):
                response = await anext(iterator)
        except StopAsyncIteration:
            return
        except TimeoutError as fault:
            raise errors.unavailable("a service needed for this did not answer in time; send it again") from fault
        yield response
        patience = silence

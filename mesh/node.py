"""One instance of a service that others call: its channel, its stubs, and whether it answers."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from mesh import errors, rpc
from mesh.breaker import Breaker, State
from mesh.local_channel import LocalChannel
from mesh.patience import PASSING
from tidings.common.v1.instance_pb2 import Instance

_TELLING_SECONDS = 0.05  # a call that had less time tells nothing about the instance
_PROBE_SECONDS = 1.0  # to say that it lives
_STEADY_SECONDS = 30.0  # without a failure
_log = structlog.get_logger(__name__)
S = TypeVar("S")


class Node:
    """One instance: its channel and stubs.

    Attributes:
        near: whether it is in this very process.
        leaving: set when it drains or is gone from the registry.
        breaker: whether to ask it.
    """

    def __init__(self, instance: Instance, channel: grpc.aio.Channel) -> None:
        self.instance_id = instance.instance_id
        self.channel = channel
        self.near = isinstance(channel, LocalChannel)
        self._failed_at = -math.inf
        self.leaving = asyncio.Event()
        self.breaker = Breaker(_jitter)
        self._stubs: dict[object, Any] = {}

    @property
    def steady(self) -> bool:
        """Whether it has not failed lately. What failed may be its way to a third, such as a database, and still does while it
        answers that it lives."""
        return time.monotonic() - self._failed_at > _STEADY_SECONDS

    def stub(self, kind: Callable[[grpc.aio.Channel], S]) -> S:
        """The stub of this generated class on its channel."""
        found = self._stubs.get(kind)
        if found is None:
            found = self._stubs[kind] = kind(self.channel)
        return cast(S, found)

    @contextmanager
    def judged(self, within: float = math.inf) -> Iterator[None]:
        """A call to it: names its errors, and lets the breaker learn from how it goes.

        Args:
            within: seconds that the call has.

        Raises:
            TidingsError: the call failed.
        """
        self.breaker.on_asked(time.monotonic())
        try:
            with rpc.named_errors():
                yield
        except errors.TidingsError as error:
            self.failed(error, within)
            raise
        except BaseException:
            self.breaker.on_forgotten(time.monotonic())
            raise
        self.answered()

    async def probe(self) -> None:
        """Ask whether it lives."""
        with contextlib.suppress(errors.TidingsError, grpc.aio.UsageError), self.judged():
            await self.stub(health_pb2_grpc.HealthStub).Check(health_pb2.HealthCheckRequest(), timeout=_PROBE_SECONDS)

    def answered(self) -> None:
        """It answered."""
        if self.breaker.state is not State.CLOSED:
            _log.info("asked again", instance=self.instance_id)
        self.breaker.on_answered()

    def failed(self, error: errors.TidingsError, within: float = math.inf) -> None:
        """A call to it, which had so many seconds, failed; what it refuses for good is an answer."""
        if error.code not in PASSING:
            self.answered()
        elif not silent(error):
            self._failed(self.breaker.on_refused, error)
        elif within >= _TELLING_SECONDS:
            self._failed(self.breaker.on_silence, error)
        else:
            self.breaker.on_forgotten(time.monotonic())

    def _failed(self, learn: Callable[[float], None], error: errors.TidingsError) -> None:
        before, now = self.breaker.state, time.monotonic()
        self._failed_at = now
        learn(now)
        if before is not self.breaker.state is State.OPEN:
            tell = _log.warning if before is State.CLOSED else _log.debug
            tell("passed over", instance=self.instance_id, seconds=round(self.breaker.until - now, 2), error=error.message)


def silent(error: errors.TidingsError) -> bool:
    """Whether the instance itself said nothing: the transport did, or our patience."""
    cause = error.__cause__
    return isinstance(cause, TimeoutError) or (isinstance(cause, grpc.aio.AioRpcError) and rpc_status.from_call(cause) is None)


def _jitter() -> float:
    return random.uniform(0.75, 1.25)  # noqa: S311  (no secret)

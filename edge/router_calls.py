"""Single calls to routers, which the HTTP API makes: to the owner of a key, or to another router when that one is silent.

Whatever is asked here may be asked twice: ownership is a hint, and a repetition has the same ids. Calls under way and waiting are
bounded; past that they are refused OVERLOADED.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import grpc

from edge.switchboard import Switchboard
from mesh import errors, rpc
from mesh.bulkhead import Bulkhead
from mesh.node import silent
from tidings.router.v1 import conversation_pb2_grpc

CALL_SECONDS = 8.0  # of all attempts; hops further on get less
FIRST_SECONDS = 2.5  # of the first, when there is another router
CALLS = 256  # under way at once
CALLS_WAITING = 1_000

Q = TypeVar("Q")
R = TypeVar("R")
Method = Callable[["conversation_pb2_grpc.ConversationServiceAsyncStub"], "grpc.aio.UnaryUnaryMultiCallable[Q, R]"]


class RouterCalls:
    """Calls of ConversationService."""

    def __init__(self, switchboard: Switchboard) -> None:
        self._switchboard = switchboard
        self._room = Bulkhead(CALLS, CALLS_WAITING, "the HTTP API")

    def __len__(self) -> int:
        """Calls under way or waiting."""
        return len(self._room)

    async def ask(self, key: str, method: "Method[Q, R]", request: Q) -> R:
        """The answer of the key's owner, or of another.

        Raises:
            TidingsError: what the router answered; UNAVAILABLE when none did; OVERLOADED.
        """
        async with self._room.room():
            until = time.monotonic() + CALL_SECONDS
            first, *others = self._switchboard.choice(key)
            if not others:
                return await self._once(first.channel, method, request, CALL_SECONDS)
            try:
                return await self._once(first.channel, method, request, FIRST_SECONDS)
            except errors.TidingsError as error:
                if not silent(error):
                    raise
            return await self._once(others[0].channel, method, request, until - time.monotonic())

    async def _once(self, channel: grpc.aio.Channel, method: "Method[Q, R]", request: Q, within: float) -> R:
        stub = conversation_pb2_grpc.ConversationServiceStub(channel)
        with rpc.named_errors():
            return await method(stub)(request, timeout=within)

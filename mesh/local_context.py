"""The servicer's end of a call within one process: `grpc.aio.ServicerContext` on an `Exchange`."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Never

import grpc

from mesh.handlers import Handler
from mesh.local_exchange import Ending, Exchange

Metadata = grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]
_OVER = "the call has ended"


class LocalContext(grpc.aio.ServicerContext[Any, Any]):
    """See the module."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parse: Callable[[bytes], Any] = bytes
        self._serialize: Callable[[Any], bytes] = bytes
        self._ending = Ending(grpc.StatusCode.OK)

    def speak(self, handler: Handler) -> None:
        """Read and write the messages of this handler's method."""
        self._parse = handler.request_deserializer or bytes
        self._serialize = handler.response_serializer or bytes

    async def read(self) -> Any:
        """The next request, or `grpc.aio.EOF`.

        Raises:
            UsageError: it has been answered.
        """
        if self.done():
            raise grpc.aio.UsageError(_OVER)
        data = await self._exchange.requests.read()
        return grpc.aio.EOF if data is None else self._parse(data)

    async def requests(self) -> AsyncIterator[Any]:
        """The requests, till the caller sends no more."""
        while (data := await self._exchange.requests.read()) is not None:
            yield self._parse(data)

    async def write(self, message: Any) -> None:
        """Send a response, when there is room.

        Raises:
            UsageError: it has been answered.
            InternalError: nobody reads any more.
        """
        if self.done():
            raise grpc.aio.UsageError(_OVER)
        self._exchange.begin()
        if not await self._exchange.send(self._exchange.responses, self._serialize(message)):
            raise grpc.aio.InternalError(_OVER)

    async def respond(self, response: Any) -> None:
        """Send the only response, unless the code set says that there is none."""
        if self._ending.code is grpc.StatusCode.OK and not self.done():
            await self.write(response)

    def end(self) -> None:
        """The servicer has said all: end with what it has set."""
        self._exchange.answer(self._ending)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> Never:
        """End with an error.

        Raises:
            AbortError: always.
        """
        self._exchange.answer(Ending(code, details, tuple(trailing_metadata) or self._ending.trailing))
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> Never:
        """As `abort`."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        """Begin the answer with these."""
        self._exchange.begin(tuple(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """End with these."""
        self._ending = self._ending._replace(trailing=tuple(trailing_metadata))

    def set_code(self, code: grpc.StatusCode) -> None:
        """End with this."""
        self._ending = self._ending._replace(code=code)

    def set_details(self, details: str) -> None:
        """End with these."""
        self._ending = self._ending._replace(details=details)

    def invocation_metadata(self) -> grpc.aio.Metadata | None:
        """What the caller sent."""
        return grpc.aio.Metadata(*self._exchange.metadata)

    def trailing_metadata(self) -> grpc.aio.Metadata:
        """What it ends with, as set."""
        return grpc.aio.Metadata(*self._ending.trailing)

    def code(self) -> grpc.StatusCode:
        """How it ends, as set."""
        return self._ending.code

    def details(self) -> str:
        """Why it ends so, as set."""
        return self._ending.details

    def peer(self) -> str:
        """No address."""
        return "local:"

    def peer_identities(self) -> Iterable[bytes] | None:
        """None: nothing was proved on a wire."""
        return None

    def peer_identity_key(self) -> str | None:
        """None: nothing was proved on a wire."""
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """The certificate that the caller shows; empty when it shows none."""
        return self._exchange.shown

    def time_remaining(self) -> float:
        """Seconds until the deadline; None without one, whatever gRPC's type says."""
        return self._exchange.time_remaining()  # type: ignore[return-value]

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have it called, with this, once all is over."""
        self._exchange.when_over(lambda: callback(self))

    def cancelled(self) -> bool:
        """Whether it has been cancelled."""
        ending = self._exchange.ending
        return ending is not None and ending.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether it has been answered, or broken off."""
        return self._exchange.ending is not None

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing: there is no wire."""

    def disable_next_message_compression(self) -> None:
        """Nothing: there is no wire."""

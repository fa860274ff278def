"""Requests whose answer somebody awaits: history pages, presences, token refreshes."""

import asyncio

from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings_client.errors import NotConnected, RequestFailed, RequestTimedOut
from tidings_client.exchange import Exchange

TIMEOUT = 10.0  # seconds; an answer takes milliseconds, a retried store call a few seconds


class Requests:
    """Matches answers to those who wait for them.

    Args:
        wake: called when there is something to send.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[ServerFrame]] = {}

    async def ask(self, exchange: Exchange, frame: ClientFrame, timeout: float = TIMEOUT) -> ServerFrame:
        """Send a request and wait for its answer.

        Raises:
            RequestFailed: the server refused it.
            RequestTimedOut: no answer came in time.
            NotConnected: the connection ended before the answer came.
        """
        frame.request_id = exchange.next_request_id()
        answer: asyncio.Future[ServerFrame] = asyncio.get_running_loop().create_future()
        self._waiting[frame.request_id] = answer
        exchange.say(frame)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            what = frame.WhichOneof("body")
            raise RequestTimedOut(f"{what}: no answer within {timeout:g} s; ask again") from None
        finally:
            del self._waiting[frame.request_id]

    def on_answer(self, frame: ServerFrame) -> bool:
        """A frame that answers a request; False when nobody waits for it."""
        answer = self._waiting.get(frame.request_id)
        if answer is None or answer.done():
            return False
        if frame.HasField("error"):
            answer.set_exception(RequestFailed(frame.error))
        else:
            answer.set_result(frame)
        return True

    def on_disconnected(self) -> None:
        """No answer will come any more."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(NotConnected("the connection was lost before the answer came: ask again"))

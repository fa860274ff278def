"""The long poll: the same frames over plain HTTP requests, for where WebSockets are blocked.

Each *turn* is one request. One turn always waits at the server for frames to come; another carries ours, one at a time so that
their order is kept. A newer turn ends the one that waits, so neither stands in the other's way. The server numbers its frames and
sends again what we haven't named as received, so a lost answer loses nothing; a turn of ours that got no answer is repeated under
its number.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

import aiohttp
from google.protobuf import json_format

from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.client.v1.http_pb2 import PollRequest, PollResponse
from tidings_client.reconnect import Ended
from tidings_client.transport import ConnectionEnded, seconds_of

TURN_TIMEOUT = aiohttp.ClientTimeout(total=40)  # the server answers after 25 seconds at the latest
MAX_ATTEMPTS = 3  # of one turn; then the session counts as lost
RETRY_SECONDS = 0.2  # between attempts
MAX_FRAMES = 200  # of ours in one turn
CLOSE_SECONDS = 1.0  # for the last turn: the server acts on it when it comes, and may answer it much later


class PollTransport:
    """See `Transport`. The first `send` opens the session."""

    def __init__(self, http: aiohttp.ClientSession, api_url: str, ticket: str) -> None:
        self._http = http
        self._url = api_url + "/v1/poll"
        self._ticket = ticket
        self._session = ""
        self._received = 0
        self._sent = 0
        self._outgoing: list[ClientFrame] = []
        self._incoming: list[ServerFrame] = []
        self._changed = asyncio.Event()
        self._speak_up = asyncio.Event()
        self._ended: Ended | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def send(self, frames: Sequence[ClientFrame]) -> None:
        """See `Transport`. Frames are on their way when this returns, not yet there."""
        if self._ended is not None:
            raise ConnectionEnded(self._ended)
        for frame in frames:
            copy = ClientFrame()
            copy.CopyFrom(frame)  # the caller may number it anew before it has gone
            self._outgoing.append(copy)
        if not self._session:
            await self._turn(self._take_outgoing())
            self._tasks = [asyncio.create_task(self._guard(loop())) for loop in (self._listen, self._speak)]
        self._speak_up.set()

    async def receive(self) -> list[ServerFrame]:
        """See `Transport`."""
        while not self._incoming:
            if self._ended is not None:
                raise ConnectionEnded(self._ended)
            self._changed.clear()
            await self._changed.wait()
        frames, self._incoming = self._incoming, []
        return frames

    async def close(self) -> None:
        """See `Transport`. What `send` took is brought out first, if that is quick."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session and self._outgoing and self._ended is None:
            with contextlib.suppress(ConnectionEnded, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._turn(self._take_outgoing())

    def _take_outgoing(self) -> PollRequest:
        frames, self._outgoing = self._outgoing[:MAX_FRAMES], self._outgoing[MAX_FRAMES:]
        self._sent += 1
        return PollRequest(send_sequence=self._sent, frames=frames)

    async def _listen(self) -> None:
        while True:
            await self._turn(PollRequest())

    async def _speak(self) -> None:
        while True:
            await self._speak_up.wait()
            self._speak_up.clear()
            while self._outgoing:
                await self._turn(self._take_outgoing())

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ConnectionEnded as error:
            self._ended = self._ended or error.ended
            self._changed.set()

    async def _turn(self, request: PollRequest) -> None:
        """One turn, repeated while the network fails.

        Raises:
            ConnectionEnded: the session is over, or the network is.
        """
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                await asyncio.sleep(RETRY_SECONDS * attempt)
            request.poll_session, request.received_sequence = self._session, self._received
            try:
                self._take_in(await self._post(request))
                return
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                lost = str(error) or type(error).__name__
                if not self._session:
                    break  # the ticket is spent
        raise ConnectionEnded(Ended("session" if self._session else "open", 0, lost))

    async def _post(self, request: PollRequest) -> PollResponse:
        body = json_format.MessageToJson(request, preserving_proto_field_name=True, indent=None)
        query = {} if self._session else {"ticket": self._ticket}
        headers = {"Content-Type": "application/json"}
        async with self._http.post(self._url, params=query, data=body, headers=headers, timeout=TURN_TIMEOUT) as response:
            text = await response.text()
            if response.status >= 500:
                raise aiohttp.ClientError(f"HTTP {response.status}")
            if response.status != 200:
                stage = "session" if self._session else "open"
                retry_after = seconds_of(response.headers.get("Retry-After"))
                raise ConnectionEnded(Ended(stage, response.status, text[:200], retry_after))
        try:
            return json_format.Parse(text, PollResponse(), ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise ConnectionEnded(Ended("session", 0, f"the server answered what a poll doesn't: {error}")) from error

    def _take_in(self, response: PollResponse) -> None:
        self._session = response.poll_session or self._session
        first = response.sequence - len(response.frames) + 1
        fresh = list(response.frames)[max(0, self._received + 1 - first) :]
        self._received = max(self._received, response.sequence)
        self._incoming += fresh
        if response.close_code:
            self._ended = Ended("session", response.close_code, response.close_reason)
        if fresh or response.close_code:
            self._changed.set()
        if response.close_code:
            raise ConnectionEnded(self._ended or Ended("session", 0, ""))


def open_poll(http: aiohttp.ClientSession, api_url: str, ticket: str) -> PollTransport:
    """A long poll that opens with its first frame."""
    return PollTransport(http, api_url, ticket)

"""Keeps the client connected: knocks at a balancer, opens a transport, runs the exchange over it, and does so again, as
`reconnect` decides, until it is told to stop. An edge that sends us to another one gives us a ticket for it: that one is opened at
the appointed time, before the old session ends, and no balancer is asked unless it will not open. Who was cut off tries their edge
once before they knock.

One task reads, one handles and writes; so frames queue up while others are handled or sent, and go through together.
"""

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from tidings.client.v1 import frames_pb2 as pb
from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.client.v1.http_pb2 import ConnectResponse
from tidings.common.v1 import error_pb2
from tidings_client.door import Balancers, Tokens
from tidings_client.errors import NotConnected, StateFileError, TidingsClientError
from tidings_client.exchange import Exchange
from tidings_client.model import FINAL_STATES, ConnectionState
from tidings_client.moving import Appointment, Move
from tidings_client.poll import open_poll
from tidings_client.reconnect import Ended, Reconnect, Stop
from tidings_client.requests import Requests
from tidings_client.transport import ConnectionEnded, Transport, WebSocketTransport, open_websocket, reopen_websocket

VERSION = "tidings-python/0.1.0"
WELCOME_TIMEOUT = 10.0  # seconds; the edge asks nobody before it welcomes
SEND_TIMEOUT = 30.0  # seconds; a server that takes no bytes for so long is gone
MAX_INBOUND = 1_000  # frames read ahead of handling; past it reading waits, and so, in the end, does the server
API_TIMEOUT = 10.0  # seconds to wait for the first answer of the balancer
GOODBYE_TIMEOUT = 2.0  # seconds; whoever closes doesn't want to wait
STATE_RETRY_SECONDS = 5.0  # before trying again with a state file that couldn't be written
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as whom to connect.

    Attributes:
        balancers: where to knock.
        long_poll: "auto" (when WebSockets won't open), "never" or "always".
    """

    balancers: Balancers
    device_id: str
    zone: str
    long_poll: str


class Connection:
    """See the top of this file.

    Args:
        on_state: gets each new state with its reason.
        on_welcome: gets each Welcome; False when the session is another user's than the state.
        requests: told when answers can't come any more.
    """

    def __init__(
        self,
        place: Place,
        tokens: Tokens,
        exchange: Exchange,
        requests: Requests,
        on_state: Callable[[ConnectionState, str], None],
        on_welcome: Callable[[pb.Welcome], bool],
        uniform: Callable[[float], float] = lambda limit: random.uniform(0, limit),  # noqa: S311  (jitter, not a secret)
    ) -> None:
        self._place, self._tokens, self._exchange, self._requests = place, tokens, exchange, requests
        self._on_state, self._on_welcome = on_state, on_welcome
        self._reconnect = Reconnect(uniform, can_renew=tokens.renewable)
        self._wake = asyncio.Event()
        self._inbound: list[ServerFrame] = []
        self._room = asyncio.Event()
        self._ended: Ended | None = None
        self._api_url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._renewal: asyncio.Task[None] | None = None
        self._appointment: Appointment | None = None  # of a session that ended before it
        self._move: Move | None = None
        self._straight_to = ""  # the edge that the next attempt tries first
        self._stale = False  # whether the state holds other things than we do, for something couldn't be kept
        self.state = ConnectionState.CONNECTING
        self.reason = ""

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()

    async def api_url(self) -> str:
        """Base URL of the HTTP API, as soon as it is known.

        Raises:
            NotConnected: the balancer hasn't told it in time.
        """
        try:
            async with asyncio.timeout(API_TIMEOUT):
                return await asyncio.shield(self._api_url)
        except TimeoutError:
            raise NotConnected(f"not connected yet ({self.reason or self.state.value}): try again later") from None

    async def ask(self, frame: ClientFrame) -> ServerFrame:
        """Send a request and wait for its answer.

        Raises:
            NotConnected: there is no connection, or it ended before the answer came.
            RequestFailed, RequestTimedOut: see there.
        """
        if self.state not in (ConnectionState.CATCHING_UP, ConnectionState.CAUGHT_UP):
            raise NotConnected(f"not connected ({self.reason or self.state.value}): wait for caught_up(), then ask again")
        self._wake.set()
        return await self._requests.ask(self._exchange, frame)

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Stay connected until a final state is reached. Cancel it to close."""
        try:
            await self._stay(http)
        finally:
            if self._move is not None:
                await self._move.give_up()

    async def _stay(self, http: aiohttp.ClientSession) -> None:
        while self.state not in FINAL_STATES:
            try:
                await self._once(http)
            except ConnectionEnded as error:
                await self._after(error.ended)
            except StateFileError as error:
                self._stale = True
                self._enter(ConnectionState.CONNECTING, str(error))
                await asyncio.sleep(STATE_RETRY_SECONDS)
            except Exception as error:
                _log.exception("an unforeseen fault ended the connection")
                self._stale = True
                await self._after(Ended("session", 0, f"an unforeseen fault: {error!r}"))

    async def _once(self, http: aiohttp.ClientSession) -> None:
        """One connection, from the way in to its end.

        Raises:
            ConnectionEnded: always, saying how.
            StateFileError: the state can't be read or written.
        """
        if self._stale:
            self._exchange.reload()
            self._stale = False
        transport = await self._arrive(http)
        self._inbound, self._ended = [], None
        try:
            await self._greet(transport)
            await self._converse(http, transport)
        except ConnectionEnded as error:
            raise ConnectionEnded(self._with_appointment(error.ended)) from error
        finally:
            self._appointment = self._exchange.appointment
            self._exchange.on_disconnected()
            self._requests.on_disconnected()
            await transport.close()

    async def _arrive(self, http: aiohttp.ClientSession) -> Transport:
        """A transport: to where the last edge sent us, or to the edge that we were cut off from, else to where a balancer sends us.

        Raises:
            ConnectionEnded: none would have us.
        """
        move, self._move = self._move, None
        if move is not None:
            return await move.transport()
        appointment, self._appointment = self._appointment, None
        if appointment is not None and appointment.holds(self._now()):
            return await self._open_appointed(http, appointment)
        straight_to, self._straight_to = self._straight_to, ""
        token = await self._token(self._tokens.get)
        if straight_to:
            try:
                return await reopen_websocket(http, straight_to, token)
            except ConnectionEnded as error:  # why is no matter of ours: a balancer knows a better one
                _log.debug("%s cut us off and is not to be had: %s", straight_to, error.ended.reason)
        answer = await self._place.balancers.knock(http, token, self._place.zone)
        self._take_hints(answer)
        return await self._open(http, answer.url, answer.api_url.rstrip("/"), answer.ticket)

    async def _open_appointed(self, http: aiohttp.ClientSession, appointment: Appointment) -> Transport:
        """A transport to the edge that expects us. Why it won't open is no matter of ours: a balancer knows a better one."""
        try:
            transport = await self._open(http, appointment.websocket_url, appointment.api_url, appointment.ticket)
        except ConnectionEnded as error:
            why = f"{appointment.url} expected us, but would not have us: {error.ended.reason}"
            raise ConnectionEnded(Ended("session", error_pb2.ERROR_CODE_GOING_AWAY, why)) from error
        self._set_api_url(appointment.api_url)
        return transport

    async def _after(self, ended: Ended) -> None:
        """Wait, or stop."""
        if self.state in FINAL_STATES:
            return
        decision = self._reconnect.decide(ended)
        if isinstance(decision, Stop):
            self._enter(decision.state, decision.reason)
            return
        self._enter(ConnectionState.CONNECTING, ended.reason)
        _log.debug("%s ended (%s %s); again in %.2f s", ended.stage, ended.code, ended.reason, decision.wait)
        self._straight_to = decision.straight_to
        await asyncio.sleep(decision.wait)
        if decision.renew:
            with contextlib.suppress(ConnectionEnded):  # the next attempt says so again
                await self._token(self._tokens.renew)

    async def _token(self, get: Callable[[], Awaitable[str]]) -> str:
        try:
            return await get()
        except Exception as error:  # the application's function may raise anything
            raise ConnectionEnded(Ended("connect", 0, f"the token function failed: {error!r}")) from error

    def _take_hints(self, answer: ConnectResponse) -> None:
        first = answer.backoff_base.ToTimedelta().total_seconds()
        self._reconnect.on_hints(first, answer.backoff_max.ToTimedelta().total_seconds())
        self._set_api_url(answer.api_url.rstrip("/"))

    def _set_api_url(self, url: str) -> None:
        if self._api_url.done():
            self._api_url = asyncio.get_running_loop().create_future()
        self._api_url.set_result(url)

    async def _open(self, http: aiohttp.ClientSession, url: str, api_url: str, ticket: str) -> Transport:
        mode = self._place.long_poll
        if mode == "always" or (mode == "auto" and self._reconnect.prefers_poll):
            return open_poll(http, api_url, ticket)
        return await open_websocket(http, url, ticket)

    async def _greet(self, transport: Transport) -> None:
        """Hello and Welcome."""
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT):
                await transport.send([self._exchange.hello(self._place.device_id, VERSION)])
                first, *self._inbound = await transport.receive()
        except TimeoutError:
            raise ConnectionEnded(Ended("session", 0, "the server did not welcome us in time")) from None
        if not first.HasField("welcome"):
            raise ConnectionEnded(Ended("session", 0, f"the server began with {first.WhichOneof('body')}, not with welcome"))
        if not self._on_welcome(first.welcome):
            self._enter(ConnectionState.REFUSED, f"the token is {first.welcome.user_id}'s, the state is another user's")
            raise ConnectionEnded(Ended("session", 0, self.reason))
        self._exchange.on_welcome(first.welcome, self._now())
        self._reconnect.on_opened(websocket=isinstance(transport, WebSocketTransport))
        self._enter(ConnectionState.CATCHING_UP, "")

    async def _converse(self, http: aiohttp.ClientSession, transport: Transport) -> None:
        reader = asyncio.create_task(self._read(transport))
        try:
            while True:
                self._handle()
                await self._speak(transport)
                self._check_appointment(http)
                if not self._inbound:
                    self._check_end()
                    await self._pause()
        finally:
            reader.cancel()
            if self._renewal is not None:
                self._renewal.cancel()
            await self._say_goodbye(transport)

    async def _say_goodbye(self, transport: Transport) -> None:
        """Say what is still to be said, if the other side takes it."""
        with contextlib.suppress(ConnectionEnded, TimeoutError):
            async with asyncio.timeout(GOODBYE_TIMEOUT):
                await transport.send(self._exchange.last_frames(self._now()))

    async def _read(self, transport: Transport) -> None:
        try:
            while True:
                received = await transport.receive()  # not in one statement: while this waits, _handle replaces the list
                self._inbound += received
                self._wake.set()
                if len(self._inbound) >= MAX_INBOUND:
                    self._room.clear()
                    await self._room.wait()
        except ConnectionEnded as error:
            self._ended = error.ended
            self._wake.set()

    def _handle(self) -> None:
        frames, self._inbound = self._inbound, []
        self._room.set()
        if frames:
            self._exchange.on_frames(frames, self._now())
        if self._exchange.caught_up and self.state is ConnectionState.CATCHING_UP:
            self._reconnect.on_caught_up()
            self._enter(ConnectionState.CAUGHT_UP, "")
        if self._exchange.token_wanted and self._tokens.renewable and (self._renewal is None or self._renewal.done()):
            self._exchange.token_wanted = False
            self._renewal = asyncio.create_task(self._refresh())

    async def _speak(self, transport: Transport) -> None:
        frames = self._exchange.take_frames(self._now())
        if not frames:
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await transport.send(frames)
        except TimeoutError:
            raise ConnectionEnded(Ended("session", 0, "the server takes no bytes")) from None

    def _check_end(self) -> None:
        if self._ended is not None:
            raise ConnectionEnded(self._ended)
        if self._exchange.lost(self._now()):
            raise ConnectionEnded(Ended("session", 0, "the server has gone silent"))

    def _check_appointment(self, http: aiohttp.ClientSession) -> None:
        """When it is time, leave: at once to ask a balancer, or as soon as the way to the next edge is open."""
        now, appointment = self._now(), self._exchange.appointment
        leaving = appointment is not None and now >= appointment.at
        if leaving and appointment is not None and self._move is None and appointment.holds(now):
            self._move = Move(self._open_appointed(http, appointment), self._wake.set)
        if leaving:
            self._exchange.appointment = None
        if self._move is not None:
            leaving = self._move.done
        if leaving:
            self._handle()
            raise ConnectionEnded(Ended("session", error_pb2.ERROR_CODE_GOING_AWAY, "the edge asked us to move", 0.0))

    async def _pause(self) -> None:
        """Until a frame comes, there is something to say, or time makes something due."""
        timer = asyncio.get_running_loop().call_at(self._exchange.deadline(), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
            self._wake.clear()

    async def _refresh(self) -> None:
        """Give the server a fresh token; when that fails, the session ends in time and a new one begins with a new token."""
        try:
            token = await self._token(self._tokens.renew)
            await self.ask(ClientFrame(refresh_token=pb.RefreshToken(token=token)))
        except (ConnectionEnded, TidingsClientError) as error:
            _log.warning("the token could not be refreshed: %s", error)

    def _with_appointment(self, ended: Ended) -> Ended:
        """An edge that closes before the time it gave wants us back at that time; who has the next one's transport on its way has
        nothing to wait for."""
        appointment = self._exchange.appointment
        if ended.retry_after is not None or (appointment is None and self._move is None):
            return ended
        wait = 0.0 if appointment is None else max(0.0, appointment.at - self._now())
        return dataclasses.replace(ended, retry_after=wait)

    def _enter(self, state: ConnectionState, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._on_state(state, reason)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

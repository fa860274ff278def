"""The long poll: the same frames and the same session over plain HTTP turns, for clients that can't hold a WebSocket.

Turns are idempotent: a client's frames are handled once by `send_sequence`, and what the server says is kept, numbered, until a
later turn names it in `received_sequence`. A newer turn of a session ends the one that waits.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable

from aiohttp import web

from edge import bodies, refusals
from edge.connection import Connection, Services
from edge.door import Door
from edge.encoding import BinaryEncoding
from edge.population import Population
from mesh import errors
from mesh.credentials import Identity
from tidings.client.v1 import http_pb2
from tidings.client.v1.frames_pb2 import ServerFrame

ANSWER_BYTES = 1_048_576  # of one answer, roughly
TURN_BYTES = 1_048_576  # of one turn's body
MAX_FRAMES = 1_000  # of one turn
FAREWELL_SECONDS = 30.0  # how long an ended session waits to tell its close code


class PollConnection(Connection):
    """One long-poll session."""

    __slots__ = ("_close_code", "_on_end", "_sequence", "_unconfirmed", "last_send", "secret", "something")

    def __init__(self, services: Services, identity: Identity, ip: str, on_end: "Callable[[PollConnection], None]") -> None:
        super().__init__(services, identity, BinaryEncoding(), ip)
        self._on_end = on_end
        self.secret = secrets.token_urlsafe(24)
        self.last_send = 0
        self.something = asyncio.Event()
        self._sequence = 0
        self._unconfirmed: deque[tuple[int, bytes]] = deque()
        self._close_code = 0

    @property
    def drained(self) -> bool:
        """See ClientPort: the client has confirmed everything."""
        return not len(self._outbox) and not self._unconfirmed

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self._close_code != 0

    def confirm(self, sequence: int) -> None:
        """The client has everything up to this."""
        while self._unconfirmed and self._unconfirmed[0][0] <= sequence:
            self._unconfirmed.popleft()
        self._touch()

    def answer(self) -> http_pb2.PollResponse:
        """Everything not confirmed, within the bound of one answer."""
        if not self._unconfirmed:
            for frame in self._outbox.take(ANSWER_BYTES):
                self._sequence += 1
                self._unconfirmed.append((self._sequence, frame))
        response = http_pb2.PollResponse(poll_session=self.secret, sequence=self._sequence)
        response.frames.extend(ServerFrame.FromString(frame) for _, frame in self._unconfirmed)
        self.something.clear()
        if self.ended and not len(self._outbox):
            response.close_code = self._close_code
            response.close_reason = errors.reason(self._close_code)
        return response

    @property
    def has_answer(self) -> bool:
        """Whether a turn is answered at once."""
        return bool(len(self._outbox) or self._unconfirmed or self.ended)

    def abort(self) -> None:
        """See Connection: there is none between turns."""

    def _hand_on(self) -> None:
        if len(self._outbox):
            self.something.set()

    def _end(self, code: int) -> None:
        if not self._close_code:
            self._close_code = code
            self.something.set()
            self._on_end(self)


class LongPoll:
    """POST /v1/poll.

    Args:
        wait: longest wait of a turn, in seconds.
        body_seconds: how long a body may take.
    """

    def __init__(self, services: Services, door: Door, population: Population, wait: float, body_seconds: float) -> None:
        self._services = services
        self._door = door
        self._population = population
        self._wait = wait
        self._body_seconds = body_seconds
        self._sessions: dict[str, PollConnection] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One turn."""
        poll = await bodies.read(request, http_pb2.PollRequest(), TURN_BYTES, self._body_seconds)
        if len(poll.frames) > MAX_FRAMES:
            raise errors.invalid_field("frames", f"send at most {MAX_FRAMES} a turn")
        connection = await self._connection(request, poll)
        self._say(connection, poll)
        connection.confirm(poll.received_sequence)
        self._services.switchboard.flush()
        await self._until_answer(connection)
        connection.session.heard(self._services.clock())
        answer = connection.answer()
        if answer.close_code:
            self._sessions.pop(connection.secret, None)
        return bodies.answer(request, answer)

    async def _connection(self, request: web.Request, poll: http_pb2.PollRequest) -> PollConnection:
        if not poll.poll_session:
            return await self._open(request)
        connection = self._sessions.get(poll.poll_session)
        if connection is None:
            raise refusals.no_such_poll()
        connection.session.heard(self._services.clock())
        connection.something.set()  # an older turn that still waits is answered now
        return connection

    async def _open(self, request: web.Request) -> PollConnection:
        self._door.check_newcomer(request)
        identity, ticket_id = await self._door.identify(request)
        self._population.check_user(identity.user_id)
        connection = PollConnection(self._services, identity, self._door.address(request), self._on_end)
        self._sessions[connection.secret] = connection
        self._population.enter(connection, ticket_id)
        return connection

    def _on_end(self, connection: PollConnection) -> None:
        self._population.leave(connection)
        connection.session.on_lost()
        asyncio.get_running_loop().call_later(FAREWELL_SECONDS, self._sessions.pop, connection.secret, None)

    def _say(self, connection: PollConnection, poll: http_pb2.PollRequest) -> None:
        if not poll.frames or poll.send_sequence <= connection.last_send:
            return
        if poll.send_sequence != connection.last_send + 1:
            raise errors.invalid_field("send_sequence", f"the next turn with frames is {connection.last_send + 1}")
        connection.last_send = poll.send_sequence
        for frame in poll.frames:
            connection.on_frame(frame)

    async def _until_answer(self, connection: PollConnection) -> None:
        if connection.has_answer:
            return
        connection.something.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait):
                await connection.something.wait()

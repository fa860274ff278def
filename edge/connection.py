"""What WebSocket connections and long polls have in common: the outbox, the encoding, and the session's ClientPort."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from edge.encoding import Encoding, UndecodableError
from edge.metrics import EdgeMetrics
from edge.outbox import Fate, Outbox
from edge.packet import Packet
from edge.rules import Rules
from edge.session import Session
from edge.switchboard import Switchboard
from mesh import errors
from mesh.credentials import Identity, TokenVerifier
from tidings.client.v1.frames_pb2 import ClientFrame
from tidings.common.v1 import error_pb2


class Services:
    """What every connection of an edge uses.

    Attributes:
        tasks: short tasks of connections (closing, draining, checking a token), so that none is lost.
    """

    def __init__(
        self,
        rules: Rules,
        switchboard: Switchboard,
        tokens: TokenVerifier,
        metrics: EdgeMetrics,
        outbox_bound: tuple[int, int],
        clock: Callable[[], float],
    ) -> None:
        self.rules = rules
        self.switchboard = switchboard
        self.tokens = tokens
        self.metrics = metrics
        self.outbox_bound = outbox_bound
        self.clock = clock
        self.tasks: set[asyncio.Task[None]] = set()
        self._last_number = 0

    def next_number(self) -> int:
        """A session's number, unique on this edge."""
        self._last_number += 1
        return self._last_number


class Connection(ABC):
    """One client's connection; the ClientPort of its session."""

    __slots__ = ("_closing", "_dirty", "_outbox", "_services", "encoding", "ip", "session")

    def __init__(self, services: Services, identity: Identity, encoding: Encoding, ip: str) -> None:
        now = services.clock()
        self._services = services
        self._outbox = Outbox(*services.outbox_bound)
        self._dirty = False
        self._closing: int | None = None
        self.encoding = encoding
        self.ip = ip
        self.session = Session(services.next_number(), identity, services.rules, self, services.switchboard, now, time.time() - now)

    # ClientPort

    @property
    @abstractmethod
    def drained(self) -> bool:
        """See ClientPort."""

    def write(self, frame: bytes, traffic_class: int, *, asked: bool = False) -> None:
        """See ClientPort. A client whose outbox is full is closed."""
        if self._closing is not None:
            return
        fate = self._outbox.offer(self.encoding.encode(frame), traffic_class, self._services.metrics.dropped, asked=asked)
        if fate is Fate.TOO_SLOW:
            self.session.close(error_pb2.ERROR_CODE_SLOW_CONSUMER)
        elif fate is Fate.QUEUED:
            self._touch()

    def write_packet(self, packet: Packet) -> None:
        """See ClientPort."""
        for one in packet.frames:
            self.write(one.frame, packet.traffic_class)

    def verify_token(self, token: str, request_id: int) -> None:
        """See ClientPort."""
        self._run(self._verify_token(token, request_id))

    def close(self, code: int, reason: str) -> None:
        """See ClientPort."""
        self._closing = code
        self._touch()

    # For the edge

    def flush(self) -> None:
        """Hand on what was written; then close when that was asked for."""
        self._dirty = False
        self._hand_on()
        if self.session.stalled and self.drained:
            self.session.on_drained(self._services.clock())
        if self._closing is not None:
            self._end(self._closing)

    @abstractmethod
    def abort(self) -> None:
        """Cut the connection without a word."""

    def on_message(self, message: bytes | str) -> None:
        """Something came from the client. A fault of ours ends this session, and no other."""
        try:
            self.on_frame(self.encoding.decode(message))
        except UndecodableError:
            self.session.close(error_pb2.ERROR_CODE_PROTOCOL_ERROR)
        except Exception:
            self._services.switchboard.failed(self.session)
        self._services.switchboard.flush()

    def on_frame(self, frame: ClientFrame) -> None:
        """A frame came from the client."""
        self.session.on_frame(frame, self._services.clock())

    @abstractmethod
    def _hand_on(self) -> None:
        """Take from the outbox what the client can take."""

    @abstractmethod
    def _end(self, code: int) -> None:
        """Close; called once."""

    def _touch(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._services.switchboard.touched(self)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._services.tasks.add(task)
        task.add_done_callback(self._services.tasks.discard)

    async def _verify_token(self, token: str, request_id: int) -> None:
        try:
            identity = await self._services.tokens.verify(token, time.time())
        except errors.TidingsError as error:
            self.session.on_token_refused(error.message, request_id)
        else:
            self.session.on_token(identity, request_id)
        self._services.switchboard.flush()

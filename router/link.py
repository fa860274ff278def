"""One edge's link: its outbox, and the one task that writes it. Others enqueue; the writer sends all that gathered meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from mesh.errors import TidingsError
from router import credit, frames
from router.meters import Meters
from router.outbox import Outbox
from tidings.router.v1.link_pb2 import (
    TRAFFIC_CLASS_NOTIFICATION,
    ClientEnvelope,
    LinkResponse,
    SessionOpened,
    SyncPage,
    TrafficClass,
)

ANSWER_BYTES = 16 * 1024 * 1024  # answers waiting for an edge; past it nothing more is read from that edge until it reads us
TELL_SECONDS = 0.05  # how late an edge learns what was acted on when there is nothing else to say


class LinkLostError(Exception):
    """The edge went away while we spoke or listened: nothing wrong on this side."""


class EdgeLink:
    """The sending half of one Link stream. Compared and hashed by identity: a new stream is a new link."""

    def __init__(self, edge_id: str, outbox: Outbox, meters: Meters) -> None:
        self.edge_id = edge_id
        self.outbox = outbox
        self._meters = meters
        self._wake = asyncio.Event()
        self._calm = asyncio.Event()
        self._calm.set()
        self._closing = False
        self._drain_sequence = 0
        self.credit = 0  # as last told
        self._heard = asyncio.Event()
        self.gone = False  # set when its stream has ended: answers and pushes go nowhere

    def answer(self, envelope: ClientEnvelope, frame: bytes) -> None:
        """Answer an envelope with an encoded ServerFrame."""
        self.answer_to(envelope.envelope_id, envelope.session, frame)

    def answer_to(self, envelope_id: int, session: int, frame: bytes) -> None:
        """As `answer`, for who kept only the numbers."""
        self.outbox.answer(time.monotonic(), envelope_id, session, frame)
        self._answered()

    def refuse(self, envelope: ClientEnvelope, error: TidingsError, client_msg_id: str = "") -> None:
        """Answer an envelope with an error."""
        self._meters.refused(error.reason)
        self.answer(envelope, frames.error(envelope.request_id, error, client_msg_id))

    def answer_opened(self, envelope: ClientEnvelope, opened: SessionOpened) -> None:
        """Answer open_session."""
        self.outbox.answer_opened(time.monotonic(), envelope.envelope_id, envelope.session, opened)
        self._answered()

    def answer_sync(self, envelope: ClientEnvelope, page: SyncPage) -> None:
        """Answer sync_device."""
        self.outbox.answer_sync(time.monotonic(), envelope.envelope_id, envelope.session, page)
        self._answered()

    def deliver(
        self,
        ordinals: Sequence[int],
        frame: bytes,
        traffic_class: TrafficClass.ValueType,
        *,
        conversation_id: str = "",
        seq: int = 0,
        except_session: int = 0,
        only_sessions: Iterable[int] = (),
    ) -> None:
        """Push a frame to users at this edge; without room it is dropped, counted, and for CHAT told as a resync."""
        accepted = self.outbox.deliver(
            time.monotonic(),
            ordinals,
            frame,
            traffic_class,
            conversation_id=conversation_id,
            seq=seq,
            except_session=except_session,
            only_sessions=only_sessions,
        )
        if not accepted:
            self._meters.dropped(traffic_class)
        self._wake.set()

    def broadcast(self, user_ordinals: bytes, frame: bytes, notification_id: str, expire_time_us: int) -> bool:
        """Send a notification to many at this edge; False when there was no room and it was dropped, and counted."""
        accepted = self.outbox.broadcast(user_ordinals, frame, notification_id, expire_time_us)
        if not accepted:
            self._meters.dropped(TRAFFIC_CLASS_NOTIFICATION)
        self._wake.set()
        return accepted

    def received(self, sequence: int, *, tell_now: bool) -> None:
        """The edge's request of this number has been acted on."""
        self.outbox.received(sequence, tell_now=tell_now)
        if tell_now:
            self._wake.set()

    def drain(self) -> None:
        """Say that this router leaves."""
        self.outbox.drain()
        self._wake.set()

    def tell(self) -> None:
        """Say what has been acted on, if that has not been said."""
        self.outbox.tell()
        self._wake.set()

    def speak(self) -> None:
        """Say something even if there is nothing to be said, so that the edge knows that we live."""
        self.outbox.speak()
        self._wake.set()

    def grant(self, share: int) -> None:
        """Tell how many envelopes the edge may have unanswered, if that is news."""
        if credit.news(self.credit, share):
            self.credit = share
            self.outbox.grant(share)
            self._wake.set()

    def settle(self, processed_sequence: int) -> None:
        """The edge has acted on our responses up to this number."""
        self.outbox.settle(processed_sequence)
        if 0 < self._drain_sequence <= processed_sequence:
            self._heard.set()

    async def drain_heard(self) -> None:
        """Wait until the edge knows that this router leaves, or is gone: all that it sent before has been read by then."""
        await self._heard.wait()

    def end(self) -> None:
        """Its stream has ended."""
        self.gone = True
        self._heard.set()

    def close(self) -> None:
        """Let the writer end when all that is queued has been written."""
        self._closing = True
        self._wake.set()

    @property
    def crowded(self) -> bool:
        """Whether too many answers wait for this edge: what would add large ones is refused."""
        return not self._calm.is_set()

    async def calm(self) -> None:
        """Wait while too many answers wait for this edge."""
        await self._calm.wait()

    async def write(self, send: Callable[[LinkResponse], Awaitable[None]]) -> None:
        """Write what is queued, as it comes, until closed and empty."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (taken := self.outbox.take(time.monotonic())) is not None:
                response, deliveries, oldest_seconds = taken
                if response.HasField("drain"):
                    self._drain_sequence = response.sequence
                await _said(send(response))
                if deliveries:
                    self._meters.pushed(deliveries, oldest_seconds)
                if self.outbox.answer_bytes <= ANSWER_BYTES:
                    self._calm.set()
            if self._closing:
                return

    def _answered(self) -> None:
        if self.outbox.answer_bytes > ANSWER_BYTES:
            self._calm.clear()
        self._wake.set()


async def _said(sending: Awaitable[None]) -> None:
    """gRPC has several errors, some of them private, for a peer that is gone: here they are one."""
    try:
        await sending
    except Exception as fault:
        raise LinkLostError from fault

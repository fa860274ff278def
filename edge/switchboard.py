"""Joins sessions to links: requests to the routers that own them, answers and live frames to the sessions they are for.

It runs on the event loop and never waits. Frames are written to the clients once, at the end of each batch.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from edge import server_frames
from edge.ack_routes import AckRoutes
from edge.directory import Directory
from edge.encoding import JsonEncoding
from edge.fan_out import FanOut
from edge.link import Link
from edge.metrics import EdgeMetrics
from edge.outbox import NOTIFICATION
from edge.ports import Expects
from edge.routes import Pending, Routes
from edge.session import Session
from edge.waiting_marks import Mark, MarkKey, merge
from mesh import errors
from tidings.common.v1 import error_pb2
from tidings.router.v1 import link_pb2

MAX_TOLD = 10_000  # envelopes queued for a link above which typing is dropped: the link is behind, and typing is worth little
MAX_HOMELESS_MARKS = 100_000  # marks kept while no router is there

_OPENING = ("open_session", "sync_device")  # questions of a session that begins

_log = structlog.get_logger(__name__)


class Flushable(Protocol):
    """A connection with something to write."""

    def flush(self) -> None:
        """Write it."""


class Switchboard:
    """The EdgePort of every session and the LinkPort of every link.

    Args:
        max_pending, max_pending_bytes: bounds of unanswered requests; past them sends are refused OVERLOADED.
        clock: monotonic seconds.
        resync: called when all sessions are to be synced again, paced.
        broadcast: called when something for many waits for `write_slice`.
    """

    def __init__(
        self,
        max_pending: int,
        max_pending_bytes: int,
        metrics: EdgeMetrics,
        clock: Callable[[], float],
        resync: Callable[[], None],
        broadcast: Callable[[], None],
    ) -> None:
        self.directory = Directory()
        self.json = JsonEncoding()
        self.missed = 0.0  # when a link was last lost or gained: sessions synced before may have missed something
        self.links: dict[str, Link] = {}  # those that take new requests
        self._opening: dict[str, Link] = {}  # those that are told who is online: also the ones not live yet, or draining
        self._served: set[str] = set()  # links that have been live; they may be draining now
        self._routes = Routes(self._send, max_pending, max_pending_bytes)
        self._homeless: dict[MarkKey, Mark] = {}
        self._acks = AckRoutes(self.links, metrics.acks_dropped)
        self._fan_out = FanOut(self.directory, self.json, metrics, self.failed)
        self._metrics = metrics
        self._clock = clock
        self._resync = resync
        self._broadcast = broadcast
        self._dirty: list[Flushable] = []

    # For connections

    def touched(self, connection: Flushable) -> None:
        """The connection has something to write at the next `flush`."""
        self._dirty.append(connection)

    def flush(self) -> None:
        """Write what sessions had to say since the last flush."""
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            for connection in dirty:
                _flush(connection)
        self.json.forget()

    def write_slice(self, now: float, wall: float) -> bool:
        """Write what is for many to some more sessions; False when nothing is left."""
        more = self._fan_out.write_slice(now, wall)
        self.flush()
        return more

    def failed(self, session: Session) -> None:
        """A fault of ours in this session, being handled: log it and end the session, which resumes elsewhere; no other notices."""
        _log.exception("session failed", session=session.number, user=session.user_id)
        session.close(error_pb2.ERROR_CODE_SESSION_FAILED)

    # For sessions: see EdgePort

    @property
    def has_room(self) -> bool:
        """See EdgePort."""
        return self._routes.has_room

    @property
    def pending(self) -> int:
        """Requests not answered."""
        return len(self._routes)

    def ask(self, session: int, key: str, envelope: link_pb2.ClientEnvelope, expects: Expects) -> None:
        """See EdgePort."""
        if expects is Expects.STORED:
            self._metrics.accepted()
        self._routes.ask(session, key, envelope, expects, self._clock())

    def tell(self, key: str, envelope: link_pb2.ClientEnvelope) -> None:
        """See EdgePort."""
        owner = self._routes.owner(key)
        if owner is not None and len(self.links[owner].queue) < MAX_TOLD:
            self._routes.tell(key, envelope)

    def mark(self, session: int, mark: link_pb2.ReceiptDelta) -> None:
        """See EdgePort."""
        self._mark((session, mark.conversation_id), mark)

    def acknowledge_notifications(self, notification_ids: Collection[str], user_ordinal: int) -> None:
        """See EdgePort."""
        self._metrics.acknowledged(len(notification_ids))
        self._acks.acknowledge(notification_ids, user_ordinal)

    def enter(self, session: Session) -> int:
        """See EdgePort."""
        older = self.directory.enter(session)
        if older is not None:
            older.close(error_pb2.ERROR_CODE_SESSION_REPLACED)
        return self.directory.ordinal(session.user_id)

    def announce(self, session: Session) -> None:
        """See EdgePort."""
        first = self.directory.online(session)
        if first:
            for link in self._opening.values():
                link.queue.online(session.user_ordinal, opened=True)
                link.wake_for_sessions()
        links = [self._opening[router_id] for router_id in self._served]
        if len(links) < 2:  # one router acts on the announcement before it looks at what is asked behind it
            session.on_announced(self._clock())
            return
        waiting = len(links)

        def passed() -> None:
            nonlocal waiting
            waiting -= 1
            if waiting <= 0:
                session.on_announced(self._clock())

        for link in links:
            link.queue.barrier(passed)
            link.wake_for_sessions()

    def leave(self, session: Session) -> None:
        """See EdgePort."""
        last = self.directory.leave(session)
        for link in self._opening.values():
            if last:
                link.queue.online(session.user_ordinal, opened=False)
            if session.watches:
                link.queue.session_closed(session.number)
            if last or session.watches:
                link.wake_for_sessions()

    def refused(self, code: int) -> None:
        """See EdgePort."""
        self._metrics.client_error(errors.reason(code))

    def rewatch(self, session: Session) -> None:
        """Routers changed: the owner now learns what the session watches, the others forget it."""
        if not session.watches:
            return
        session.rewatch()
        owner = self._routes.owner(session.user_id)
        for link in self.links.values():
            if link.router_id != owner:
                link.queue.session_closed(session.number)
                link.wake()

    def choice(self, key: str) -> list[Link]:
        """The links to ask for a key, one or more: its owner's first, but those of silent routers last.

        Raises:
            TidingsError: UNAVAILABLE.
        """
        owner = self._routes.owner(key)
        if owner is None:
            raise errors.unavailable("no router is there just now")
        return sorted(self.links.values(), key=lambda link: (link.silent, link.router_id != owner))

    async def say_all(self, within: float) -> None:
        """Tell the routers all that waits for its time; returns when they have acted on it, or after so many seconds."""
        waiting, heard = len(self.links), asyncio.Event()

        def passed() -> None:
            nonlocal waiting
            waiting -= 1
            if waiting <= 0:
                heard.set()

        for link in self.links.values():
            link.say_all(passed)
        if self.links:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), within)

    # For links: see LinkPort

    def on_opening(self, link: Link) -> bytes:
        """See LinkPort."""
        self._opening[link.router_id] = link
        return self.directory.snapshot()

    def on_live(self, link: Link) -> None:
        """See LinkPort."""
        self.links[link.router_id] = link
        self._served.add(link.router_id)
        self._routes.on_links(self.links)
        homeless, self._homeless = self._homeless, {}
        for key, mark in homeless.items():
            self._mark(key, mark)
        self._acks.on_live()
        self._resync_all()

    def on_draining(self, link: Link) -> None:
        """See LinkPort."""
        if self.links.pop(link.router_id, None) is not None:
            self._routes.on_links(self.links)

    def on_lost(self, link: Link) -> None:
        """See LinkPort."""
        self._opening.pop(link.router_id, None)
        if link.router_id not in self._served:
            return
        self._served.discard(link.router_id)
        self.links.pop(link.router_id, None)
        self._routes.on_links(self.links)
        self._routes.on_lost(link.router_id)
        for key, mark in link.queue.abandon().items():
            self._mark(key, mark)
        self._acks.on_lost(link.queue.acks.abandon())
        self._resync_all()
        self.flush()

    def spares(self, link: Link) -> bool:
        """See LinkPort."""
        return any(other is not link for other in self.links.values())

    def on_batch(self, link: Link, batch: link_pb2.RouterBatch) -> None:
        """See LinkPort."""
        now = self._clock()
        for reply in batch.replies:
            pending = self._routes.on_reply(reply.envelope_id)
            if pending is not None:
                link.queue.envelopes.on_answered(stored=pending.expects is Expects.STORED)
                self._reply(reply, pending, now)
        for delivery in batch.deliveries:
            self._fan_out.deliver(delivery, now)
            if delivery.traffic_class == NOTIFICATION:
                self._acks.sent_by(server_frames.notification_id(delivery.frame), link.router_id)
        self._metrics.sample(batch.deliveries)
        for broadcast in batch.broadcasts:
            self._fan_out.broadcast(broadcast)
            self._acks.sent_by(broadcast.notification_id, link.router_id)
        if self._fan_out.busy:
            self._broadcast()
        for ordinal in batch.resync_user_ordinals:
            for session in self.directory.of_user(ordinal):
                session.resync(now)
        self.flush()

    def _reply(self, reply: link_pb2.Reply, pending: Pending, now: float) -> None:
        session = self.directory.of_number(pending.session)
        if session is None:
            return
        try:
            self._answer(session, reply, pending, now)
        except Exception:
            self.failed(session)

    def _answer(self, session: Session, reply: link_pb2.Reply, pending: Pending, now: float) -> None:
        arm = reply.WhichOneof("body")
        if arm == "frame":
            frame = reply.frame
            session.on_reply(pending.expects, frame, now)
            if code := server_frames.error_code(frame):
                self.refused(code)
        elif arm == "sync_page":
            session.on_sync_page(reply.sync_page, now)
        elif arm == "session_opened":
            session.on_opened(reply.session_opened.user_ordinal)

    def _resync_all(self) -> None:
        self.missed = self._clock()
        self._resync()

    def _send(self, router_id: str, envelope: link_pb2.ClientEnvelope) -> None:
        link = self._opening[router_id]
        link.queue.say(envelope)
        if envelope.WhichOneof("body") in _OPENING:
            link.wake_for_sessions()
        else:
            link.wake_for_sends()

    def _mark(self, key: MarkKey, mark: Mark) -> None:
        owner = self._routes.owner(key[1])
        if owner is not None:
            link = self.links[owner]
            link.mark(key, mark, crowd=self._fan_out.crowded(key[1]))
        elif key in self._homeless or len(self._homeless) < MAX_HOMELESS_MARKS:
            merge(self._homeless, key, mark)


def _flush(connection: Flushable) -> None:
    try:
        connection.flush()
    except Exception:  # one connection's transport is no other's business; its own reader sees the end
        _log.exception("a connection could not be written")

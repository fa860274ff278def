"""One link: the stream between this edge and one router.

What a lost link carried is `Routes`' and `LinkQueue`'s business; opening it again is `Peers`'.

A router that is frozen keeps its connection open, and gRPC's keepalive needs 15 seconds to find out. So a router that gives credit
says something every second, and one that is silent for three while something waits for it is taken for lost, when there is another:
its conversations go there, with all that it has not answered, and no session waits for it to hear of a newcomer. When it wakes up
it may still store what it held, and push it to whom it knew then. That does no harm: the store takes the repetition for what it is,
and orders all; what it stores anew (for another edge) before it has heard of the newcomers here misses them, but it is in the log,
from which all sessions are synced as soon as the link to that router is live again and it has acted on a new snapshot.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import structlog
from pyroaring import BitMap

from edge.link_queue import CHAT_FEW, LinkQueue
from edge.pace import Pace
from edge.peers import Peer
from edge.pulse import TICK_SECONDS, Pulse
from edge.waiting_marks import Mark, MarkKey
from tidings.router.v1 import link_pb2, link_pb2_grpc

MAX_BATCH = 500  # envelopes of 16 KiB stay below gRPC's 16 MiB
MAX_MARKS = 100_000  # of all sessions, waiting for one router
GO_LIVE_SECONDS = 5.0  # from opening the stream to the router having acted on the snapshot
# A lone send goes at once. When many come, those of a millisecond go together: one that must wait for a core wins more than that.
SENDS_RUSH_SECONDS = 0.001
SENDS_RUSH = 2_000.0  # sends a second that are many
# Every mark costs a transaction of its own when it goes alone, and a receipt may be this late. Some together cost little more than
# one; but a hundred keep messages waiting, so when there are many they go more often.
MARKS_SECONDS, MARKS_SOONEST_SECONDS = 0.05, 0.0125
CROWD_SECONDS, CROWD_RUSH_SECONDS = 0.05, 0.1
CROWD_RUSH = 2_000.0  # marks a second in large conversations that are many
# Sessions that come or go together share a batch at every hop behind; nobody feels a reconnect to be three times so late. When
# they come by the hundred, a batch's price is what limits how many can come, and who waits for the others waits longer than this.
SESSIONS_SECONDS, SESSIONS_RUSH_SECONDS = 0.02, 0.1
SESSIONS_RUSH = 600.0  # comings, goings and questions of sessions a second that are many
# Who has a notification is told in bitmaps, and written to the store in a transaction for each: they are to be well filled.
NOTIFICATION_ACKS_SECONDS = 0.2
ACKNOWLEDGE_SECONDS = 0.05  # when nothing else is said for this long, tell how far batches were acted on

_log = structlog.get_logger(__name__)


class LinkPort(Protocol):
    """What a link tells the edge, and asks of it."""

    def on_opening(self, link: "Link") -> bytes:
        """The link is being opened; gives the snapshot of who is online, and says every change from here on."""

    def on_live(self, link: "Link") -> None:
        """The router has acted on the snapshot."""

    def on_draining(self, link: "Link") -> None:
        """The router wants nothing new."""

    def on_lost(self, link: "Link") -> None:
        """The stream ended."""

    def on_batch(self, link: "Link", batch: link_pb2.RouterBatch) -> None:
        """The router says something."""

    def spares(self, link: "Link") -> bool:
        """Whether other routers could do what this one does."""


class Link:
    """One stream to one router.

    Attributes:
        router_id: the router's instance id.
        channel: the gRPC channel to the router, also for unary calls.
        queue: what is to be said.
    """

    def __init__(self, peer: Peer, edge_id: str, port: LinkPort) -> None:
        self.router_id = peer.instance.instance_id
        self.channel = peer.channel
        self.queue = LinkQueue(MAX_BATCH, MAX_MARKS)
        self._peer = peer
        self._edge_id = edge_id
        self._port = port
        self._wake = asyncio.Event()
        self._left = False  # the last request did not take all that was asked
        self._pulse = Pulse()
        self._acknowledge_due: asyncio.TimerHandle | None = None
        self._sends = Pace(0.0, self.wake, SENDS_RUSH_SECONDS, SENDS_RUSH)
        self._marks = Pace(MARKS_SECONDS, self._send_marks, enough=CHAT_FEW, soonest=MARKS_SOONEST_SECONDS)
        self._crowd_marks = Pace(CROWD_SECONDS, self._send_crowd_marks, CROWD_RUSH_SECONDS, CROWD_RUSH)
        self._acks = Pace(NOTIFICATION_ACKS_SECONDS, self._send_acks)
        self._sessions = Pace(SESSIONS_SECONDS, self.wake, SESSIONS_RUSH_SECONDS, SESSIONS_RUSH)

    @property
    def silent(self) -> bool:
        """Whether the router has missed its time to speak."""
        return self._pulse.silent

    def wake(self) -> None:
        """Something was queued."""
        self._wake.set()

    def wake_for_sends(self) -> None:
        """An envelope of a running session was queued: in a rush, paced too."""
        self._sends.gathered()

    def wake_for_sessions(self) -> None:
        """Something of a session's beginning or end was queued: the first goes at once, those that follow it closely together."""
        self._sessions.gathered()

    def mark(self, key: MarkKey, mark: Mark, *, crowd: bool) -> None:
        """See LinkQueue. Paced likewise."""
        self.queue.mark(key, mark, crowd=crowd)
        (self._crowd_marks if crowd else self._marks).gathered()

    def acknowledge(self, notification_id: str, users: BitMap, stray: bool) -> int:
        """See AckLink. Paced likewise."""
        self._acks.gathered()
        return self.queue.acks.add(notification_id, users, stray)

    def say_all(self, heard: Callable[[], None]) -> None:
        """Let go what waits for its time, and call `heard` once the router has acted on it."""
        self.queue.release_all_marks()
        self.queue.acks.release()
        self.queue.last_barrier(heard)
        self._wake.set()

    async def run(self) -> None:
        """Hold the stream until it ends.

        Raises:
            RpcError, TimeoutError, ConnectionError: it was lost.
        """
        call: Any = link_pb2_grpc.LinkServiceStub(self.channel).Link()
        tasks: list[asyncio.Task[None]] = []
        hello, snapshot = self.queue.hello(self._edge_id, self.router_id), self.queue.snapshot(self._port.on_opening(self))
        try:
            async with asyncio.timeout(GO_LIVE_SECONDS):
                await call.write(hello)
                await call.write(snapshot)
                await self._read_until_live(call, snapshot.sequence)
            self._peer.settled = True
            self._port.on_live(self)
            tasks.append(asyncio.create_task(self._write(call), name="link writer"))
            async with asyncio.timeout(None) as patience:
                tasks.append(asyncio.create_task(self._listen(patience), name="link pulse"))
                await self._read(call)
        finally:
            call.cancel()
            if self._acknowledge_due is not None:
                self._acknowledge_due.cancel()
            self._sends.cancel()
            self._marks.cancel()
            self._crowd_marks.cancel()
            self._acks.cancel()
            self._sessions.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._port.on_lost(self)

    async def _read_until_live(self, call: Any, snapshot_sequence: int) -> None:
        processed = 0
        while processed < snapshot_sequence:
            response = await call.read()
            if response is grpc.aio.EOF:
                raise ConnectionError("the router ended the link before it was live")
            if response.HasField("welcome") and response.welcome.router_id != self.router_id:
                raise ConnectionError(f"{response.welcome.router_id} answered in its place")
            processed = response.processed_sequence
            self._act(response)

    async def _read(self, call: Any) -> None:
        while True:
            response = await call.read()
            if response is grpc.aio.EOF:
                return
            self._act(response)

    async def _listen(self, patience: asyncio.Timeout) -> None:
        """Let the patience end when the router is silent while it is waited for, and can be spared."""
        while not (self._pulse.silent and self.queue.awaits and self._port.spares(self)):
            await asyncio.sleep(TICK_SECONDS)
            self._pulse.tick()
        _log.warning("router silent", router=self.router_id, unanswered=self.queue.envelopes.under_way)
        patience.reschedule(asyncio.get_running_loop().time())

    def _act(self, response: link_pb2.LinkResponse) -> None:
        self._pulse.heard()
        self.queue.on_processed(response.processed_sequence)
        if response.credit:
            self._pulse.expected = True
            self.queue.envelopes.credit = response.credit
        arm = response.WhichOneof("body")
        if arm == "batch":
            self._port.on_batch(self, response.batch)
        elif arm == "drain":
            self._port.on_draining(self)
        if arm is not None:
            self.queue.acted_on(response.sequence)
            self._acknowledge_soon()
        if self._left and self.queue.envelopes.ready:
            self._wake.set()

    async def _write(self, call: Any) -> None:
        """Write whenever something is to go, and not what is only gathering: that would leave no batch behind a busy writer."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            request = self.queue.take() or self.queue.acknowledgement()
            self._left = len(self.queue) > 0
            if self.queue.more:
                self._wake.set()
            if request is not None:
                await call.write(request)

    def _send_marks(self) -> None:
        if waiting := self.queue.release_marks():
            self._marks.gathered(waiting)
        self._wake.set()

    def _send_crowd_marks(self) -> None:
        if self.queue.release_marks(crowds=True):
            self._crowd_marks.gathered()
        self._wake.set()

    def _send_acks(self) -> None:
        self.queue.acks.release()
        self._wake.set()

    def _acknowledge_soon(self) -> None:
        if self._acknowledge_due is None:
            self._acknowledge_due = asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECONDS, self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledge_due = None
        self._wake.set()

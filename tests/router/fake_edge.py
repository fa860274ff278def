"""An edge of the tests: speaks Link, and remembers what the router said."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from pyroaring import BitMap

from tidings.client.v1.frames_pb2 import ServerFrame
from tidings.common.v1.content_pb2 import Content, Text
from tidings.router.v1 import link_pb2
from tidings.router.v1.link_pb2_grpc import LinkServiceStub

PATIENCE = 10.0  # seconds a test waits for what must come
T = TypeVar("T")


class FakeEdge:
    """One link.

    Attributes:
        replies: by envelope id.
        deliveries: in order of arrival.
        broadcasts: in order of arrival.
        heard_at: monotonic seconds of each broadcast's arrival.
        resyncs: ordinals told to be synced, in order.
        credits: those told, in order.
        draining: the router said that it leaves.
        ended: the stream is over.
        reading: cleared to stop reading what the router says.
    """

    def __init__(self, call: Any, edge_id: str) -> None:
        self.edge_id = edge_id
        self.replies: dict[int, link_pb2.Reply] = {}
        self.deliveries: list[link_pb2.Delivery] = []
        self.broadcasts: list[link_pb2.Broadcast] = []
        self.heard_at: list[float] = []
        self.resyncs: list[int] = []
        self.router_id = ""
        self.sequences: list[int] = []
        self.processed = 0
        self.credits: list[int] = []
        self.draining = False
        self.ended = False
        self.reading = asyncio.Event()
        self.reading.set()
        self._call = call
        self._sequence = 0
        self._ids = itertools.count(1)
        self._news = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._finished = False

    async def begin(self, online: BitMap) -> None:
        """Hello, snapshot, and wait until the router has acted on it."""
        await self.write(hello=link_pb2.LinkHello(edge_id=self.edge_id, protocol_version=1))
        await self.write(online_snapshot=link_pb2.OnlineSnapshot(user_ordinals=online.serialize()))
        await self.until(lambda: self.processed >= 2)

    async def write(self, **body: Any) -> int:
        """One request; gives its sequence."""
        async with self._writing:
            self._sequence += 1
            told = self.sequences[-1] if self.sequences else 0
            await self._call.write(link_pb2.LinkRequest(sequence=self._sequence, processed_sequence=told, **body))
            return self._sequence

    async def finish(self) -> None:
        """Say no more, and go on listening."""
        async with self._writing:
            self._finished = True
            await self._call.done_writing()

    async def batch(self, **parts: Any) -> int:
        """One batch."""
        return await self.write(batch=link_pb2.EdgeBatch(**parts))

    def envelope(self, user_id: str, ordinal: int, session: int = 1, **body: Any) -> link_pb2.ClientEnvelope:
        """An envelope with an id of its own, which is its request id too."""
        number = next(self._ids)
        return link_pb2.ClientEnvelope(
            envelope_id=number, session=session, user_id=user_id, user_ordinal=ordinal, request_id=number, **body
        )

    async def ask(self, user_id: str, ordinal: int, session: int = 1, **body: Any) -> link_pb2.Reply:
        """Send one envelope and wait for its reply."""
        envelope = self.envelope(user_id, ordinal, session, **body)
        await self.batch(envelopes=[envelope])
        return await self.reply(envelope)

    async def ask_frame(self, user_id: str, ordinal: int, session: int = 1, **body: Any) -> ServerFrame:
        """As `ask`, for an answer that is a frame."""
        return frame_of((await self.ask(user_id, ordinal, session, **body)).frame)

    async def reply(self, envelope: link_pb2.ClientEnvelope) -> link_pb2.Reply:
        """The reply to an envelope."""
        await self.until(lambda: envelope.envelope_id in self.replies)
        return self.replies[envelope.envelope_id]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(holds), PATIENCE)

    async def delivery(self, wanted: Callable[[ServerFrame], bool], after: int = 0) -> link_pb2.Delivery:
        """The first delivery, past so many, whose frame is wanted."""

        def found() -> link_pb2.Delivery | None:
            return next((one for one in self.deliveries[after:] if wanted(frame_of(one.frame))), None)

        await self.until(lambda: found() is not None)
        result = found()
        assert result is not None
        return result

    def messages(self, ordinal: int, conversation_id: str) -> list[int]:
        """Seqs of the log entries pushed to a user, in order."""
        return [one.seq for one in self.deliveries if one.conversation_id == conversation_id and ordinal in one.user_ordinals]

    def notified(self, notification_id: str) -> list[int]:
        """Everyone a notification was broadcast for, once per broadcast, in order."""
        found: list[int] = []
        for one in self.broadcasts:
            if one.notification_id == notification_id:
                found += BitMap.deserialize(one.user_ordinals)
        return found

    async def acknowledge(self, notification_id: str, *ordinals: int) -> None:
        """Say that these have it."""
        said = link_pb2.NotificationAcknowledgement(notification_id=notification_id, user_ordinals=BitMap(ordinals).serialize())
        await self.batch(notification_acknowledgements=[said])

    async def settled(self) -> None:
        """Wait until the router has acted on all that was said so far."""
        sequence = await self.batch()
        await self.until(lambda: self.processed >= sequence)

    async def read(self) -> None:
        """Take in what the router says until the stream ends."""
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                await self._on_response(response)
                await self.reading.wait()
        except (grpc.RpcError, asyncio.CancelledError):
            pass
        async with self._news:
            self.ended = True
            self._news.notify_all()

    async def _on_response(self, response: link_pb2.LinkResponse) -> None:
        async with self._news:
            self.sequences.append(response.sequence)
            self.processed = response.processed_sequence
            self.credits += [response.credit] if response.credit else []
            self.draining = self.draining or response.HasField("drain")
            self.router_id = response.welcome.router_id or self.router_id
            self.replies.update((reply.envelope_id, reply) for reply in response.batch.replies)
            self.deliveries.extend(response.batch.deliveries)
            self.broadcasts.extend(response.batch.broadcasts)
            self.heard_at += [time.monotonic()] * len(response.batch.broadcasts)
            self.resyncs.extend(response.batch.resync_user_ordinals)
            self._news.notify_all()
        if self._finished:
            return
        if response.HasField("batch") or response.HasField("drain"):
            await self.write()


@asynccontextmanager
async def edge(address: str, *online: int, edge_id: str = "edge-1") -> AsyncIterator[FakeEdge]:
    """A link to a router, its snapshot processed; cut when the context ends."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = LinkServiceStub(channel).Link()
        one = FakeEdge(call, edge_id)
        reader = asyncio.create_task(one.read())
        try:
            await one.begin(BitMap(online))
            yield one
        finally:
            one.reading.set()
            call.cancel()
            await asyncio.gather(reader, return_exceptions=True)


def frame_of(encoded: bytes) -> ServerFrame:
    """Decode a frame."""
    return ServerFrame.FromString(encoded)


def text(said: str) -> Content:
    """A text message's content."""
    return Content(text=Text(text=said))


def send(conversation_id: str = "", client_msg_id: str = "m1", said: str = "hi", **more: Any) -> link_pb2.AppendEntry:
    """A message to store."""
    return link_pb2.AppendEntry(conversation_id=conversation_id, client_msg_id=client_msg_id, content=text(said), **more)


def is_message(frame: ServerFrame) -> bool:
    """Whether a frame is a live log entry."""
    return frame.HasField("new_message")

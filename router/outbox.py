"""What waits to be written to one edge: the core of a link's sending half.

Rules: answers are never dropped. Live pushes are, past the bound, but never silently: whose CHAT frames were dropped is collected
and told as `resync_user_ordinals` by the next batch that is begun. Broadcasts have a queue of their own and go beside the rest, a
few at a time, so that nothing waits for them; past their bound they are dropped, and whoever sends them sends again. Responses are
numbered 1, 2, 3 … as they are taken. What of the edge's has been acted on is told behind all that was queued before: an edge that
hears of it knows that nothing older is to come.
Frames are gathered straight into the batch that will be sent, which is cheaper than copying them into it later.
It must not know gRPC; time is passed in.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from pyroaring import BitMap

from tidings.router.v1.link_pb2 import (
    TRAFFIC_CLASS_CHAT,
    TRAFFIC_CLASS_NOTIFICATION,
    Broadcast,
    LinkDrain,
    LinkResponse,
    RouterBatch,
    SessionOpened,
    SyncPage,
    TrafficClass,
)

BATCH_BYTES = 512 * 1024  # a response is closed at this size, far under gRPC's limit, so that a large frame still fits
BATCH_ITEMS = 1000  # or at so many parts, so that the edge gets to work early
BROADCAST_BYTES = 64 * 1024  # of broadcasts in one response, or a single larger one: a millisecond of a link's time
_PART_BYTES = 48  # what a reply or delivery weighs beside its frame


class _Gathering:
    """A response being filled."""

    __slots__ = ("answer_bytes", "batch", "deliveries", "delivery_bytes", "items", "oldest", "processed", "response")

    def __init__(self, now: float) -> None:
        self.response = LinkResponse()
        self.batch = self.response.batch
        self.items = 0
        self.deliveries = 0
        self.delivery_bytes = 0
        self.answer_bytes = 0
        self.oldest = now
        self.processed: int | None = None  # what was acted on when it was closed, if it has been

    @property
    def full(self) -> bool:
        return self.items >= BATCH_ITEMS or self.answer_bytes + self.delivery_bytes >= BATCH_BYTES


class Outbox:
    """One link's bounded queue.

    Args:
        capacity: most deliveries held. When full: dropped and, for CHAT, their users told to resync.
        capacity_bytes: most bytes of deliveries held; as above.
        broadcasts: most broadcasts held. When full: refused.
        broadcast_bytes: most bytes of broadcasts held; as above.
    """

    def __init__(self, capacity: int, capacity_bytes: int, broadcasts: int = 1000, broadcast_bytes: int = 8 * 1024 * 1024) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._capacity_broadcasts = broadcasts
        self._capacity_broadcast_bytes = broadcast_bytes
        self._broadcasts: deque[tuple[Broadcast, int]] = deque()  # with its size
        self._broadcast_bytes = 0
        self._queue: deque[_Gathering] = deque()
        self._deliveries = 0
        self._delivery_bytes = 0
        self._answer_bytes = 0
        self._missed = BitMap()
        self._special: deque[LinkResponse] = deque()
        self._sequence = 0
        self._opened = 0
        self._unsettled: deque[tuple[int, int]] = deque()
        self._settled = 0
        self._received = 0
        self._told = 0
        self._tell_now = False
        self._speak = False
        self._credit = 0

    def __len__(self) -> int:
        return self._deliveries

    @property
    def broadcasts(self) -> int:
        """Broadcasts waiting."""
        return len(self._broadcasts)

    @property
    def answer_bytes(self) -> int:
        """Bytes of answers waiting: whoever fills the outbox pauses when they grow too many."""
        return self._answer_bytes

    @property
    def empty(self) -> bool:
        """Whether all that was to be said has been taken."""
        return not self._queue and not self._special and not self._missed and not self._broadcasts

    def first(self, response: LinkResponse) -> LinkResponse:
        """Number a response that goes before everything queued: the welcome."""
        self._received = response.processed_sequence
        return self._number(response, self._received)

    def drain(self) -> None:
        """Say that this router leaves."""
        self._special.append(LinkResponse(drain=LinkDrain()))

    def answer(self, now: float, envelope_id: int, session: int, frame: bytes) -> None:
        """Answer an envelope with a frame."""
        gathering = self._gather(now, len(frame))
        gathering.batch.replies.add(envelope_id=envelope_id, session=session, frame=frame)

    def answer_opened(self, now: float, envelope_id: int, session: int, opened: SessionOpened) -> None:
        """Answer open_session."""
        self._gather(now, 0).batch.replies.add(envelope_id=envelope_id, session=session, session_opened=opened)

    def answer_sync(self, now: float, envelope_id: int, session: int, page: SyncPage) -> None:
        """Answer sync_device."""
        gathering = self._gather(now, sum(map(len, page.frames)))
        gathering.batch.replies.add(envelope_id=envelope_id, session=session, sync_page=page)

    def deliver(
        self,
        now: float,
        ordinals: Sequence[int],
        frame: bytes,
        traffic_class: TrafficClass.ValueType,
        *,
        conversation_id: str = "",
        seq: int = 0,
        except_session: int = 0,
        only_sessions: Iterable[int] = (),
    ) -> bool:
        """Push a frame to users at this edge; False when there was no room and it was dropped."""
        size = len(frame) + 4 * len(ordinals) + _PART_BYTES
        if self._deliveries >= self._capacity or self._delivery_bytes + size > self._capacity_bytes:
            if traffic_class == TRAFFIC_CLASS_CHAT:
                self._missed.update(ordinals)
            return False
        gathering = self._open(now)
        gathering.items += 1
        gathering.deliveries += 1
        gathering.delivery_bytes += size
        self._deliveries += 1
        self._delivery_bytes += size
        gathering.batch.deliveries.add(
            user_ordinals=ordinals,
            except_session=except_session,
            traffic_class=traffic_class,
            conversation_id=conversation_id,
            seq=seq,
            frame=frame,
            only_sessions=only_sessions,
        )
        return True

    def broadcast(self, user_ordinals: bytes, frame: bytes, notification_id: str, expire_time_us: int) -> bool:
        """Send a notification's frame to many at this edge, given as a bitmap; False when there was no room and it was refused."""
        size = len(frame) + len(user_ordinals) + _PART_BYTES
        if len(self._broadcasts) >= self._capacity_broadcasts or self._broadcast_bytes + size > self._capacity_broadcast_bytes:
            return False
        broadcast = Broadcast(
            user_ordinals=user_ordinals,
            traffic_class=TRAFFIC_CLASS_NOTIFICATION,
            frame=frame,
            notification_id=notification_id,
            expire_time_us=expire_time_us,
        )
        self._broadcasts.append((broadcast, size))
        self._broadcast_bytes += size
        return True

    def received(self, sequence: int, *, tell_now: bool) -> None:
        """The edge's request of this number has been acted on; `tell_now` when the edge waits to hear so."""
        self._received = sequence
        self._tell_now = self._tell_now or tell_now

    def take(self, now: float) -> tuple[LinkResponse, int, float] | None:
        """The next response to write, how many deliveries it holds, and how many seconds the oldest waited.

        None when there is nothing to say.
        """
        if self._special:
            return self._number(self._special.popleft(), self._told), 0, 0.0  # it overtakes what is queued
        if not self._queue and self._missed:
            self._open(now)  # a batch to carry the resync
        if self._queue:
            return self._take_batch(now)
        if self._broadcasts:
            response = LinkResponse()
            self._add_broadcasts(response.batch)
            return self._number(response, self._received), 0, 0.0
        if self._speak or (self._tell_now and self._told < self._received):
            return self._number(LinkResponse(), self._received), 0, 0.0
        return None

    def tell(self) -> None:
        """Say what has been acted on even if nothing else is to be said."""
        self._tell_now = True

    def speak(self) -> None:
        """Say something even if there is nothing to be said."""
        self._speak = True

    def grant(self, credit: int) -> None:
        """From now on the edge may have so many envelopes unanswered."""
        self._credit = credit
        self._speak = True

    @property
    def horizon(self) -> int:
        """A number that `settled` reaches when the edge has acted on all that was queued until now."""
        return self._opened + (1 if self._missed else 0)

    @property
    def settled(self) -> int:
        """See `horizon`."""
        return self._settled

    def settle(self, processed_sequence: int) -> None:
        """The edge has acted on our responses up to this number."""
        while self._unsettled and self._unsettled[0][1] <= processed_sequence:
            self._settled = self._unsettled.popleft()[0]

    def _gather(self, now: float, size: int) -> _Gathering:
        gathering = self._open(now)
        gathering.items += 1
        gathering.answer_bytes += size + _PART_BYTES
        self._answer_bytes += size + _PART_BYTES
        return gathering

    def _open(self, now: float) -> _Gathering:
        if not self._queue or self._queue[-1].full:
            if self._queue:
                self._queue[-1].processed = self._received
            self._queue.append(_Gathering(now))
            self._opened += 1
            self._queue[-1].batch.resync_user_ordinals.extend(self._missed)
            self._missed.clear()
        return self._queue[-1]

    def _take_batch(self, now: float) -> tuple[LinkResponse, int, float]:
        taken = self._queue.popleft()
        self._deliveries -= taken.deliveries
        self._delivery_bytes -= taken.delivery_bytes
        self._answer_bytes -= taken.answer_bytes
        self._add_broadcasts(taken.batch)
        response = self._number(taken.response, self._received if taken.processed is None else taken.processed)
        self._unsettled.append((self._opened - len(self._queue), response.sequence))
        return response, taken.deliveries, now - taken.oldest

    def _add_broadcasts(self, batch: RouterBatch) -> None:
        """The next few broadcasts."""
        added = 0
        while self._broadcasts and added < BROADCAST_BYTES:
            broadcast, size = self._broadcasts.popleft()
            batch.broadcasts.append(broadcast)
            added += size
            self._broadcast_bytes -= size

    def _number(self, response: LinkResponse, processed: int) -> LinkResponse:
        self._sequence += 1
        response.sequence = self._sequence
        response.processed_sequence = self._told = processed
        response.credit, self._credit = self._credit, 0
        self._tell_now = self._tell_now and self._told < self._received
        self._speak = False
        return response

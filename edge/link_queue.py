"""What an edge has to say to one router, gathered between two sends, and the numbering of both directions. Pure.

Envelopes are bounded by `Routes`, and go as far as the router's credit reaches; online changes by the number of users; marks by
`max_marks`; acknowledgements of notifications by NotificationAcks. Marks and acknowledgements are kept until the router has acted
on the batch that carried them, so that they survive the link. That a session ended is said after all that it asked.
"""

from collections import deque
from collections.abc import Callable

from edge.lanes import Lanes
from edge.notification_acks import NotificationAcks
from edge.waiting_marks import Mark, MarkKey, WaitingMarks, merge
from tidings.router.v1 import link_pb2

PROTOCOL_VERSION = 1
CHAT_TURNS, CHAT_FEW = 8, 24  # a share of the marks, and so many at least, leave together
CROWD_TURNS, CROWD_FEW = 20, 20  # of those in large conversations, which come by the thousand for every message
ACK_BYTES = 1024 * 1024  # of a batch's acknowledgements of notifications, roughly


class LinkQueue:
    """One direction of one link.

    Args:
        max_batch: most envelopes, and most marks, of one batch.
        max_marks: most marks waiting; past it the oldest is dropped (its client is sent those entries again), those in large
            conversations first.

    Attributes:
        acks: acknowledgements of notifications.
        envelopes: what clients ask.
    """

    def __init__(self, max_batch: int, max_marks: int) -> None:
        self._max_batch = max_batch
        self._max_marks = max_marks
        self.acks = NotificationAcks()
        self.envelopes = Lanes()
        self._sequence = 0
        self._acted_on = 0
        self._told = 0
        self._online: dict[int, bool] = {}
        self._closed_sessions: deque[tuple[int, int]] = deque()  # with how many questions had been said
        self._marks: dict[MarkKey, Mark] = {}  # released
        self._chats = WaitingMarks(CHAT_TURNS, CHAT_FEW, whole=True)
        self._crowds = WaitingMarks(CROWD_TURNS, CROWD_FEW)
        self._kept: deque[tuple[int, dict[MarkKey, Mark]]] = deque()
        self._new_barriers: list[Callable[[], None]] = []
        self._last_barriers: list[Callable[[], None]] = []
        self._barriers: deque[tuple[int, list[Callable[[], None]]]] = deque()

    def __len__(self) -> int:
        return len(self.envelopes)

    @property
    def awaits(self) -> bool:
        """Whether the router owes an answer, or waits for one to be sent more; or whether a barrier has not passed."""
        barriers = self._barriers or self._new_barriers or self._last_barriers
        return bool(self.envelopes.under_way or self.envelopes or barriers)

    def hello(self, edge_id: str, router_id: str = "") -> link_pb2.LinkRequest:
        """The first request."""
        hello = link_pb2.LinkHello(edge_id=edge_id, protocol_version=PROTOCOL_VERSION, router_id=router_id)
        return link_pb2.LinkRequest(sequence=self._next(), hello=hello)

    def snapshot(self, user_ordinals: bytes) -> link_pb2.LinkRequest:
        """The second request; changes of who is online are to be said from here on."""
        snapshot = link_pb2.OnlineSnapshot(user_ordinals=user_ordinals)
        return link_pb2.LinkRequest(sequence=self._next(), online_snapshot=snapshot)

    def say(self, envelope: link_pb2.ClientEnvelope) -> None:
        """Queue a request."""
        self.envelopes.say(envelope)

    def online(self, ordinal: int, *, opened: bool) -> None:
        """A user came or went; coming and going between two sends cancel each other, for a batch says all comings first."""
        if self._online.get(ordinal) is (not opened):
            del self._online[ordinal]
        else:
            self._online[ordinal] = opened

    def session_closed(self, number: int) -> None:
        """A session that watched presences ended; the router acts on the endings in a batch before the questions in it."""
        self._closed_sessions.append((number, self.envelopes.questions.said))

    def mark(self, key: MarkKey, mark: Mark, *, crowd: bool = False) -> None:
        """Queue a mark, or move the one that waits; `crowd`: it is one in a large conversation."""
        (self._crowds if crowd else self._chats).add(key, mark)
        if len(self._marks) + len(self._chats) + len(self._crowds) > self._max_marks:
            self._drop_oldest()

    def release_marks(self, *, crowds: bool = False) -> int:
        """Let marks go with the next request: a turn of those in large conversations, or of the others; gives how many wait on."""
        waiting = self._crowds if crowds else self._chats
        self._release(waiting.turn())
        return len(waiting)

    def release_all_marks(self) -> None:
        """Let all marks go with the next requests."""
        self._release(self._chats.all())
        self._release(self._crowds.all())

    def barrier(self, passed: Callable[[], None]) -> None:
        """Call `passed` once the router has acted on all that was said before."""
        self._new_barriers.append(passed)

    def last_barrier(self, passed: Callable[[], None]) -> None:
        """As `barrier`, behind all marks and acknowledgements that were released, too."""
        self._last_barriers.append(passed)

    def take(self) -> link_pb2.LinkRequest | None:
        """All that queued up, as the next request; None when there is nothing to say."""
        marks = self._take_marks()
        closed = self._take_closed()
        barriers = self._new_barriers or self._last_barriers
        if not (self.envelopes.ready or self._online or marks or closed or barriers or self.acks.due):
            return None
        request = link_pb2.LinkRequest(sequence=self._next(), processed_sequence=self._acted_on)
        self._told = self._acted_on
        batch = request.batch
        batch.opened_user_ordinals.extend(ordinal for ordinal, opened in self._online.items() if opened)
        batch.closed_user_ordinals.extend(ordinal for ordinal, opened in self._online.items() if not opened)
        batch.closed_sessions.extend(closed)
        self._online.clear()
        batch.envelopes.extend(self.envelopes.take(self._max_batch))
        if marks:
            batch.receipts.extend(marks.values())
            self._kept.append((self._sequence, marks))
        if self.acks.due:
            batch.notification_acknowledgements.extend(self.acks.take(self._sequence, ACK_BYTES))
        self._take_barriers()
        return request

    @property
    def more(self) -> bool:
        """After `take`: whether what is to go did not fit into one request."""
        closed = bool(self._closed_sessions) and self._closed_sessions[0][1] <= self.envelopes.questions.taken
        return self.envelopes.ready or bool(self._marks) or self.acks.due or closed

    def acknowledgement(self) -> link_pb2.LinkRequest | None:
        """A request that only tells how far the router's batches were acted on; None when it knows."""
        if self._told == self._acted_on:
            return None
        self._told = self._acted_on
        return link_pb2.LinkRequest(sequence=self._next(), processed_sequence=self._acted_on)

    def acted_on(self, sequence: int) -> None:
        """The edge has acted on the router's responses up to this one."""
        self._acted_on = sequence

    def on_processed(self, sequence: int) -> None:
        """The router has acted on our requests up to this one."""
        while self._kept and self._kept[0][0] <= sequence:
            self._kept.popleft()
        self.acks.on_processed(sequence)
        while self._barriers and self._barriers[0][0] <= sequence:
            for passed in self._barriers.popleft()[1]:
                passed()

    def abandon(self) -> dict[MarkKey, Mark]:
        """The link is lost: gives the marks that may not have arrived; `acks` is asked for itself. Barriers pass, for a new link
        syncs everybody."""
        marks: dict[MarkKey, Mark] = {}
        for kept in [*(kept for _, kept in self._kept), self._marks, self._chats.all(), self._crowds.all()]:
            for key, mark in kept.items():
                merge(marks, key, mark)
        barriers = [passed for _, group in self._barriers for passed in group] + self._new_barriers + self._last_barriers
        self._kept.clear()
        self._barriers.clear()
        self._marks, self._new_barriers, self._last_barriers = {}, [], []
        for passed in barriers:
            passed()
        return marks

    def _drop_oldest(self) -> None:
        waiting = self._crowds or self._chats
        if waiting:
            waiting.drop_oldest()
        else:
            del self._marks[next(iter(self._marks))]

    def _release(self, marks: dict[MarkKey, Mark]) -> None:
        for key, mark in marks.items():
            merge(self._marks, key, mark)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _take_barriers(self) -> None:
        if not (self._marks or self.acks.due):
            self._new_barriers += self._last_barriers
            self._last_barriers = []
        if self._new_barriers:
            self._barriers.append((self._sequence, self._new_barriers))
            self._new_barriers = []

    def _take_closed(self) -> list[int]:
        """Sessions that ended and whose questions went with earlier requests."""
        taken, closed = self.envelopes.questions.taken, self._closed_sessions
        return [closed.popleft()[0] for _ in range(len(closed)) if closed[0][1] <= taken]

    def _take_marks(self) -> dict[MarkKey, Mark]:
        if len(self._marks) <= self._max_batch:
            taken, self._marks = self._marks, {}
            return taken
        return {key: self._marks.pop(key) for key in list(self._marks)[: self._max_batch]}

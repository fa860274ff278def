"""What an edge has to say to one router, gathered between two sends, and the numbering of both directions. Pure.

Envelopes are bounded by `Routes`; online changes by the number of users; marks by `max_marks`; acknowledgements of notifications by
NotificationAcks. Marks and acknowledgements are kept until the router has acted on the batch that carried them, so that they
survive the link.
"""

from collections import deque
from collections.abc import Callable

from edge.notification_acks import NotificationAcks
from tidings.router.v1 import link_pb2

PROTOCOL_VERSION = 1
BATCH_BYTES = 8 * 1024 * 1024  # of a batch's envelopes, roughly: half of gRPC's limit, past which the whole link would be lost
ACK_BYTES = 1024 * 1024  # of a batch's acknowledgements of notifications, roughly
FEW = 32  # envelopes that stay below that whatever they carry, so that they need not be measured

Mark = link_pb2.ReceiptDelta
MarkKey = tuple[int, str]
"""Session number and conversation."""


class LinkQueue:
    """One direction of one link.

    Args:
        max_batch: most envelopes, and most marks, of one batch.
        max_marks: most marks waiting; past it the oldest is dropped (its client is sent those entries again).

    Attributes:
        acks: acknowledgements of notifications.
    """

    def __init__(self, max_batch: int, max_marks: int) -> None:
        self._max_batch = max_batch
        self._max_marks = max_marks
        self.acks = NotificationAcks()
        self._sequence = 0
        self._acted_on = 0
        self._told = 0
        self._envelopes: deque[link_pb2.ClientEnvelope] = deque()
        self._online: dict[int, bool] = {}
        self._closed_sessions: list[int] = []
        self._marks: dict[MarkKey, Mark] = {}
        self._marks_due = False
        self._kept: deque[tuple[int, dict[MarkKey, Mark]]] = deque()
        self._new_barriers: list[Callable[[], None]] = []
        self._barriers: deque[tuple[int, list[Callable[[], None]]]] = deque()

    def __len__(self) -> int:
        return len(self._envelopes)

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
        self._envelopes.append(envelope)

    def online(self, ordinal: int, *, opened: bool) -> None:
        """A user came or went; coming and going between two sends cancel each other, for a batch says all comings first."""
        if self._online.get(ordinal) is (not opened):
            del self._online[ordinal]
        else:
            self._online[ordinal] = opened

    def session_closed(self, number: int) -> None:
        """A session that watched presences ended."""
        self._closed_sessions.append(number)

    def mark(self, key: MarkKey, mark: Mark) -> None:
        """Queue a mark, or move the one that waits."""
        merge(self._marks, key, mark)
        if len(self._marks) > self._max_marks:
            del self._marks[next(iter(self._marks))]

    def release_marks(self) -> None:
        """Let the marks that wait go with the next request."""
        self._marks_due = True

    def barrier(self, passed: Callable[[], None]) -> None:
        """Call `passed` once the router has acted on all that was said before."""
        self._new_barriers.append(passed)

    def take(self) -> link_pb2.LinkRequest | None:
        """All that queued up, as the next request; None when there is nothing to say."""
        marks = self._take_marks() if self._marks_due else {}
        if not (self._envelopes or self._online or marks or self._closed_sessions or self._new_barriers or self.acks.due):
            return None
        request = link_pb2.LinkRequest(sequence=self._next(), processed_sequence=self._acted_on)
        self._told = self._acted_on
        batch = request.batch
        batch.opened_user_ordinals.extend(ordinal for ordinal, opened in self._online.items() if opened)
        batch.closed_user_ordinals.extend(ordinal for ordinal, opened in self._online.items() if not opened)
        batch.closed_sessions.extend(self._closed_sessions)
        self._online.clear()
        self._closed_sessions.clear()
        batch.envelopes.extend(self._take_envelopes())
        if marks:
            batch.receipts.extend(marks.values())
            self._kept.append((self._sequence, marks))
        if self.acks.due:
            batch.notification_acknowledgements.extend(self.acks.take(self._sequence, ACK_BYTES))
        if self._new_barriers:
            self._barriers.append((self._sequence, self._new_barriers))
            self._new_barriers = []
        return request

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
        for kept in [*(kept for _, kept in self._kept), self._marks]:
            for key, mark in kept.items():
                merge(marks, key, mark)
        barriers = [passed for _, group in self._barriers for passed in group] + self._new_barriers
        self._kept.clear()
        self._barriers.clear()
        self._marks, self._new_barriers = {}, []
        for passed in barriers:
            passed()
        return marks

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _take_envelopes(self) -> list[link_pb2.ClientEnvelope]:
        count = min(len(self._envelopes), self._max_batch)
        if count <= FEW:
            return [self._envelopes.popleft() for _ in range(count)]
        taken: list[link_pb2.ClientEnvelope] = []
        size = 0
        while len(taken) < count and size < BATCH_BYTES:
            size += self._envelopes[0].ByteSize()
            taken.append(self._envelopes.popleft())
        return taken

    def _take_marks(self) -> dict[MarkKey, Mark]:
        if len(self._marks) <= self._max_batch:
            taken, self._marks, self._marks_due = self._marks, {}, False
            return taken
        return {key: self._marks.pop(key) for key in list(self._marks)[: self._max_batch]}


def merge(marks: dict[MarkKey, Mark], key: MarkKey, mark: Mark) -> None:
    """Add a mark, or move the one that is there: neither of its seqs goes back."""
    old = marks.setdefault(key, mark)
    old.delivered_seq = max(old.delivered_seq, mark.delivered_seq)
    old.read_seq = max(old.read_seq, mark.read_seq)

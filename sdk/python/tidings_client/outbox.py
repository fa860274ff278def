"""Messages on their way to the server, from the moment they are kept here until it says that they are stored.

    QUEUED --take--> IN_FLIGHT --stored--> gone          (and from QUEUED too: the log may tell of it first)
       ^                |  \\--refused for good--> gone
       \\-- retry, silence, lost connection --/

Rules: oldest first; never more in flight than the server allows; the order within a conversation is always kept. When one is
refused for now, it and all later ones of its conversation wait, and then go again in order. Each transmission is an *attempt* with
an id of its own, so that an answer to an earlier attempt changes nothing but what it proves. Pure: time is passed in, and keeping
messages over a restart is the caller's (`KeepsOutgoing`), before `add` and after `on_stored`.
"""

import heapq
import itertools
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tidings.client.v1.frames_pb2 import ClientFrame, MessageStored
from tidings.common.v1 import error_pb2
from tidings.common.v1.conversation_pb2 import LogEntry
from tidings_client.errors import OutboxFull, retry_seconds
from tidings_client.naming import direct_conversation_id

SILENCE_SECONDS = 10.0  # a stored message is answered within milliseconds; by then the answer was lost
BEHIND_SECONDS = 4.0  # nothing more is sent behind a message unanswered for so long: should it have been refused, the server
# holds the later ones off for 5 seconds, and the refusal might reach us after that
CAPACITY = 10_000  # messages; past it `add` refuses
DEFAULT_WINDOW = 100  # messages in flight when the server names no limit


@dataclass(eq=False, slots=True)
class Record:
    """One message, edit or deletion on its way.

    Attributes:
        number: grows with each message; the order of sending.
        target: what it is ordered by: a conversation id, or a user id while the direct conversation's id isn't known.
        frame: what is sent, without request_id.
    """

    number: int
    client_msg_id: str
    target: str
    frame: ClientFrame
    attempt: int = 0
    """0 while queued."""
    sent_at: float = 0.0


class KeepsOutgoing(Protocol):
    """The port that keeps messages over a restart."""

    def insert_outgoing(self, client_msg_id: str, target: str, frame: ClientFrame) -> int:
        """Keep one durably before returning; gives its number."""

    def outgoing(self) -> list[Record]:
        """All that aren't stored or failed, oldest first."""


class Outbox:
    """See the top of this file.

    Args:
        records: what an earlier run left.
        capacity: most messages held. When full, `add` raises OutboxFull.
    """

    def __init__(self, records: Iterable[Record] = (), capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._records: dict[str, Record] = {}
        self._queue: list[tuple[int, Record]] = []  # a heap of those queued in lanes that aren't blocked
        self._blocked: dict[str, float] = {}  # lane -> when it goes on
        self._waiting: dict[str, list[Record]] = defaultdict(list)  # queued in blocked lanes
        self._in_flight: OrderedDict[int, Record] = OrderedDict()  # by attempt, in order of sending
        self._held_up = False  # whether all that is queued waits for an answer in its lane
        self.window = DEFAULT_WINDOW
        for record in records:
            self._enter(record)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, client_msg_id: str) -> bool:
        return client_msg_id in self._records

    @property
    def in_flight(self) -> int:
        """How many await an answer."""
        return len(self._in_flight)

    def get(self, client_msg_id: str) -> Record | None:
        """The message with this id, if it is on its way."""
        return self._records.get(client_msg_id)

    def check_room(self) -> None:
        """Raises:
        OutboxFull: there is no room for another.
        """
        if len(self._records) >= self._capacity:
            raise OutboxFull(f"{self._capacity} messages wait to be sent: wait for some to be stored, then send this one again")

    def add(self, record: Record) -> None:
        """Take one in that has been kept.

        Raises:
            OutboxFull: as `check_room`.
        """
        self.check_room()
        self._enter(record)

    def identify(self, user_id: str) -> None:
        """Who we are is known now: messages to a user and to the direct conversation with them are one lane."""
        for record in self._records.values():
            if record.frame.send_message.WhichOneof("target") == "recipient_id":
                record.target = direct_conversation_id(user_id, record.frame.send_message.recipient_id)
        self._requeue([])

    def take(self, now: float, limit: int) -> list[Record]:
        """At most `limit` messages to send now, in order; each has its `attempt` set by the caller through `on_sent`."""
        self._unblock(now)
        room = min(limit, self.window - len(self._in_flight))
        slow = self._slow_lanes(now)
        taken: list[Record] = []
        aside: list[tuple[int, Record]] = []
        while self._queue and len(taken) < room:
            item = heapq.heappop(self._queue)
            if item[1].target in slow:
                aside.append(item)
            else:
                taken.append(item[1])
        self._held_up = bool(aside) and not self._queue
        for item in aside:
            heapq.heappush(self._queue, item)
        return taken

    def on_sent(self, record: Record, attempt: int, now: float) -> None:
        """A message taken goes out as this attempt."""
        record.attempt, record.sent_at = attempt, now
        self._in_flight[attempt] = record

    def on_stored(self, client_msg_id: str) -> Record | None:
        """The server has it; None when it was no concern of ours (any more)."""
        return self._remove(client_msg_id)

    def on_refused(self, attempt: int, error: error_pb2.Error, now: float) -> Record | None:
        """An attempt was refused. Gives the message when that is final; None when it goes again, or the answer is stale."""
        record = self._in_flight.get(attempt)
        if record is None:
            return None
        wait = retry_seconds(error)
        if wait is None:
            return self._remove(record.client_msg_id)
        self._blocked[record.target] = max(now + wait, self._blocked.get(record.target, 0.0))
        self._requeue(self._flying_from(record))
        return None

    def discard(self, client_msg_id: str) -> Record | None:
        """Give one up; it may have been stored all the same if it was in flight."""
        return self._remove(client_msg_id)

    def on_time(self, now: float) -> None:
        """After silence, a message and the later ones of its conversation go again."""
        while self._in_flight:
            oldest = next(iter(self._in_flight.values()))
            if now < oldest.sent_at + SILENCE_SECONDS:
                return
            self._requeue(self._flying_from(oldest))

    def on_disconnected(self) -> None:
        """All that wasn't answered goes again on the next connection."""
        self._requeue(list(self._in_flight.values()))

    def deadline(self) -> float | None:
        """When to call `on_time` and `take` again; None when only an answer can change anything."""
        times = [at for lane, at in self._blocked.items() if self._waiting.get(lane)]
        if self._in_flight:
            times.append(next(iter(self._in_flight.values())).sent_at + SILENCE_SECONDS)
        return min(times, default=None)

    @property
    def ready(self) -> bool:
        """Whether `take` would give something, by the clock of its last call."""
        return bool(self._queue) and not self._held_up and len(self._in_flight) < self.window

    def _enter(self, record: Record) -> None:
        self._records[record.client_msg_id] = record
        self._queue_up(record)

    def _slow_lanes(self, now: float) -> set[str]:
        """Lanes whose oldest message in flight has been unanswered for long."""
        slow = itertools.takewhile(lambda record: record.sent_at + BEHIND_SECONDS <= now, self._in_flight.values())
        return {record.target for record in slow}

    def _queue_up(self, record: Record) -> None:
        self._held_up = False
        if record.target in self._blocked:
            self._waiting[record.target].append(record)
        else:
            heapq.heappush(self._queue, (record.number, record))

    def _flying_from(self, first: Record) -> list[Record]:
        flying = self._in_flight.values()
        return [record for record in flying if record.target == first.target and record.number >= first.number]

    def _requeue(self, records: list[Record]) -> None:
        """Put back what was in flight, and sort everything queued into its lane anew."""
        for record in records:
            del self._in_flight[record.attempt]
            record.attempt = 0
        queued = [record for _, record in self._queue] + [record for lane in self._waiting.values() for record in lane]
        self._queue, self._waiting = [], defaultdict(list)
        for record in [*queued, *records]:
            self._queue_up(record)

    def _unblock(self, now: float) -> None:
        due = [lane for lane, at in self._blocked.items() if at <= now]
        for lane in due:
            del self._blocked[lane]
        for lane in due:
            for record in self._waiting.pop(lane, []):
                self._queue_up(record)

    def _remove(self, client_msg_id: str) -> Record | None:
        record = self._records.pop(client_msg_id, None)
        if record is None:
            return None
        self._held_up = False
        if record.attempt:
            self._in_flight.pop(record.attempt, None)
        else:
            self._queue = [item for item in self._queue if item[1] is not record]
            heapq.heapify(self._queue)
            waiting = self._waiting.get(record.target, [])
            self._waiting[record.target] = [other for other in waiting if other is not record]
        return record


def entry_of(record: Record, stored: MessageStored, user_id: str) -> LogEntry:
    """One's own message as the log has it: the server doesn't send it back to the device that sent it."""
    entry = LogEntry(
        conversation_id=stored.conversation_id,
        seq=stored.seq,
        message_id=stored.message_id,
        sender_id=user_id,
        client_msg_id=stored.client_msg_id,
        store_time=stored.store_time,
    )
    frame = record.frame
    if frame.HasField("send_message"):
        entry.content.CopyFrom(frame.send_message.content)
    elif frame.HasField("edit_message"):
        entry.edit.target_seq = frame.edit_message.target_seq
        entry.edit.content.CopyFrom(frame.edit_message.content)
    else:
        entry.deletion.target_seq = frame.delete_message.target_seq
    return entry

"""The accounts of a run: each message by its number, from the moment it was meant to be sent to the receipt that came back.

Pure: times are passed in. Latency is counted from the *intended* time, so a generator or server that falls behind can't hide it
(coordinated omission). Sent, stored, delivered and receipted are counted apart, never one for another.
"""

from array import array
from collections import defaultdict, deque
from dataclasses import dataclass, field

from bench.latency import Latency, summarize


@dataclass(frozen=True, slots=True)
class Lane:
    """One sender to one conversation, with so many others in it."""

    sender: int
    conversation: str
    recipients: int


@dataclass(frozen=True, slots=True)
class Step:
    """What a span of messages came to. Rates are per second of the span in which they were meant to be sent."""

    offered_rate: float
    seconds: float
    sent: int
    stored: int
    stored_rate: float  # answered within the span itself
    delivered: int
    delivered_rate: float
    expected_deliveries: int
    receipted: int
    refused: int
    stored_latency: Latency
    delivered_latency: Latency
    receipt_latency: Latency
    lateness: Latency  # the generator's own: how long after its intended time a message was written


@dataclass(slots=True)
class _Reading:
    """What one user was given of one conversation: everything up to `top` but `missing`, some of which are the user's own."""

    top: int = 0
    missing: set[int] = field(default_factory=set)


class Ledger:
    """Accounts of all messages of a run, numbered from 0 in the order in which they were meant to be sent."""

    def __init__(self) -> None:
        self.intended = array("d")
        self.lanes: list[Lane] = []
        self.seqs: list[int] = []  # 0 until stored
        self._stored_at = array("d")
        self._given = array("L")
        self._lateness: list[float] = []
        self._deliveries: list[tuple[int, float]] = []
        self._receipts: list[tuple[int, float]] = []
        # (sender, conversation) -> what awaits a receipt, as (seq, number) ascending; and up to where others have everything.
        self._awaiting: dict[tuple[int, str], deque[tuple[int, int]]] = defaultdict(deque)
        self._marks: dict[tuple[int, str], int] = defaultdict(int)
        self._readings: dict[tuple[int, str], _Reading] = defaultdict(_Reading)
        self.stored = self.delivered = self.doubled = self.reordered = self.two_seqs = 0
        self.expected = 0  # deliveries that the stored messages call for
        self.refused: dict[int, int] = {}  # number -> error code

    def on_sent(self, lane: Lane, intended: float, now: float) -> int:
        """A message goes out now; gives its number."""
        self.lanes.append(lane)
        self.intended.append(intended)
        self.seqs.append(0)
        self._stored_at.append(0.0)
        self._given.append(0)
        self._lateness.append(now - intended)
        return len(self.lanes) - 1

    def on_stored(self, number: int, seq: int, now: float) -> None:
        """The sender was told that it is durable."""
        if self.seqs[number]:
            self.two_seqs += self.seqs[number] != seq
            return
        lane = self.lanes[number]
        self.seqs[number], self._stored_at[number] = seq, now
        self.stored += 1
        self.expected += lane.recipients
        key = lane.sender, lane.conversation
        if self._marks[key] >= seq:
            self._receipts.append((number, now))
        else:
            self._awaiting[key].append((seq, number))

    def on_refused(self, number: int, code: int) -> None:
        """The sender was told why not."""
        self.refused[number] = code

    def on_given(self, user: int, conversation: str, seq: int, number: int, now: float) -> None:
        """A recipient was given it."""
        reading = self._readings[user, conversation]
        if seq == reading.top + 1:
            reading.top = seq
        elif seq > reading.top:
            reading.missing.update(range(reading.top + 1, seq))
            reading.top = seq
        elif seq in reading.missing:
            reading.missing.remove(seq)
            self.reordered += 1
        else:
            self.doubled += 1
            return
        self.delivered += 1
        if number >= 0:
            self._given[number] += 1
            self._deliveries.append((number, now))

    def on_receipt(self, sender: int, conversation: str, delivered_seq: int, now: float) -> None:
        """A sender was told that some recipient has everything up to there."""
        key = sender, conversation
        self._marks[key] = max(self._marks[key], delivered_seq)
        awaiting = self._awaiting[key]
        while awaiting and awaiting[0][0] <= delivered_seq:
            self._receipts.append((awaiting.popleft()[1], now))

    @property
    def settled(self) -> bool:
        """Whether every message was answered, delivered to all, and receipted."""
        answered = self.stored + len(self.refused) == len(self.lanes)
        return answered and self.delivered >= self.expected and not any(self._awaiting.values())

    def step(self, first: int, rate: float, seconds: float) -> Step:
        """The account of the messages from number `first` on."""
        numbers = range(first, len(self.lanes))
        began = self.intended[first] if numbers else 0.0
        stored = [n for n in numbers if self.seqs[n]]
        given = [(n, at) for n, at in self._deliveries if n >= first]
        in_time = sum(self._stored_at[n] <= began + seconds for n in stored)
        given_in_time = sum(at <= began + seconds for _, at in given)
        return Step(
            offered_rate=rate,
            seconds=seconds,
            sent=len(numbers),
            stored=len(stored),
            stored_rate=round(in_time / seconds, 1),
            delivered=len(given),
            delivered_rate=round(given_in_time / seconds, 1),
            expected_deliveries=sum(self.lanes[n].recipients for n in stored),
            receipted=sum(n >= first for n, _ in self._receipts),
            refused=sum(n >= first for n in self.refused),
            stored_latency=summarize(self._stored_at[n] - self.intended[n] for n in stored),
            delivered_latency=summarize(at - self.intended[n] for n, at in given),
            receipt_latency=summarize(at - self.intended[n] for n, at in self._receipts if n >= first),
            lateness=summarize(self._lateness[first:]),
        )

    def faults(self) -> dict[str, int]:
        """What must all be 0 at the end of a run: stored but not delivered to someone; delivered twice, or late; two seqs."""
        short = (lane.recipients - self._given[n] for n, lane in enumerate(self.lanes) if self.seqs[n])
        lost = sum(max(0, missing) for missing in short)
        return {"lost": lost, "doubled": self.doubled, "reordered": self.reordered, "two seqs": self.two_seqs}

    def forget_latencies(self) -> None:
        """Free what was kept for percentiles; the counts and the seqs stay for the last audit."""
        self._deliveries.clear()
        self._receipts.clear()

    def stored_in(self, conversation: str) -> dict[int, int]:
        """seq -> number of what was answered stored there."""
        return {self.seqs[n]: n for n, lane in enumerate(self.lanes) if self.seqs[n] and lane.conversation == conversation}

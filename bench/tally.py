"""The accounts of one conversation whose every message goes to thousands: who was given what, when, and in what order.

Pure: times are passed in. Latency counts from the *intended* time of a message. One frame comes to thousands of members, so what is
noted for each is one comparison and one number.
"""

from array import array
from dataclasses import dataclass

from bench.latency import Latency, summarize


@dataclass(frozen=True, slots=True)
class Span:
    """What a span of messages came to. Rates are per second of the span in which they were meant to be sent."""

    offered_rate: float
    seconds: float
    sent: int
    delivered: int
    expected: int
    delivered_rate: float  # from the first message's intended time until the last member had the last message
    latency: Latency  # of each delivery
    last_latency: Latency  # of each message, until the last member had it
    lateness: Latency  # the generator's own


class Tally:
    """Accounts of all messages of a run, numbered from 0.

    Args:
        members: how many there are; each is known by its index.
    """

    def __init__(self, members: int) -> None:
        self._members = members
        self._top = array("L", bytes(8 * members))  # highest seq given, per member
        self._missing: dict[int, set[int]] = {}  # per member, what is below its top and did not come yet
        self._intended = array("d")
        self._lateness = array("d")
        self._given: list[int] = []
        self._last: list[float] = []
        self._latencies = array("d")
        self._own: dict[int, set[int]] = {}
        self.stored = self.delivered = self.doubled = self.reordered = self.refused = 0

    def on_sent(self, intended: float, now: float) -> int:
        """A message goes out now; gives its number."""
        self._intended.append(intended)
        self._lateness.append(now - intended)
        self._given.append(0)
        self._last.append(intended)
        return len(self._intended) - 1

    def on_stored(self, member: int, seq: int) -> None:
        """The sender was told that its message is durable: it is not given that one."""
        self._own.setdefault(member, set()).add(seq)
        self._missing.get(member, set()).discard(seq)
        self.stored += 1

    def on_given(self, member: int, seq: int, number: int, now: float) -> None:
        """A member was given an entry; -1 for one that is nobody's message."""
        top = self._top[member]
        if seq == top + 1:
            self._top[member] = seq
        elif not self._out_of_turn(member, seq, top):
            return
        if number >= 0:
            self.delivered += 1
            self._given[number] += 1
            self._last[number] = now
            self._latencies.append(now - self._intended[number])

    @property
    def sent(self) -> int:
        """Messages sent so far."""
        return len(self._given)

    @property
    def expected(self) -> int:
        """Deliveries that the stored messages call for."""
        return self.stored * (self._members - 1)

    @property
    def settled(self) -> bool:
        """Whether every message was answered, and came to all others."""
        return self.stored + self.refused == self.sent and self.delivered >= self.expected

    def span(self, first: int, rate: float, seconds: float) -> Span:
        """The account of the messages from number `first` on; call it when they are settled. Forgets their latencies."""
        numbers = range(first, self.sent)
        given = sum(self._given[n] for n in numbers)
        took = max((self._last[n] for n in numbers), default=0.0) - self._intended[first] if numbers else 0.0
        latencies, self._latencies = self._latencies, array("d")
        return Span(
            offered_rate=rate,
            seconds=seconds,
            sent=len(numbers),
            delivered=given,
            expected=len(numbers) * (self._members - 1),
            delivered_rate=round(given / max(took, seconds), 1),
            latency=summarize(latencies),
            last_latency=summarize(self._last[n] - self._intended[n] for n in numbers if self._given[n]),
            lateness=summarize(self._lateness[first:]),
        )

    def faults(self) -> dict[str, int]:
        """What must be 0 when all is settled."""
        own = self._own
        holes = sum(len(missing - own.get(member, set())) for member, missing in self._missing.items())
        lost = max(holes, self.expected - self.delivered)
        return {"lost": lost, "doubled": self.doubled, "reordered": self.reordered, "refused": self.refused}

    def _out_of_turn(self, member: int, seq: int, top: int) -> bool:
        """Whether an entry that is not the next one is new all the same."""
        missing = self._missing.setdefault(member, set())
        if seq > top:
            own = self._own.get(member, set())
            missing.update(one for one in range(top + 1, seq) if one not in own)
            self._top[member] = seq
            return True
        if seq in missing:
            missing.remove(seq)
            self.reordered += 1
            return True
        self.doubled += 1
        return False

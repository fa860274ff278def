"""Envelopes on their way to one router, in two lanes: what is to be stored, and questions. Pure.

Each lane is first-in first-out. At most `credit` envelopes are under way, from their sending to their reply, and of that a quarter
is kept for either lane alone: a flood of questions doesn't hold up who sends, nor a slow log who comes in. Between the lanes there
is no order, for nothing asked on one depends on what the other has not answered yet. What waits here is bounded by `Routes`.
"""

import sys
from collections import deque

from tidings.router.v1 import link_pb2

BATCH_BYTES = 8 * 1024 * 1024  # of a batch's envelopes, roughly: half of gRPC's limit, past which the whole link would be lost
FEW = 32  # envelopes that stay below that whatever they carry, so that they need not be measured


class Lane:
    """What waits, and how many of this lane are under way."""

    __slots__ = ("said", "under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[link_pb2.ClientEnvelope] = deque()
        self.under_way = 0
        self.said = 0  # since the link began

    @property
    def taken(self) -> int:
        """How many have been taken since the link began."""
        return self.said - len(self.waiting)


class Lanes:
    """Both lanes of a link.

    Attributes:
        sends, questions: the lanes.
        credit: most envelopes under way; without bound until the router says one.
    """

    def __init__(self) -> None:
        self.sends = Lane()
        self.questions = Lane()
        self.credit = sys.maxsize
        self._first, self._second = self.sends, self.questions

    def __len__(self) -> int:
        return len(self.sends.waiting) + len(self.questions.waiting)

    @property
    def under_way(self) -> int:
        """Envelopes sent and not answered."""
        return self.sends.under_way + self.questions.under_way

    @property
    def ready(self) -> bool:
        """Whether something may be sent now."""
        asked = self.questions.waiting
        return (bool(self.sends.waiting) and self._room(self.sends) > 0) or (
            bool(asked) and (self._room(self.questions) > 0 or not is_answered(asked[0]))
        )

    def say(self, envelope: link_pb2.ClientEnvelope) -> None:
        """Queue an envelope."""
        lane = self.sends if envelope.HasField("append_entry") else self.questions
        lane.waiting.append(envelope)
        lane.said += 1

    def on_answered(self, *, stored: bool) -> None:
        """A reply came to an envelope of the one lane or the other."""
        lane = self.sends if stored else self.questions
        lane.under_way = max(0, lane.under_way - 1)

    def take(self, most: int) -> list[link_pb2.ClientEnvelope]:
        """What may be sent now, of the lanes in turn, each in order; at most so many, and about 8 MiB."""
        taken: list[link_pb2.ClientEnvelope] = []
        size = 0
        for lane in (self._first, self._second):
            size += self._take(lane, most, size, taken)
        self._first, self._second = self._second, self._first
        return taken

    def _take(self, lane: Lane, most: int, size: int, taken: list[link_pb2.ClientEnvelope]) -> int:
        """Add what may go of a lane; gives its bytes, where they matter."""
        waiting, room, added = lane.waiting, self._room(lane), 0
        measured = len(waiting) > FEW
        while waiting and len(taken) < most and size + added < BATCH_BYTES:
            counted = lane is self.sends or is_answered(waiting[0])
            if counted and room <= 0:
                break
            room -= counted
            lane.under_way += counted
            envelope = waiting.popleft()
            added += envelope.ByteSize() if measured else 0
            taken.append(envelope)
        return added

    def _room(self, lane: Lane) -> int:
        """How many more of a lane may be under way."""
        return min(self.credit - self.under_way, self.credit - self.credit // 4 - lane.under_way)


def is_answered(envelope: link_pb2.ClientEnvelope) -> bool:
    """Whether a router answers it, so that it counts against the credit."""
    arm = envelope.WhichOneof("body")
    return arm != "typing" and (arm != "watch_users" or len(envelope.watch_users.watch_user_ids) > 0)

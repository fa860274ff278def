"""Work that was put aside, as a value: what a letter holds, and how two about the same subject become one. Pure.

Times are microseconds since 1970.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

from store.model import Advance


class Kind(IntEnum):
    """As the contract's DeadLetterKind."""

    DISPATCH = 1
    MARKS = 2
    NOTIFICATION = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """How soon work is given up, and how much of it is kept.

    Attributes:
        runs: failures of a notification's owners, without anybody being sent it in between, after which it is put aside.
        letters: kept at most; past it those put aside first go.
    """

    runs: int = 5
    letters: int = 100_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """See the contract.

    Attributes:
        attempts: of a new letter, those since it was last put.
        updated_at: grows with every put, whatever the clocks say: it tells one put from the next.
    """

    kind: Kind
    subject: str
    reason: str
    detail: str
    attempts: int
    payload: bytes = b""
    from_seq: int = 0
    to_seq: int = 0
    dead_letter_id: str = ""
    created_at: int = 0
    updated_at: int = 0
    replaying: bool = False

    def put(self, dead_letter_id: str, now: int) -> "DeadLetter":
        """As kept for the first time."""
        return replace(self, dead_letter_id=dead_letter_id, created_at=now, updated_at=now, replaying=False)

    def united(self, newer: "DeadLetter", payload: bytes, now: int, *, of_replay: bool) -> "DeadLetter":
        """As kept once the same work has failed again: in the replay that was asked for, or else beside it."""
        return replace(
            newer,
            dead_letter_id=self.dead_letter_id,
            created_at=self.created_at,
            updated_at=self._next_update(now),
            attempts=self.attempts + newer.attempts,
            payload=payload,
            from_seq=min(self.from_seq, newer.from_seq),
            to_seq=max(self.to_seq, newer.to_seq) if self.to_seq and newer.to_seq else 0,
            replaying=self.replaying and not of_replay,
        )

    def failed_again(self, reason: str, detail: str, now: int) -> "DeadLetter":
        """As kept once a replay has failed."""
        return replace(self, reason=reason, detail=detail, attempts=self.attempts + 1, updated_at=self._next_update(now))

    def _next_update(self, now: int) -> int:
        return max(now, self.updated_at + 1)


def further(one: Advance, other: Advance) -> Advance:
    """The marks of both, of the same device."""
    return replace(one, delivered_seq=max(one.delivered_seq, other.delivered_seq), read_seq=max(one.read_seq, other.read_seq))

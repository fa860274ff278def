"""The last word of a run: the logs are read back from the server, whole, and compared with what was answered and delivered.

Pure. A log must be dense from 1, hold every stored message at the seq its sender was told, and each message once.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Audit:
    """What reading the logs back showed. All but the first two must be 0."""

    conversations: int
    entries: int
    missing: int  # stored, but not in the log
    misplaced: int  # in the log, but not at the seq that was answered
    doubled: int  # in the log more than once
    holes: int  # seqs that the log skips

    def __add__(self, other: "Audit") -> "Audit":
        return Audit(
            self.conversations + other.conversations,
            self.entries + other.entries,
            self.missing + other.missing,
            self.misplaced + other.misplaced,
            self.doubled + other.doubled,
            self.holes + other.holes,
        )


NOTHING = Audit(0, 0, 0, 0, 0, 0)


def audit_log(log: Iterable[tuple[int, int]], stored: dict[int, int]) -> Audit:
    """Compare one conversation's log with what was answered.

    Args:
        log: (seq, number) as read back, in order; number -1 for what is no message of this run.
        stored: seq -> number of each message that was answered stored.
    """
    pairs = list(log)
    places: dict[int, int] = {}
    doubled = misplaced = holes = 0
    last = 0
    for seq, number in pairs:
        holes += max(0, seq - last - 1)
        last = max(last, seq)
        doubled += number >= 0 and number in places
        places.setdefault(number, seq)
        misplaced += stored.get(seq, number) != number
    missing = sum(number not in places for number in stored.values())
    return Audit(1, len(pairs), missing, misplaced, doubled, holes)

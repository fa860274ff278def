"""Recent entries as kept in the cache, and what may be believed of what comes back: pure.

A log's last entries lie in a ring of slots, entry `seq` in slot `seq % size`; each says which entry it is. So what is old,
misplaced, missing or spoilt is seen, and is read from the database instead. An entry never changes but for one thing: a later
deletion erases its body, and those of its edits. So a range is believed only together with everything after it, up to the last
entry that the database names, whose time must be the database's too; what the deletions among these erased is erased here as well.
"""

import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from store.entries import Range
from store.model import Entry, Kind

_ID_LENGTH = 27  # of a conversation id
# The crc of what follows; conversation, kind, seq, target, time; lengths of sender, client_msg_id and body.
_HEAD = struct.Struct(f"<I{_ID_LENGTH}sBqqqHHi")
_CRC = struct.Struct("<I")
Found = dict[int, Entry]
"""Entries of one log by seq."""


@dataclass(frozen=True, slots=True)
class Tail:
    """A range that is wanted of a log, and how the log ends: the last entry's seq and time."""

    range: Range
    last_seq: int
    last_entry_at: int

    @property
    def seqs(self) -> Sequence[int]:
        """All entries that are needed to believe the range."""
        return range(self.range.first, self.last_seq + 1)


class Readership:
    """Which logs were read lately: only what is stored in those is worth keeping before anybody asks for it. Of too many, the one
    that wasn't read for longest is forgotten.

    Args:
        seconds: how long a log stays of interest.
        capacity: most logs remembered.
    """

    def __init__(self, seconds: float, capacity: int) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._read_at: OrderedDict[str, float] = OrderedDict()

    def read(self, conversation_id: str, now: float) -> None:
        """Somebody read it; `now` in seconds that don't go back."""
        self._read_at[conversation_id] = now
        self._read_at.move_to_end(conversation_id)
        if len(self._read_at) > self._capacity:
            self._read_at.popitem(last=False)

    def lately(self, conversation_id: str, now: float) -> bool:
        """Whether somebody did within the time."""
        read_at = self._read_at.get(conversation_id)
        return read_at is not None and now - read_at < self._seconds


def encode(entry: Entry) -> bytes:
    """An entry as kept."""
    sender, client_msg_id, body = entry.sender_id.encode(), entry.client_msg_id.encode(), entry.body or b""
    lengths = len(sender), len(client_msg_id), -1 if entry.body is None else len(body)
    place = entry.conversation_id.encode(), entry.kind, entry.seq, entry.target_seq, entry.stored_at
    kept = _HEAD.pack(0, *place, *lengths)[_CRC.size :] + sender + client_msg_id + body
    return _CRC.pack(zlib.crc32(kept)) + kept


def decode(kept: bytes) -> Entry | None:
    """An entry; None for what isn't whole."""
    if len(kept) < _HEAD.size:
        return None
    crc, name, kind, seq, target_seq, stored_at, sender, client_msg_id, body = _HEAD.unpack_from(kept)
    if crc != zlib.crc32(kept[_CRC.size :]):
        return None
    named = _HEAD.size + sender
    ends = named + client_msg_id
    texts = kept[_HEAD.size : named].decode(), kept[named:ends].decode()
    return Entry(name.decode(), seq, Kind(kind), *texts, target_seq, stored_at, None if body < 0 else kept[ends:])


def believed(tail: Tail, kept: Iterable[bytes | None]) -> Found:
    """What may be believed of a tail's slots, given in the order of its seqs; empty when it is of another log's end."""
    found: Found = {}
    for seq, one in zip(tail.seqs, kept, strict=True):
        entry = None if one is None else decode(one)
        if entry is not None and (entry.conversation_id, entry.seq) == (tail.range.conversation_id, seq):
            found[seq] = entry
    last = found.get(tail.last_seq)
    return {} if last is not None and last.stored_at != tail.last_entry_at else found


def missing(tail: Tail, found: Found) -> Range:
    """The range of the log that holds all which isn't found; empty when nothing is missing."""
    gaps = [seq for seq in tail.seqs if seq not in found]
    return Range(tail.range.conversation_id, gaps[0], gaps[-1]) if gaps else Range(tail.range.conversation_id, 1, 0)


def chosen(tail: Tail, found: Found) -> list[Entry]:
    """The range's entries out of the whole tail, as the database holds them."""
    deleted = {entry.target_seq for entry in found.values() if entry.kind is Kind.DELETION}
    wanted = (found[seq] for seq in range(tail.range.first, tail.range.final + 1) if seq in found)
    return [replace(entry, body=None) if _erased(entry, deleted) else entry for entry in wanted]


def slots(entries: Iterable[Entry], size: int) -> Mapping[str, Mapping[int, bytes]]:
    """What to keep of entries, by conversation and slot. A deletion empties the slot of what it erases."""
    kept: dict[str, dict[int, bytes]] = {}
    for entry in entries:
        of_log = kept.setdefault(entry.conversation_id, {})
        if entry.kind is Kind.DELETION and entry.seq - entry.target_seq < size:
            of_log[entry.target_seq % size] = b""
        of_log[entry.seq % size] = encode(entry)
    return kept


def _erased(entry: Entry, deleted: set[int]) -> bool:
    return (entry.kind is Kind.MESSAGE and entry.seq in deleted) or (entry.kind is Kind.EDIT and entry.target_seq in deleted)

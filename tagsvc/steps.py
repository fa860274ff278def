"""One step from a snapshot to the next: the record, what it makes, and how much memory the older snapshot goes on holding."""

from collections.abc import Iterator
from dataclasses import dataclass

from pyroaring import AbstractBitMap

from tagset.snapshot import Snapshot
from tidings.tag.v1.log_pb2 import TagRecord


@dataclass(frozen=True, slots=True)
class Step:
    """A step.

    Attributes:
        snapshot: what the record makes.
        record: encoded.
        replaced_bytes: of members' bitmaps that the snapshot before has and this one doesn't: what it costs to keep that one.
    """

    snapshot: Snapshot
    record: bytes
    replaced_bytes: int


def step(before: Snapshot, record: TagRecord, encoded: bytes) -> Step:
    """The step that a record makes.

    Raises:
        CorruptRecordError: a bitmap in it is damaged.
    """
    after = before.apply(before.version + 1, record)
    return Step(after, encoded, sum(map(size, _replaced(before, after, record))))


def size(bitmap: AbstractBitMap) -> int:
    """Bytes that a bitmap takes in memory, about."""
    found = bitmap.get_statistics()
    return found["n_bytes_array_containers"] + found["n_bytes_run_containers"] + found["n_bytes_bitset_containers"]


def _replaced(before: Snapshot, after: Snapshot, record: TagRecord) -> Iterator[AbstractBitMap]:
    tags = [change.tag for change in record.memberships.tags] or [record.delete_tag]
    for tag in filter(before.tags.__contains__, tags):
        members = before.tags[tag].members
        if tag not in after.tags or after.tags[tag].members is not members:
            yield members

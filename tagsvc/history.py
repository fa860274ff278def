"""The newest snapshots and the records that led to them: one unbroken line of versions, up to now.

Rules: the newest snapshots are kept by number and by the bytes that they hold; besides them, a few that pages are still read from,
those asked for last. Records are kept by number and by bytes. No `await`, no clock.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from tagset.snapshot import Snapshot
from tagsvc.steps import Step


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept.

    Attributes:
        snapshots: newest ones.
        snapshot_bytes: of bitmaps that only older ones than the newest hold.
        pinned: snapshots besides these.
        records: newest ones.
        record_bytes: of the records kept; a larger one is kept only while it is the newest.
    """

    snapshots: int
    snapshot_bytes: int
    pinned: int
    records: int
    record_bytes: int


class History:
    """A line of versions.

    Args:
        snapshot: where it begins.
        bounds: how much of it is kept.

    Attributes:
        first_version: where it began.
        bytes_added: of all records added since.
    """

    def __init__(self, snapshot: Snapshot, bounds: Bounds) -> None:
        self.first_version = snapshot.version
        self.bytes_added = 0
        self._bounds = bounds
        self._snapshots = deque([snapshot])
        self._replaced: deque[int] = deque()  # bytes that each snapshot but the newest holds more than the one after it
        self._replaced_bytes = 0
        self._pinned: OrderedDict[int, Snapshot] = OrderedDict()
        self._records: deque[bytes] = deque()
        self._record_bytes = 0

    @property
    def newest(self) -> Snapshot:
        """The snapshot now."""
        return self._snapshots[-1]

    @property
    def version(self) -> int:
        """The newest snapshot's."""
        return self._snapshots[-1].version

    @property
    def oldest_version(self) -> int:
        """From this one on every snapshot is kept."""
        return self._snapshots[0].version

    def add(self, step: Step) -> None:
        """The next version."""
        if step.snapshot.version != self.version + 1:
            raise ValueError(f"version {step.snapshot.version} doesn't follow {self.version}")
        self.bytes_added += len(step.record)
        self._add_snapshot(step.snapshot, step.replaced_bytes)
        self._add_record(step.record)

    def _add_snapshot(self, snapshot: Snapshot, replaced_bytes: int) -> None:
        self._snapshots.append(snapshot)
        self._replaced.append(replaced_bytes)
        self._replaced_bytes += replaced_bytes
        while len(self._snapshots) > self._bounds.snapshots or self._replaced_bytes > self._bounds.snapshot_bytes:
            self._snapshots.popleft()
            self._replaced_bytes -= self._replaced.popleft()

    def _add_record(self, record: bytes) -> None:
        self._records.append(record)
        self._record_bytes += len(record)
        most, most_bytes = self._bounds.records, self._bounds.record_bytes
        while len(self._records) > most or (self._record_bytes > most_bytes and len(self._records) > 1):
            self._record_bytes -= len(self._records.popleft())

    def find(self, version: int) -> Snapshot | None:
        """A snapshot that is kept."""
        if self.oldest_version <= version <= self.version:
            return self._snapshots[version - self.oldest_version]
        if version in self._pinned:
            self._pinned.move_to_end(version)
        return self._pinned.get(version)

    def pin(self, snapshot: Snapshot) -> None:
        """Keep a snapshot though many newer ones come: somebody reads it page by page."""
        self._pinned[snapshot.version] = snapshot
        self._pinned.move_to_end(snapshot.version)
        if len(self._pinned) > self._bounds.pinned:
            self._pinned.popitem(last=False)

    def records_after(self, version: int) -> Sequence[bytes] | None:
        """The records after a version, in order; None when they aren't all kept, or it isn't there yet."""
        number = self.version - version
        if not 0 <= number <= len(self._records):
            return None
        return list(islice(self._records, len(self._records) - number, None))

    def holds(self, after_version: int, records: Sequence[bytes]) -> bool:
        """Whether just these records came after a version; False also when that isn't known any more."""
        kept = self.records_after(after_version)
        return kept is not None and len(kept) >= len(records) and list(kept[: len(records)]) == list(records)

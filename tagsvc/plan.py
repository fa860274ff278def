"""What a batch of mutations comes to against one snapshot: the records to log, and what to answer each once they are durable.

Rules: each mutation sees those before it in the batch. One that is refused leaves nothing behind, and its refusal, which may rest
on those before it, is told only once they are durable. A request_id carried out before is recognised, whoever carried it out.
No `await`, no clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from mesh import errors
from tagset.snapshot import Snapshot
from tagsvc.steps import Step, step
from tidings.tag.v1.log_pb2 import TagRecord

MAX_RECORDS = 1000  # in one append; both as the store's contract says
MAX_BYTES = 8 * 1024 * 1024
_MAX_REPLACED_BYTES = 256 * 1024 * 1024  # of bitmaps held by the snapshots between; then the others wait for the next append


class Mutation:
    """A change that somebody wants. Derived classes say what it is.

    Args:
        request_id: the caller's; empty for none.
        digest: of the caller's whole request; empty without a request_id.
    """

    def __init__(self, request_id: str = "", digest: bytes = b"") -> None:
        self.request_id = request_id
        self.digest = digest if request_id else b""

    def records(self, snapshot: Snapshot, now: Timestamp) -> list[TagRecord]:
        """What to log, in order; nothing when all is so already. May be asked again, with a later snapshot.

        Raises:
            TidingsError: it can't be done.
        """
        raise NotImplementedError

    def refused(self) -> None:
        """It won't be carried out."""


@dataclass(frozen=True, slots=True)
class Done:
    """A mutation is carried out.

    Attributes:
        version: the snapshot that it made; the one before when there was nothing to change.
        snapshot: that snapshot, or the newest when it isn't kept any more.
    """

    version: int
    snapshot: Snapshot


Verdict: TypeAlias = Done | errors.TidingsError


class Plan:
    """Mutations, brought to records.

    Args:
        base: the snapshot that they are tried against.
        find: gives an older snapshot that is kept.

    Attributes:
        steps: the records, in order, and what each makes.
        verdicts: one per mutation taken.
    """

    def __init__(self, base: Snapshot, find: Callable[[int], Snapshot | None]) -> None:
        self.base = base
        self.steps: list[Step] = []
        self.verdicts: list[Verdict] = []
        self._find = find
        self._bytes = 0
        self._replaced_bytes = 0

    @property
    def newest(self) -> Snapshot:
        """The snapshot with all of them."""
        return self.steps[-1].snapshot if self.steps else self.base

    @property
    def records(self) -> list[bytes]:
        """Encoded, in order."""
        return [each.record for each in self.steps]

    def take(self, mutation: Mutation, now: Timestamp) -> bool:
        """Add a mutation; False when there is no room for its records beside the others'."""
        verdict: Verdict | None
        try:
            verdict = self._repeated(mutation) or self._tried(mutation, now)
        except errors.TidingsError as error:
            verdict = error
        if verdict is not None:
            self.verdicts.append(verdict)
        return verdict is not None

    def _repeated(self, mutation: Mutation) -> Done | None:
        done = self.newest.done_requests.get(mutation.request_id) if mutation.request_id else None
        if done is None:
            return None
        if done.digest != mutation.digest:
            raise errors.request_id_conflict(mutation.request_id)
        return Done(done.version, self._snapshot(done.version))

    def _snapshot(self, version: int) -> Snapshot:
        made = version - self.base.version
        return self.steps[made - 1].snapshot if made > 0 else self._find(version) or self.newest

    def _tried(self, mutation: Mutation, now: Timestamp) -> Done | None:
        records = mutation.records(self.newest, now)
        _stamp(records, mutation, now)
        encoded = [record.SerializeToString() for record in records]
        if not self._has_room(len(encoded), sum(map(len, encoded))):
            return None
        for record, data in zip(records, encoded, strict=True):
            self._add(step(self.newest, record, data))
        return Done(self.newest.version, self.newest)

    def _has_room(self, number: int, size: int) -> bool:
        if not self.steps or not number:
            return True
        fits = len(self.steps) + number <= MAX_RECORDS and self._bytes + size <= MAX_BYTES
        return fits and self._replaced_bytes <= _MAX_REPLACED_BYTES

    def _add(self, made: Step) -> None:
        self.steps.append(made)
        self._bytes += len(made.record)
        self._replaced_bytes += made.replaced_bytes


def _stamp(records: Sequence[TagRecord], mutation: Mutation, now: Timestamp) -> None:
    """Say when, and, with the last of them, for which request."""
    for record in records:
        record.time.CopyFrom(now)
    if records:
        records[-1].request_id = mutation.request_id
        records[-1].request_digest = mutation.digest

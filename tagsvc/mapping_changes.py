"""Changes of who has which tag, as mutations: a chunk of a stream, and a tag's whole new members."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from mesh import errors
from tagset.snapshot import Snapshot
from tagsvc import fields
from tagsvc.memberships import Delta, effective
from tagsvc.plan import MAX_BYTES, Mutation
from tidings.tag.v1.log_pb2 import MembershipChange, TagMembers, TagRecord

_ENVELOPE_BYTES = 256  # of a record besides its change: time, and no request_id


@dataclass(slots=True)
class Stream:
    """What chunks of one stream know of each other.

    Attributes:
        refused: number of the chunk that was refused, after which none is applied; 0 for none.
        coming: tags that chunks in work may create, by the chunk's number.
    """

    refused: int = 0
    coming: dict[int, Collection[str]] = field(default_factory=dict)


class MappingChunk(Mutation):
    """A chunk of one stream: its changes are made together or not at all.

    Args:
        deltas: what changes for each tag.
        create_tags: create tags that don't exist.
        max_tags: most tags there may be then.
        stream: shared by the stream's chunks.
        number: the chunk's in the stream, from 1.
    """

    def __init__(self, deltas: Mapping[str, Delta], create_tags: bool, max_tags: int, stream: Stream, number: int) -> None:
        super().__init__()
        self._deltas = deltas
        self._create_tags = create_tags
        self._max_tags = max_tags
        self._stream = stream
        self._number = number

    def records(self, snapshot: Snapshot, now: Timestamp) -> list[TagRecord]:
        """See `Mutation`."""
        if 0 < self._stream.refused < self._number:
            raise errors.unavailable("a chunk before this one was refused")
        self._stream.refused = self._number  # unless what follows finds nothing wrong; it may be asked again
        known = {tag: snapshot.tags[tag].members for tag in self._deltas if tag in snapshot.tags}
        check_tags(self._deltas, snapshot, self._create_tags, self._max_tags)
        changed = effective(self._deltas, known)  # members of a tag that isn't there create it
        self._stream.refused = 0
        return [_record(changed)] if changed else []

    def refused(self) -> None:
        """See `Mutation`."""
        self._stream.refused = self._stream.refused or self._number


def check_tags(tags: Iterable[str], snapshot: Snapshot, create: bool, max_tags: int) -> None:
    """A chunk may name these: they are there, or may be created.

    Args:
        tags: each once.
        max_tags: most there may be then.

    Raises:
        TidingsError: UNKNOWN_TAG, INVALID_FIELD, NAME_TAKEN.
    """
    missing = [tag for tag in tags if tag not in snapshot.tags]
    for tag in missing:
        if not create:
            raise errors.unknown_tag(tag, "tag", field="tags")
        fields.name("tags.tag", tag)
        if tag in snapshot.combinations:
            raise errors.name_taken(tag, "combination")
    fields.room("tags", "tags", len(snapshot.tags), len(missing), max_tags)


class Replacement(Mutation):
    """A tag's whole new members, as ordinals."""

    def __init__(self, tag: str, members: BitMap) -> None:
        super().__init__()
        self._tag = tag
        self._members = members

    def records(self, snapshot: Snapshot, now: Timestamp) -> list[TagRecord]:
        """See `Mutation`."""
        if self._tag not in snapshot.tags:
            raise errors.unknown_tag(self._tag, "tag", field="tag")
        if snapshot.tags[self._tag].members == self._members:
            return []
        record = _record({self._tag: Delta(added=self._members, clear=True)})
        if record.ByteSize() > MAX_BYTES - _ENVELOPE_BYTES:
            raise errors.invalid_field("user_ids", "so many that they don't fit into one change: apply mappings in chunks instead")
        return [record]


def _record(deltas: Mapping[str, Delta]) -> TagRecord:
    return TagRecord(memberships=MembershipChange(tags=[_members(tag, delta) for tag, delta in deltas.items()]))


def _members(tag: str, delta: Delta) -> TagMembers:
    """A delta as it is logged. Users who are new together have ordinals in a row, which are stored as runs."""
    for bitmap in (delta.removed, delta.added):
        bitmap.run_optimize()
    return TagMembers(tag=tag, removed_ordinals=_bytes(delta.removed), added_ordinals=_bytes(delta.added), clear=delta.clear)


def _bytes(bitmap: BitMap) -> bytes:
    return bitmap.serialize() if bitmap else b""

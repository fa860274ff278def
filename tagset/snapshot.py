"""Everything about tags at one version. Immutable: a record makes another snapshot, which shares all that the record doesn't touch.

Rules: whoever logs a record has validated it, so a snapshot takes every record as it is, and all who apply the same records hold
equal snapshots. What a validated record would not do has a meaning all the same:
- members of a tag that isn't there create it, without description or attributes: so one record can carry more new tags than one
  append to the log may have records;
- to delete what isn't there changes nothing; an alias or combination may name what isn't there, and is refused when it is used;
- a change of a kind not known here changes nothing.
It must not know the log, callers, or who is asking.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from tagset.done_requests import Done, DoneRequests
from tagset.entries import NO_ONE, CombinationEntry, TagEntry, combination_entry, ordinals, tag_entry
from tagset.persistent import PersistentMap
from tagset.pieces import PIECE_BYTES, Assembly, alias_piece, combination_piece, done_piece, tag_pieces
from tidings.tag.v1.log_pb2 import SnapshotPart, SnapshotPiece, TagMembers, TagRecord

_PIECE_OVERHEAD = 8  # bytes that a part has around a piece


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Tags, aliases and combinations at one version.

    Attributes:
        version: the last record's place in the log.
        tags: by name.
        aliases: name without the @ -> tag or combination.
        combinations: by name.
        done_requests: request id -> digest and version, of the newest 10,000 requests that had an id.
        highest_ordinal: the highest that this copy ever saw in a tag: at least so many clients are known.
    """

    version: int
    tags: PersistentMap[str, TagEntry]
    aliases: PersistentMap[str, str]
    combinations: PersistentMap[str, CombinationEntry]
    done_requests: DoneRequests
    highest_ordinal: int = field(default=0, compare=False)

    @classmethod
    def empty(cls) -> "Snapshot":
        """Before the first record."""
        return cls(0, PersistentMap(), PersistentMap(), PersistentMap(), DoneRequests())

    @classmethod
    def from_pieces(cls, version: int, pieces: Iterable[SnapshotPiece]) -> "Snapshot":
        """The snapshot that had these pieces.

        Raises:
            CorruptRecordError: a bitmap is damaged.
        """
        found = Assembly(pieces)
        tags = PersistentMap(found.tags())
        highest = max((entry.members.max() for entry in tags.values() if entry.members), default=0)
        aliases, combinations = PersistentMap(found.aliases.items()), PersistentMap(found.combinations.items())
        return cls(version, tags, aliases, combinations, DoneRequests(found.done_requests), highest)

    def pieces(self) -> Iterator[SnapshotPiece]:
        """What it is made of, each under 1 MiB: tags by name, each with its members, then aliases, combinations and requests."""
        for name in sorted(self.tags):
            yield from tag_pieces(self.tags[name])
        for name in sorted(self.aliases):
            yield alias_piece(name, self.aliases[name])
        for name in sorted(self.combinations):
            yield combination_piece(self.combinations[name])
        for request_id, done in self.done_requests.items():
            yield done_piece(request_id, done)

    def apply(self, version: int, record: TagRecord) -> "Snapshot":
        """The snapshot after the next record.

        Args:
            version: the record's.

        Raises:
            ValueError: it isn't the next one.
            CorruptRecordError: a bitmap is damaged.
        """
        if version != self.version + 1:
            raise ValueError(f"version {version} doesn't follow {self.version}")
        changed = self._changed(version, record)
        done = changed.done_requests
        if record.request_id:
            done = done.put(record.request_id, Done(record.request_digest, version))
        return replace(changed, version=version, done_requests=done)

    def _changed(self, version: int, record: TagRecord) -> "Snapshot":
        match record.WhichOneof("change"):
            case "put_tag":
                return replace(self, tags=self.tags.put([(record.put_tag.name, self._put_tag(version, record))]))
            case "delete_tag":
                return replace(self, tags=self.tags.without(record.delete_tag))
            case "put_alias":
                return replace(self, aliases=self.aliases.put([(record.put_alias.name, record.put_alias.target)]))
            case "delete_alias":
                return replace(self, aliases=self.aliases.without(record.delete_alias))
            case "put_combination":
                entry = combination_entry(record.put_combination, version)
                return replace(self, combinations=self.combinations.put([(entry.name, entry)]))
            case "delete_combination":
                return replace(self, combinations=self.combinations.without(record.delete_combination))
            case "memberships":
                return self._change_members(version, record)
        return self

    def _put_tag(self, version: int, record: TagRecord) -> TagEntry:
        """The tag with the members it has. Created when the record says; else when it was before; else when the record was made."""
        old = self.tags.get(record.put_tag.name)
        entry = tag_entry(record.put_tag, version, old.members if old else NO_ONE)
        if record.put_tag.HasField("create_time"):
            return entry
        return replace(entry, create_time=old.create_time if old else record.time.ToMicroseconds())

    def _change_members(self, version: int, record: TagRecord) -> "Snapshot":
        changed: dict[str, TagEntry] = {}
        for change in record.memberships.tags:
            entry = changed.get(change.tag) or self.tags.get(change.tag)
            entry = entry or TagEntry(change.tag, revision=version, create_time=record.time.ToMicroseconds())
            changed[change.tag] = _with_members(entry, change)
        highest = max((entry.members.max() for entry in changed.values() if entry.members), default=0)
        return replace(self, tags=self.tags.put(changed.items()), highest_ordinal=max(self.highest_ordinal, highest))


def _with_members(entry: TagEntry, change: TagMembers) -> TagEntry:
    """The tag after a change; with the very bitmap it had when nobody comes or goes."""
    members = NO_ONE if change.clear else entry.members
    removed, added = ordinals(change.removed_ordinals), ordinals(change.added_ordinals)
    if members.intersect(removed):
        members = members - removed
    if not added.issubset(members):
        members = members | added
    return entry if members is entry.members else replace(entry, members=members)


def parts(snapshot: Snapshot, max_bytes: int) -> Iterator[SnapshotPart]:
    """The pieces in parts for a stream; at least one part, also of an empty snapshot.

    Args:
        max_bytes: most bytes of an encoded part; at least 1 MiB, so that every piece fits.

    Raises:
        ValueError: `max_bytes` is less.
    """
    if max_bytes < PIECE_BYTES:
        raise ValueError(f"max_bytes must be at least {PIECE_BYTES:,}, not {max_bytes:,}")
    part, size = SnapshotPart(), 0
    for piece in snapshot.pieces():
        piece_size = piece.ByteSize() + _PIECE_OVERHEAD
        if size + piece_size > max_bytes:
            yield part
            part, size = SnapshotPart(), 0
        part.pieces.append(piece)
        size += piece_size
    yield part

"""The pieces in which a snapshot is checkpointed and replicated: each tag, alias, combination and request carried out."""

from collections.abc import Iterable, Iterator

from pyroaring import BitMap, FrozenBitMap

from tagset.done_requests import Done
from tagset.entries import NO_ONE, CombinationEntry, TagEntry, combination_entry, ordinals, tag_entry
from tidings.tag.v1.log_pb2 import DoneRequest, SnapshotPiece, TagMembers
from tidings.tag.v1.tag_pb2 import Alias, Combination, Tag

PIECE_BYTES = 1024 * 1024  # every piece is smaller
_BITMAP_BYTES = PIECE_BYTES - 4096  # leaves room for the tag's name, and what the encoding adds


def tag_pieces(entry: TagEntry) -> Iterator[SnapshotPiece]:
    """A tag, then its members in as many pieces as needed; none for nobody."""
    tag = Tag(name=entry.name, description=entry.description, attributes=entry.attributes, revision=entry.revision)
    tag.member_count = len(entry.members)
    tag.create_time.FromMicroseconds(entry.create_time)
    yield SnapshotPiece(tag=tag)
    if entry.members:
        for data in _serialised(entry.members):
            yield SnapshotPiece(members=TagMembers(tag=entry.name, added_ordinals=data))


def _serialised(members: FrozenBitMap) -> Iterator[bytes]:
    """Bitmaps of ranges that follow each other, each small enough."""
    data = members.serialize()
    if len(data) <= _BITMAP_BYTES:
        yield data
        return
    middle = (members.min() + members.max() + 1) // 2
    yield from _serialised(members & BitMap(range(members.min(), middle)))
    yield from _serialised(members & BitMap(range(middle, members.max() + 1)))


def combination_piece(entry: CombinationEntry) -> SnapshotPiece:
    """A combination."""
    text, description = entry.text, entry.description
    return SnapshotPiece(
        combination=Combination(name=entry.name, expression=text, description=description, revision=entry.revision)
    )


def alias_piece(name: str, target: str) -> SnapshotPiece:
    """An alias."""
    return SnapshotPiece(alias=Alias(name=name, target=target))


def done_piece(request_id: str, done: Done) -> SnapshotPiece:
    """A request carried out."""
    return SnapshotPiece(done_request=DoneRequest(request_id=request_id, request_digest=done.digest, version=done.version))


class Assembly:
    """Pieces put together again.

    Attributes:
        aliases: name -> target.
        combinations: by name.
        done_requests: in the order of the pieces.
    """

    def __init__(self, pieces: Iterable[SnapshotPiece]) -> None:
        self._tags: dict[str, Tag] = {}
        self._members: dict[str, BitMap] = {}
        self.aliases: dict[str, str] = {}
        self.combinations: dict[str, CombinationEntry] = {}
        self.done_requests: list[tuple[str, Done]] = []
        for piece in pieces:
            self._take(piece)

    def tags(self) -> Iterator[tuple[str, TagEntry]]:
        """Every tag that was named, with its members."""
        for name, tag in self._tags.items():
            members = self._members.get(name)
            yield name, tag_entry(tag, tag.revision, FrozenBitMap(members) if members else NO_ONE)

    def _take(self, piece: SnapshotPiece) -> None:
        match piece.WhichOneof("piece"):
            case "tag":
                self._tags[piece.tag.name] = piece.tag
            case "alias":
                self.aliases[piece.alias.name] = piece.alias.target
            case "combination":
                self.combinations[piece.combination.name] = combination_entry(piece.combination, piece.combination.revision)
            case "members":
                self._take_members(piece.members)
            case "done_request":
                done = piece.done_request
                self.done_requests.append((done.request_id, Done(done.request_digest, done.version)))

    def _take_members(self, members: TagMembers) -> None:
        so_far = self._members.setdefault(members.tag, BitMap())
        so_far |= ordinals(members.added_ordinals)

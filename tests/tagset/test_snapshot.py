"""Snapshots: what each record does, what stays shared, that nothing changes, and that any way to a version leads to the same."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from tagset import done_requests
from tagset.done_requests import Done, DoneRequests
from tagset.errors import CorruptRecordError
from tagset.persistent import PersistentMap
from tagset.pieces import PIECE_BYTES
from tagset.snapshot import Snapshot, parts
from tests.tagset.strategies import replay
from tidings.tag.v1.log_pb2 import MembershipChange, SnapshotPart, SnapshotPiece, TagMembers, TagRecord
from tidings.tag.v1.tag_pb2 import Alias, Combination, Tag

_NAMES = st.sampled_from(["a", "b", "gold 2024"])
_MEMBERS = st.frozensets(st.sampled_from([1, 2, 3, 65_535, 65_536, 200_000, 4_000_000_000]))


def _time(microseconds: int) -> Any:
    return {"seconds": microseconds // 1_000_000, "nanos": microseconds % 1_000_000 * 1000}


def _change(tag: str, removed: frozenset[int], added: frozenset[int], clear: bool) -> TagMembers:
    """None as empty bytes, now and then."""
    bitmaps = {"removed_ordinals": BitMap(removed).serialize() if removed else b"", "added_ordinals": BitMap(added).serialize()}
    return TagMembers(tag=tag, clear=clear, **bitmaps)


_tags = st.builds(
    Tag,
    name=_NAMES,
    description=st.sampled_from(["", "d"]),
    attributes=st.dictionaries(st.sampled_from("xy"), st.sampled_from("12")),
    create_time=st.none() | st.integers(1, 10**15).map(_time),
)
_changes = st.builds(_change, _NAMES, _MEMBERS, _MEMBERS, st.booleans())
_kinds = st.one_of(
    _tags.map(lambda tag: {"put_tag": tag}),
    _NAMES.map(lambda name: {"delete_tag": name}),
    st.builds(Alias, name=_NAMES, target=_NAMES).map(lambda alias: {"put_alias": alias}),
    _NAMES.map(lambda name: {"delete_alias": name}),
    st.builds(
        Combination, name=_NAMES, expression=st.sampled_from(["a - b", "* - *", "a +"]), description=st.sampled_from(["", "d"])
    ).map(lambda combination: {"put_combination": combination}),
    _NAMES.map(lambda name: {"delete_combination": name}),
    st.lists(_changes, max_size=4).map(lambda changes: {"memberships": MembershipChange(tags=changes)}),
    st.just({}),
)
_records = st.lists(
    st.builds(
        lambda kind, request_id, time: TagRecord(
            request_id=request_id, request_digest=b"d" + request_id.encode(), time=_time(time), **kind
        ),
        _kinds,
        st.sampled_from(["", *(f"r{number}" for number in range(8))]),
        st.integers(1, 10**15),
    ),
    max_size=15,
)


class _Model:
    """The same with Python's own mappings and sets, copied as a whole for each version."""

    def __init__(self) -> None:
        self.members: dict[str, frozenset[int]] = {}
        self.tags: dict[str, tuple[object, ...]] = {}
        self.aliases: dict[str, str] = {}
        self.combinations: dict[str, tuple[object, ...]] = {}
        self.done: dict[str, tuple[bytes, int]] = {}

    def apply(self, version: int, record: TagRecord) -> None:
        if record.request_id:
            self.done.pop(record.request_id, None)
            self.done[record.request_id] = (record.request_digest, version)
            self.done = dict(list(self.done.items())[-done_requests.CAPACITY :])
        kind = record.WhichOneof("change")
        if kind is not None:
            getattr(self, f"_{kind}")(version, record, getattr(record, kind))

    def _put_tag(self, version: int, record: TagRecord, tag: Tag) -> None:
        before = self.tags.get(tag.name, (record.time.ToMicroseconds(),))
        create_time = tag.create_time.ToMicroseconds() if tag.HasField("create_time") else before[0]
        self.tags[tag.name] = (create_time, tag.description, dict(tag.attributes), version)
        self.members.setdefault(tag.name, frozenset())

    def _delete_tag(self, version: int, record: TagRecord, name: str) -> None:
        self.tags.pop(name, None)
        self.members.pop(name, None)

    def _put_alias(self, version: int, record: TagRecord, alias: Alias) -> None:
        self.aliases[alias.name] = alias.target

    def _delete_alias(self, version: int, record: TagRecord, name: str) -> None:
        self.aliases.pop(name, None)

    def _put_combination(self, version: int, record: TagRecord, combination: Combination) -> None:
        self.combinations[combination.name] = (combination.expression, combination.description, version)

    def _delete_combination(self, version: int, record: TagRecord, name: str) -> None:
        self.combinations.pop(name, None)

    def _memberships(self, version: int, record: TagRecord, change: MembershipChange) -> None:
        for tag in change.tags:
            self.tags.setdefault(tag.tag, (record.time.ToMicroseconds(), "", {}, version))
            removed, added = (
                set(BitMap.deserialize(data)) if data else set() for data in (tag.removed_ordinals, tag.added_ordinals)
            )
            before = frozenset() if tag.clear else self.members.get(tag.tag, frozenset())
            self.members[tag.tag] = before - removed | added

    def seen(self) -> tuple[object, ...]:
        """All of it, to be compared."""
        return dict(self.members), dict(self.tags), dict(self.aliases), dict(self.combinations), list(self.done.items())


def _seen(snapshot: Snapshot) -> tuple[object, ...]:
    tags = snapshot.tags.values()
    return (
        {tag.name: frozenset(tag.members) for tag in tags},
        {tag.name: (tag.create_time, tag.description, dict(tag.attributes), tag.revision) for tag in tags},
        dict(snapshot.aliases),
        {one.name: (one.text, one.description, one.revision) for one in snapshot.combinations.values()},
        list(snapshot.done_requests.items()),
    )


def _through_bytes(snapshot: Snapshot) -> Iterator[SnapshotPiece]:
    for part in parts(snapshot, PIECE_BYTES):
        yield from SnapshotPart.FromString(part.SerializeToString()).pieces


@settings(deadline=None)
@given(records=_records, capacity=st.integers(1, 5))
def test_any_way_to_a_version_leads_to_the_same_and_older_ones_stay(records: list[TagRecord], capacity: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(done_requests, "CAPACITY", capacity)
        model, snapshots, seen = _Model(), [Snapshot.empty()], [_Model().seen()]
        for version, record in enumerate(records, 1):
            model.apply(version, record)
            snapshots.append(snapshots[-1].apply(version, record))
            seen.append(model.seen())
        assert [_seen(snapshot) for snapshot in snapshots] == seen
        for version, snapshot in enumerate(snapshots):
            restored = Snapshot.from_pieces(version, _through_bytes(snapshot))
            assert restored == snapshot
            assert replay(restored, records[version:]) == snapshots[-1]


def _members(**changes: bytes) -> TagRecord:
    tags = [TagMembers(tag=name, added_ordinals=data) for name, data in changes.items()]
    return TagRecord(memberships=MembershipChange(tags=tags))


def test_what_a_record_does_not_touch_is_shared() -> None:
    names = [f"t{number}" for number in range(1_000)]
    before = replay(Snapshot.empty(), [_members(**dict.fromkeys(names, BitMap([1, 2]).serialize()))])
    after = replay(before, [_members(t7=BitMap([3]).serialize(), t8=BitMap([2]).serialize(), t9=b"")])
    assert set(after.tags["t7"].members) == {1, 2, 3}
    assert set(before.tags["t7"].members) == {1, 2}
    assert all(after.tags[name] is before.tags[name] for name in names if name != "t7")
    renamed = replay(after, [TagRecord(put_tag=Tag(name="t7", description="new"))])
    assert renamed.tags["t7"].members is after.tags["t7"].members


def test_a_snapshot_cannot_be_changed() -> None:
    snapshot: Any = replay(
        Snapshot.empty(), [TagRecord(put_tag=Tag(name="a", attributes={"x": "1"})), _members(a=BitMap([1]).serialize())]
    )
    with pytest.raises(FrozenInstanceError):
        snapshot.version = 9
    with pytest.raises(FrozenInstanceError):
        snapshot.tags["a"].members = None
    with pytest.raises(TypeError):
        snapshot.tags["b"] = None
    with pytest.raises(TypeError):
        snapshot.tags["a"].attributes["x"] = "2"
    with pytest.raises(AttributeError):
        snapshot.tags["a"].members.add(2)


def test_versions_follow_each_other() -> None:
    snapshot = Snapshot.empty().apply(1, TagRecord())
    for version in (0, 1, 3):
        with pytest.raises(ValueError, match=f"version {version} doesn't follow 1"):
            snapshot.apply(version, TagRecord())


@pytest.mark.parametrize("data", [b"x", b"\xff" * 40, BitMap(range(0, 99_999, 3)).serialize()[:-1]])
def test_a_damaged_bitmap_is_told(data: bytes) -> None:
    with pytest.raises(CorruptRecordError, match="should be a bitmap"):
        Snapshot.empty().apply(1, _members(a=data))
    with pytest.raises(CorruptRecordError):
        Snapshot.from_pieces(1, [SnapshotPiece(members=TagMembers(tag="a", added_ordinals=data))])


def test_nobody_has_ordinal_zero() -> None:
    snapshot = Snapshot.empty().apply(1, _members(a=BitMap([0, 1]).serialize()))
    assert set(snapshot.tags["a"].members) == {1}


def test_large_tags_come_in_several_pieces_and_parts_within_bounds() -> None:
    scattered, dense = BitMap(range(1, 40_000_000, 2)), BitMap(range(1, 40_000_000))
    snapshot = Snapshot.empty().apply(1, _members(scattered=scattered.serialize(), dense=dense.serialize()))
    pieces = list(snapshot.pieces())
    assert all(piece.ByteSize() < PIECE_BYTES for piece in pieces)
    assert [piece.WhichOneof("piece") for piece in pieces[:3]] == ["tag", "members", "tag"]
    assert len(pieces) > 7
    whole = list(parts(snapshot, 3 * PIECE_BYTES))
    assert all(len(part.SerializeToString()) <= 3 * PIECE_BYTES for part in whole)
    assert len(whole) < len(pieces) / 2 + 1
    assert Snapshot.from_pieces(1, [piece for part in whole for piece in part.pieces]) == snapshot


def test_an_empty_snapshot_has_one_empty_part() -> None:
    assert list(parts(Snapshot.empty(), PIECE_BYTES)) == [SnapshotPart()]
    with pytest.raises(ValueError, match="at least 1,048,576"):
        next(parts(Snapshot.empty(), PIECE_BYTES - 1))


def test_the_newest_ten_thousand_requests_are_known() -> None:
    done = DoneRequests((f"r{number}", Done(b"", number)) for number in range(12_000))
    assert (len(done), next(iter(done)), done["r11999"].version) == (10_000, "r2000", 11_999)
    later = done.put("r2000", Done(b"", 12_000)).put("new", Done(b"", 12_001))
    assert (len(later), next(iter(later))) == (10_000, "r2002")
    assert list(later)[-2:] == ["r2000", "new"]
    assert "r2001" in done
    assert "r2001" not in later


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 600), st.integers()), max_size=60))
def test_a_persistent_map_is_a_mapping_at_every_version(changes: list[tuple[bool, int, int]]) -> None:
    versions: list[tuple[PersistentMap[int, int], dict[int, int]]] = [(PersistentMap(), {})]
    for put, key, value in changes:
        persistent, plain = versions[-1]
        plain = plain | {key: value} if put else {k: v for k, v in plain.items() if k != key}
        versions.append((persistent.put([(key, value)]) if put else persistent.without(key), plain))
    for persistent, plain in versions:
        assert dict(persistent) == plain
        assert len(persistent) == len(plain)
        assert all((key in persistent) == (key in plain) for key in range(601))
        assert persistent == PersistentMap(plain.items())
        assert persistent == plain
    assert versions[0][0] == PersistentMap()

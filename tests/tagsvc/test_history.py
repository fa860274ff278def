"""What is kept of the past, and how much."""

import pytest
from pyroaring import BitMap

from tagset.snapshot import Snapshot
from tagsvc.history import Bounds, History
from tagsvc.steps import Step, step
from tidings.tag.v1.log_pb2 import MembershipChange, TagMembers, TagRecord
from tidings.tag.v1.tag_pb2 import Tag


def _bounds(
    snapshots: int = 100, snapshot_bytes: int = 1 << 20, pinned: int = 2, records: int = 100, size: int = 1 << 20
) -> Bounds:
    return Bounds(snapshots, snapshot_bytes, pinned, records, size)


def _step(before: Snapshot, record: TagRecord) -> Step:
    return step(before, record, record.SerializeToString())


def _grown(history: History, number: int, size: int = 10) -> list[bytes]:
    """So many records added, of about that size."""
    records = []
    for _ in range(number):
        record = TagRecord(put_tag=Tag(name=f"t{history.version + 1}", description="x" * size))
        made = _step(history.newest, record)
        records.append(made.record)
        history.add(made)
    return records


def _kept(history: History) -> list[int]:
    return [version for version in range(history.version + 2) if history.find(version)]


def _members(*ordinals: int) -> TagRecord:
    change = TagMembers(tag="t", added_ordinals=BitMap(ordinals).serialize())
    return TagRecord(memberships=MembershipChange(tags=[change]))


def test_the_newest_snapshots_and_records_are_kept() -> None:
    history = History(Snapshot.empty(), _bounds(snapshots=3, records=5))
    records = _grown(history, 10)
    assert (history.oldest_version, history.version) == (8, 10)
    assert _kept(history) == [8, 9, 10]
    found = history.find(8)
    assert found is not None and "t8" in found.tags and "t9" not in found.tags
    assert history.records_after(5) == records[5:]
    assert history.records_after(10) == []
    assert history.records_after(4) is None
    assert history.records_after(11) is None
    assert history.bytes_added == sum(map(len, records))


def test_snapshots_are_bounded_in_the_bytes_they_hold_besides_the_newest() -> None:
    history = History(Snapshot.empty(), _bounds(snapshot_bytes=1000))
    history.add(_step(history.newest, _members(*range(0, 400, 2))))  # 200 ordinals, 2 bytes each
    _grown(history, 20)
    assert history.oldest_version == 0, "tags that come hold nothing back"
    history.add(_step(history.newest, _members(1)))
    history.add(_step(history.newest, _members(3)))
    assert history.oldest_version == 0
    history.add(_step(history.newest, _members(5)))
    assert (history.oldest_version, history.version) == (22, 24), "three versions of 400 bytes are too many"
    history.add(_step(history.newest, _members(5)))
    assert history.oldest_version == 22, "who has the tag already changes nothing"
    history.add(_step(history.newest, TagRecord(delete_tag="t")))
    assert history.oldest_version == 23


def test_records_are_bounded_in_bytes_too_and_a_large_one_is_kept_while_it_is_the_newest() -> None:
    history = History(Snapshot.empty(), _bounds(size=1000))
    _grown(history, 1, 5000)
    assert history.records_after(0) is not None
    _grown(history, 1, 400)
    assert (history.records_after(0), len(history.records_after(1) or [])) == (None, 1)
    _grown(history, 5, 400)
    assert (history.records_after(4), len(history.records_after(5) or [])) == (None, 2)


def test_pinned_snapshots_outlive_others_until_more_are_pinned() -> None:
    history = History(Snapshot.empty(), _bounds(snapshots=2, pinned=2))
    for _ in range(2):
        _grown(history, 1)
        history.pin(history.newest)
    _grown(history, 5)
    assert _kept(history) == [1, 2, 6, 7]
    history.find(1)  # asked for: version 2 is the next to go
    history.pin(history.newest)
    assert _kept(history) == [1, 6, 7]


def test_a_gap_is_refused() -> None:
    history = History(Snapshot.empty(), _bounds())
    record = TagRecord(delete_tag="x")
    ahead = _step(Snapshot.empty().apply(1, record), record)
    with pytest.raises(ValueError, match="doesn't follow"):
        history.add(ahead)


def test_it_says_which_records_came() -> None:
    history = History(Snapshot.empty(), _bounds(records=4))
    records = _grown(history, 6)
    assert history.holds(3, records[3:5])
    assert history.holds(5, records[5:])
    assert not history.holds(3, [records[4]])
    assert not history.holds(5, [records[5], b"more"])
    assert not history.holds(1, records[1:3]), "not kept any more"

"""A batch against a snapshot: each sees those before it, and the refused leave nothing."""

from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from tagset.snapshot import Snapshot
from tagsvc.changes import CreateTag, Delete, PutAlias
from tagsvc.mapping_changes import MappingChunk, Stream
from tagsvc.memberships import Delta
from tagsvc.plan import MAX_BYTES, Done, Mutation, Plan
from tidings.tag.v1.log_pb2 import TagRecord
from tidings.tag.v1.tag_pb2 import Tag

NOW = Timestamp(seconds=1000)


class Records(Mutation):
    """So many records of such a size."""

    def __init__(self, number: int, size: int) -> None:
        super().__init__()
        self._records = [TagRecord(put_tag=Tag(name=f"t{n}", description="x" * size)) for n in range(number)]

    def records(self, snapshot: Snapshot, now: Timestamp) -> list[TagRecord]:
        return self._records


def _plan(*mutations: Mutation, base: Snapshot | None = None) -> Plan:
    plan = Plan(base or Snapshot.empty(), lambda _: None)
    for mutation in mutations:
        assert plan.take(mutation, NOW)
    return plan


def _outcomes(plan: Plan) -> list[int | str]:
    return [one.version if isinstance(one, Done) else one.reason for one in plan.verdicts]


def _create(name: str, request_id: str = "", digest: bytes = b"d") -> CreateTag:
    return CreateTag(name, "", {}, request_id, digest, most=100)


def test_each_sees_those_before_it() -> None:
    plan = _plan(_create("a"), _create("a"), PutAlias("x", "a", "", b"", most=100), Delete("tag", "a", [], "", b""), _create("b"))
    assert _outcomes(plan) == [1, "NAME_TAKEN", 2, "NAME_IN_USE", 3]
    assert [len(plan.records), plan.newest.version, sorted(plan.newest.tags)] == [3, 3, ["a", "b"]]
    assert [TagRecord.FromString(record).WhichOneof("change") for record in plan.records] == ["put_tag", "put_alias", "put_tag"]
    assert all(TagRecord.FromString(record).time == NOW for record in plan.records)


def test_a_repetition_is_recognised_within_a_batch_and_after_it() -> None:
    first = _plan(_create("a", "r1"), _create("a", "r1"), _create("a", "r1", b"other"))
    assert _outcomes(first) == [1, 1, "REQUEST_ID_CONFLICT"]
    later = _plan(_create("b"), _create("a", "r1"), base=first.newest)
    assert _outcomes(later) == [2, 1]


def test_what_does_not_fit_waits_for_the_next() -> None:
    plan = _plan(Records(999, 1))
    assert not plan.take(Records(2, 1), NOW)
    assert plan.take(Records(1, 1), NOW)
    large = _plan(Records(1, MAX_BYTES - 1000))
    assert not large.take(Records(1, 1000), NOW)
    assert len(large.verdicts) == 1


def test_nothing_to_change_is_done_at_once() -> None:
    plan = _plan(_create("a"), Records(0, 0))
    assert _outcomes(plan) == [1, 1]


def test_a_request_without_an_id_leaves_no_digest() -> None:
    (record,) = _plan(_create("a")).records
    assert (TagRecord.FromString(record).request_id, TagRecord.FromString(record).request_digest) == ("", b"")
    (record,) = _plan(_create("a", "r")).records
    assert (TagRecord.FromString(record).request_id, TagRecord.FromString(record).request_digest) == ("r", b"d")


def _chunk(stream: Stream, number: int, tag: str = "a") -> MappingChunk:
    return MappingChunk({tag: Delta(added=BitMap([number]))}, tag == "a", 100, stream, number)


def test_nothing_of_a_stream_is_applied_after_a_chunk_that_was_refused() -> None:
    stream, other = Stream(), Stream()
    plan = _plan(_chunk(stream, 1), _chunk(stream, 2, "unknown"), _chunk(stream, 3), _chunk(other, 3))
    assert _outcomes(plan) == [1, "UNKNOWN_TAG", "UNAVAILABLE", 2]
    base = Snapshot.empty().apply(1, TagRecord(put_tag=Tag(name="unknown")))
    again = _plan(_chunk(stream, 1), _chunk(stream, 2, "unknown"), _chunk(stream, 3), base=base)
    assert _outcomes(again) == [2, 3, 4], "tried anew, against a later snapshot, nothing is refused"


def test_nothing_of_a_stream_is_applied_after_a_chunk_that_was_given_up() -> None:
    stream = Stream()
    first = _chunk(stream, 1)
    assert _outcomes(_plan(first, _chunk(stream, 2))) == [1, 2]
    first.refused()
    assert _outcomes(_plan(_chunk(stream, 3))) == ["UNAVAILABLE"]

"""Recipients by blocks: plain set arithmetic, whatever comes in and however often."""

from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from store.notification_life import KEPT, Part, State, remainder
from store.recipient_blocks import BLOCK_BITS, Counts, RecipientBlock, decode, encode, parts_of, split, touched, union

BLOCK = 1 << BLOCK_BITS
HIGHEST = 2**31 - 1
edges = st.sampled_from((1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, HIGHEST - BLOCK, HIGHEST))
ordinals = st.sets(st.one_of(edges, st.integers(1, HIGHEST)), max_size=30)
few = st.sets(st.integers(1, 8))
deltas = st.lists(st.tuples(st.sampled_from(("send", "fail", "deliver")), few), max_size=12)


@given(ordinals)
def test_blocks_are_the_whole_in_order(everyone: set[int]) -> None:
    blocks = split(BitMap(everyone))
    assert list(blocks) == sorted({ordinal >> BLOCK_BITS for ordinal in everyone})
    assert set(union(blocks.values())) == everyone
    assert all({ordinal >> BLOCK_BITS for ordinal in part} == {block} for block, part in blocks.items())


def test_touched_blocks_are_counted_once() -> None:
    assert touched(split(BitMap([1, BLOCK])), split(BitMap([2, 5 * BLOCK]))) == {0, 1, 5}


@given(few, deltas)
def test_parts_stay_within_each_other_and_totals_are_right(expansion: set[int], steps: list[tuple[str, set[int]]]) -> None:
    bitmaps = {Part.EXPANSION: BitMap(expansion), Part.SENT: BitMap(), Part.DELIVERED: BitMap(), Part.FAILED: BitMap()}
    total = Counts(expansion=len(expansion))
    for action, members in [*steps, *steps]:  # a second time: repeats change nothing but what came in between
        block = RecipientBlock(bitmaps)
        total = total.plus(getattr(block, action)(BitMap(members)))
        bitmaps |= block.changes()
        sent, delivered, failed = bitmaps[Part.SENT], bitmaps[Part.DELIVERED], bitmaps[Part.FAILED]
        assert delivered <= sent <= bitmaps[Part.EXPANSION]
        assert failed <= bitmaps[Part.EXPANSION]
        assert not failed & delivered
        assert total == Counts(*(len(bitmaps[part]) for part in KEPT))


@given(few)
def test_what_changes_nothing_is_not_written(members: set[int]) -> None:
    parts = dict.fromkeys(KEPT, BitMap(members))
    block = RecipientBlock(parts | {Part.FAILED: BitMap()})
    assert [block.send(BitMap(members)), block.deliver(BitMap(members)), block.fail(BitMap(members))] == [Counts()] * 3
    assert block.changes() == {}


def test_everybody_is_in_one_part_whatever_the_state() -> None:
    kept = {Part.EXPANSION: BitMap(range(1, 9)), Part.SENT: BitMap([1, 2]), Part.DELIVERED: BitMap([1]), Part.FAILED: BitMap([5])}
    for state in State:
        parts = parts_of(kept, state)
        disjoint = [parts[part] for part in Part if part not in {Part.EXPANSION, Part.SENT}]
        assert sum(map(len, disjoint)) == 8
        assert union(disjoint) == kept[Part.EXPANSION]
        assert BitMap([2, 3, 4, 6, 7, 8]) <= parts[remainder(state)]


@given(ordinals)
def test_kept_bitmaps_come_back(everyone: set[int]) -> None:
    assert set(decode(encode(BitMap(everyone)))) == everyone


def test_an_audience_in_a_row_is_kept_in_a_few_bytes() -> None:
    assert len(encode(BitMap(range(1, BLOCK)))) < 100

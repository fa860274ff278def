"""Chunks brought to deltas: the same as doing one thing after the other."""

import time

from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from tagsvc.memberships import Delta, Deltas, effective

TAGS = ["a", "b", "c"]
USERS = list(range(1, 6))
of_tag = st.tuples(st.sampled_from(TAGS), st.lists(st.sampled_from(USERS)), st.lists(st.sampled_from(USERS)))
of_user = st.tuples(st.sampled_from(USERS), st.lists(st.sampled_from(TAGS)), st.lists(st.sampled_from(TAGS)))
members = st.dictionaries(st.sampled_from(TAGS), st.frozensets(st.sampled_from(USERS)))


def _deltas(by_tag: list[tuple[str, list[int], list[int]]], by_user: list[tuple[int, list[str], list[str]]]) -> dict[str, Delta]:
    deltas = Deltas()
    for change in by_tag:
        deltas.of_tag(*change)
    for user_change in by_user:
        deltas.of_user(*user_change)
    return deltas.by_tag()


def _applied(deltas: dict[str, Delta], before: dict[str, frozenset[int]]) -> dict[str, set[int]]:
    after = {tag: set(users) for tag, users in before.items()}
    for tag, delta in deltas.items():
        after[tag] = (after.get(tag, set()) - set(delta.removed)) | set(delta.added)
    return after


@given(st.lists(of_tag), st.lists(of_user), members)
def test_a_chunk_is_its_changes_one_after_the_other(
    by_tag: list[tuple[str, list[int], list[int]]],
    by_user: list[tuple[int, list[str], list[str]]],
    before: dict[str, frozenset[int]],
) -> None:
    expected: dict[str, set[int]] = {tag: set(users) for tag, users in before.items()}
    for tag, removed, added in by_tag:
        expected[tag] = (expected.get(tag, set()) - set(removed)) | set(added)
    for user, lost, got in by_user:
        for tag in lost:
            expected.setdefault(tag, set()).discard(user)
        for tag in got:
            expected.setdefault(tag, set()).add(user)
    deltas = _deltas(by_tag, by_user)
    assert _applied(deltas, before) == expected
    bitmaps = {tag: BitMap(users) for tag, users in before.items()}
    needed = effective(deltas, bitmaps)
    assert _applied(needed, before) == expected
    for tag in needed:
        assert tag not in before or expected[tag] != before[tag]


def test_the_same_over_and_over_costs_no_more_than_as_many_others() -> None:
    begin, deltas = time.process_time(), Deltas()
    for _ in range(100_000):
        deltas.of_user(7, [], ["a"])
        deltas.of_tag("b", [7], [7])
    assert {tag: list(delta.added) for tag, delta in deltas.by_tag().items()} == {"a": [7], "b": [7]}
    assert time.process_time() - begin < 0.7, "it takes a tenth of that"


def test_to_clear_is_a_change_unless_it_leaves_the_same() -> None:
    same, fewer = Delta(added=BitMap([1, 2]), clear=True), Delta(added=BitMap([1]), clear=True)
    assert list(effective({"a": same, "b": fewer}, {"a": BitMap([1, 2]), "b": BitMap([1, 2])})) == ["b"]

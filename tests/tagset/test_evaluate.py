"""Who is meant, and how many by each part: the same as Python's sets say."""

import pytest
from hypothesis import given, settings
from pyroaring import BitMap

from tagset import resolve
from tagset.canonical import canonical
from tagset.errors import TooLargeError, UnknownNameError
from tagset.evaluate import CountedNode, count_tree, evaluate
from tagset.expression import Alias, Expression, Outcome, Tag, Union, User, operands
from tagset.outline import MAX_DEPTH, MAX_PARTS
from tagset.parser import parse
from tagset.snapshot import Snapshot
from tests.tagset.strategies import HIGHEST, World, expressions, replay, with_combinations, worlds
from tidings.tag.v1.log_pb2 import MembershipChange, TagMembers, TagRecord


@settings(deadline=None)
@given(expressions, worlds)
def test_everybody_meant_is_who_the_sets_say(expression: Expression, world: World) -> None:
    snapshot, outcomes = world.snapshot(), world.outcome_bitmaps
    found = evaluate(expression, snapshot, HIGHEST, world.users, outcomes)
    assert found == world.audience(expression)
    assert evaluate(canonical(expression), snapshot, HIGHEST, world.users, outcomes) == found


@settings(deadline=None)
@given(expressions, worlds)
def test_an_evaluation_changes_nothing_and_its_result_is_the_callers_own(expression: Expression, world: World) -> None:
    snapshot, outcomes = world.snapshot(), world.outcome_bitmaps
    found = evaluate(expression, snapshot, HIGHEST, world.users, outcomes)
    found |= BitMap(range(1, 100))
    found.clear()
    assert snapshot == world.snapshot()
    assert outcomes == world.outcome_bitmaps


@settings(deadline=None)
@given(expressions, worlds)
def test_every_part_has_its_count(expression: Expression, world: World) -> None:
    root = count_tree(expression, world.snapshot(), HIGHEST, world.users, world.outcome_bitmaps)

    def compare(node: CountedNode, part: Expression) -> None:
        assert node.count == len(world.audience(part))
        if not isinstance(part, Tag | Alias):
            assert parse(node.text) == part
            for inner, operand in zip(node.operands, operands(part), strict=True):
                compare(inner, operand)

    compare(root, expression)


def test_the_tree_is_as_written_with_what_names_stand_for_beneath() -> None:
    snapshot = replay(with_combinations(k="a - b"), [TagRecord(put_alias={"name": "x", "target": "k"})])  # type: ignore[arg-type]
    root = count_tree(parse("(c) + @x & !k"), snapshot, 10, {}, {})

    def shown(node: CountedNode) -> tuple[object, ...]:
        return (node.text, node.kind, node.count, node.column, *map(shown, node.operands))

    a, b = ("a", "tag", 3, 0), ("b", "tag", 3, 0)
    combination = ("k", "combination", 1, 0, ("a - b", "difference", 1, 0, a, b))
    alias = ("@x", "alias", 1, 7, combination)
    complement = ("!k", "complement", 9, 12, ("k", "combination", 1, 13))  # what k stands for was shown already
    assert shown(root) == ("c + @x & !k", "union", 3, 1, ("c", "tag", 3, 2), ("@x & !k", "intersection", 0, 7, alias, complement))


def test_combinations_that_share_others_do_not_blow_up() -> None:
    texts = {"k00": "a"} | {
        f"k{level:02}": f"k{level - 1:02} & b + k{level - 1:02} & c + k{level - 1:02}" for level in range(1, 64)
    }
    root = count_tree(parse("k63"), with_combinations(**texts), 10, {}, {})
    assert root.count == 3
    assert _size(root) < 300
    assert _depth(root) == MAX_DEPTH


def test_a_tree_stays_small_however_much_its_combinations_hold() -> None:
    long = " + ".join(f"user:u{number}" for number in range(1, 1_000))
    texts = {f"k{number}": f"{long} + {'abc'[number % 3]}" for number in range(20)}
    users = {f"u{number}": number for number in range(1, 1_000)}
    root = count_tree(parse(" + ".join(texts)), with_combinations(**texts), 10, users, {})
    assert root.count == 999
    assert MAX_PARTS < _size(root) < MAX_PARTS + 1_100
    assert [node.count for node in root.operands] == [999] * 20


def _size(node: CountedNode) -> int:
    return 1 + sum(map(_size, node.operands))


def _depth(node: CountedNode) -> int:
    return 1 + max(map(_depth, node.operands), default=0)


def test_as_deep_as_may_be_in_all_ways_at_once() -> None:
    """Sixty-four combinations within each other, each of an expression nested 64 deep."""

    def nested(inner: str) -> str:
        for _ in range(21):
            inner = f"b & c & (a + ({inner}) - c)"  # three levels
        return inner

    texts = {"k00": "a"} | {f"k{level:02}": nested(f"k{level - 1:02}") for level in range(1, 64)}
    snapshot = with_combinations(**texts)
    assert set(evaluate(Tag("k63"), snapshot, 10, {}, {})) == set()
    assert evaluate(parse("!k63"), snapshot, 10, {}, {}) == BitMap(range(1, 11))
    assert _depth(count_tree(Tag("k63"), snapshot, 10, {}, {})) == MAX_DEPTH
    with pytest.raises(TooLargeError, match="nested more than 64"):
        evaluate(Tag("k64"), with_combinations(**texts, k64="k63"), 10, {}, {})


def test_combinations_that_lead_to_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"k{number}": "a + b + c + a + b" for number in range(10)}
    expression, snapshot = parse(" + ".join(texts)), with_combinations(**texts)
    monkeypatch.setattr(resolve, "MAX_REACHED", 60)
    assert len(evaluate(expression, snapshot, 10, {}, {})) == 5
    monkeypatch.setattr(resolve, "MAX_REACHED", 59)
    with pytest.raises(TooLargeError, match="more than 59 operands"):
        evaluate(expression, snapshot, 10, {}, {})


def test_everyone_known_is_everyone_who_is_named_anywhere() -> None:
    """A copy that has heard of a new user's tag, but not of the user, must not send to others what is meant for all but them."""
    snapshot = with_combinations()
    assert set(evaluate(parse("!a"), snapshot, 0, {}, {})) == {4, 5}
    assert set(evaluate(parse("!user:u"), snapshot, 3, {"u": 7}, {})) == {1, 2, 3, 4, 5, 6}
    assert set(evaluate(parse("* - sent(n)"), snapshot, 6, {}, {("sent", "n"): BitMap([6, 8])})) == {1, 2, 3, 4, 5, 7}
    assert set(evaluate(parse("*"), Snapshot.empty(), 0, {}, {})) == set()


def test_what_is_not_given_is_told() -> None:
    with pytest.raises(UnknownNameError) as user:
        evaluate(Union((Tag("a"), User("u", 5))), with_combinations(), 9, {}, {})
    assert (user.value.name, user.value.kind, user.value.column) == ("u", "user", 5)
    with pytest.raises(UnknownNameError) as outcome:
        evaluate(Outcome("sent", "n", 1), with_combinations(), 9, {}, {})
    assert (outcome.value.name, outcome.value.kind, outcome.value.column) == ("n", "notification", 1)


def test_millions_of_clients() -> None:
    even, third = BitMap(range(2, 3_000_001, 2)), BitMap(range(3, 3_000_001, 3))
    changes = [TagMembers(tag=name, added_ordinals=members.serialize()) for name, members in [("even", even), ("third", third)]]
    snapshot = replay(Snapshot.empty(), [TagRecord(memberships=MembershipChange(tags=changes))])
    assert len(evaluate(parse("even & third"), snapshot, 3_000_000, {}, {})) == 500_000
    assert len(evaluate(parse("!(even + third)"), snapshot, 3_000_000, {}, {})) == 1_000_000
    assert len(evaluate(parse("* - third + even & third"), snapshot, 3_000_000, {}, {})) == 2_500_000

"""Whether one client is meant, and why."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from tagset.evaluate import CountedNode, count_tree, evaluate
from tagset.explain import ExplainedNode, because, explain
from tagset.expression import Expression
from tagset.parser import parse
from tests.tagset.strategies import HIGHEST, ORDINALS, World, expressions, replay, with_combinations, worlds
from tidings.tag.v1.log_pb2 import TagRecord
from tidings.tag.v1.tag_pb2 import Alias


@settings(deadline=None)
@given(expressions, worlds, st.sampled_from([*ORDINALS, 50, HIGHEST + 1]))
def test_who_is_in_is_who_is_meant_part_by_part(expression: Expression, world: World, ordinal: int) -> None:
    snapshot, outcomes = world.snapshot(), world.outcome_bitmaps
    root = explain(ordinal, expression, snapshot, HIGHEST, world.users, outcomes)
    assert root.included == (ordinal in evaluate(expression, snapshot, HIGHEST, world.users, outcomes))
    assert _shape(root) == _shape(count_tree(expression, snapshot, HIGHEST, world.users, outcomes))
    assert because(root).startswith("in, because they " if root.included else "out, because they ")


def _shape(node: CountedNode | ExplainedNode) -> tuple[object, ...]:
    return (node.text, node.kind, *map(_shape, node.operands))


@pytest.mark.parametrize(
    ("text", "ordinal", "words"),
    [
        ("a", 1, "in, because they have a"),
        ("a", 9, "out, because they don't have a"),
        ("a + b", 3, "in, because they have a"),
        ("a & b + c", 3, "in, because they have c"),
        ("b + a", 1, "in, because they have a"),
        ("a + b", 9, "out, because they don't have a and don't have b"),
        ("a & b", 2, "in, because they have a and have b"),
        ("a & b", 1, "out, because they don't have b"),
        ("a - b - c", 1, "in, because they have a, don't have b and don't have c"),
        ("a - b - c", 2, "out, because they have b"),
        ("a - b - c", 9, "out, because they don't have a"),
        ("!a", 1, "out, because they have a"),
        ("!a", 9, "in, because they don't have a"),
        ("!a", 11, "out, because they aren't a known client"),
        ("*", 9, "in, because they are a known client"),
        ("* - user:u", 9, "out, because they are user:u"),
        ("user:u", 8, "out, because they aren't user:u"),
        ("sent(n) & a", 1, "in, because they are in sent(n) and have a"),
        ("sent(n) & a", 2, "out, because they aren't in sent(n)"),
        ("@x", 1, "in, because they have a and don't have b"),
        ("(a & b & c) + (b - a)", 4, "in, because they have b and don't have a"),
        ("k + k & c", 9, "out, because they don't have a and aren't in k"),
        ("a + b + c + @x + k + sent(n) + user:u", 10, "out, because they don't have a, don't have b, don't have c, aren't in k, "
         "aren't in sent(n) and 1 more"),
    ],
)  # fmt: skip
def test_in_words(text: str, ordinal: int, words: str) -> None:
    snapshot = replay(with_combinations(k="a - b"), [TagRecord(put_alias=Alias(name="x", target="k"))])
    users = {"u": 9, "v": 7}
    assert because(explain(ordinal, parse(text), snapshot, 10, users, {("sent", "n"): BitMap([1])})) == words

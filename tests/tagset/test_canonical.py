"""The canonical form: one for many ways to write the same, never for different audiences, and always readable."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tagset.canonical import canonical
from tagset.errors import TooLargeError
from tagset.expression import Complement, Difference, Expression, Intersection, Tag, Union
from tagset.parser import parse
from tagset.text import to_text
from tests.tagset.strategies import World, expressions, leaves, worlds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b + a + a", "a + b"),
        ("(c + b) + a", "a + b + c"),
        ("c & (b & a)", "a & b & c"),
        ("!!a", "a"),
        ("!(a + b)", "!a & !b"),
        ("!(a & b)", "!a + !b"),
        ("a - b", "a - b"),
        ("a & !b", "a - b"),
        ("a - b - c", "a - b - c"),
        ("a - (b + c)", "a - b - c"),
        ("a - (b - c)", "a & (c + !b)"),
        ("b & a - c", "a & b - c"),
        ("(a + b) & !c", "a + b - c"),
        ("(a - b) + (c - d)", "a & !b + c & !d"),
        ("a & (a + b)", "a"),
        ("a + a & b", "a"),
        ("a + (b - a)", "a + b"),
        ("a & b + c & b & a", "a & b"),
        ("(a + b) & (c + b + a)", "a + b"),
        ("a & (b + c & a)", "a & (b + c)"),
        ("a & !a", "* - *"),
        ("a + !a", "*"),
        ("(a & b) - (a & b)", "* - *"),
        ("(a + b & c) + !(a + b & c)", "*"),
        ("a & *", "a"),
        ("a + *", "*"),
        ("!*", "* - *"),
        ("* - *", "* - *"),
        ("* - a", "!a"),
        ("a - *", "* - *"),
        ("a + (* - *)", "a"),
        ("user:z + @b + sent(n) + a + delivered(n)", "a + @b + user:z + delivered(n) + sent(n)"),
        ('"a" + "b c"', 'a + "b c"'),
    ],
)  # fmt: skip
def test_the_one_way(text: str, expected: str) -> None:
    assert to_text(canonical(parse(text))) == expected


@settings(deadline=None)
@given(expressions, worlds)
def test_it_means_the_same(expression: Expression, world: World) -> None:
    assert world.meaning(canonical(expression)) == world.meaning(expression)


@settings(max_examples=300, deadline=None)
@given(expressions)
def test_it_is_its_own_canonical_form_also_when_read_again(expression: Expression) -> None:
    once = canonical(expression)
    assert canonical(once) == once
    assert parse(to_text(once)) == once


@given(expressions, expressions, expressions)
def test_laws_make_no_difference(a: Expression, b: Expression, c: Expression) -> None:
    def same(one: Expression, other: Expression) -> bool:
        return canonical(one) == canonical(other)

    assert same(Union((a, b)), Union((b, a)))
    assert same(Union((a, Union((b, c)))), Union((Union((a, b)), c)))
    assert same(Intersection((a, Intersection((b, c)))), Intersection((c, b, a)))
    assert same(Complement(Complement(a)), a)
    assert same(Complement(Union((a, b))), Intersection((Complement(a), Complement(b))))
    assert same(Difference((a, b, c)), Difference((a, Union((b, c)))))
    assert same(Difference((a, b)), Intersection((a, Complement(b))))
    assert same(Union((a, a)), a)


@st.composite
def deep(draw: st.DrawFn) -> Expression:
    """One part within another, often as deep as may be."""
    expression: Expression = draw(leaves)
    for _ in range(draw(st.integers(30, 70))):
        other = Tag(draw(st.sampled_from("pqrstuvwxyz")))
        around: list[Expression] = [
            Complement(expression),
            Union((expression, other)),
            Intersection((other, expression)),
            Intersection((expression, Complement(other))),
            Difference((expression, other)),
            Difference((other, expression)),
            Difference((Intersection((expression, other)), other)),
        ]
        expression = draw(st.sampled_from(around))
    return expression


@settings(max_examples=100, deadline=None)
@given(deep())
def test_the_canonical_form_of_what_can_be_read_can_be_read(expression: Expression) -> None:
    try:
        parse(to_text(expression))
    except TooLargeError:
        assume(False)
    assert parse(to_text(canonical(expression))) == canonical(expression)


def test_depth_is_not_used_up() -> None:
    """Sixty-four levels of differences within differences, whose canonical form alternates between unions and intersections."""
    text = "a0"
    for level in range(1, 65):
        text = f"a{level} - ({text})"
    assert parse(to_text(canonical(parse(text)))) == canonical(parse(text))


def test_a_chain_of_thousand_operands_that_settle_each_other() -> None:
    text = " & ".join([*(f"(x{i:03} + !x{i + 1:03})" for i in range(499)), "x499"])
    assert to_text(canonical(parse(text))) == " & ".join(f"x{i:03}" for i in range(500))

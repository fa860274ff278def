"""Reading and writing expressions: precedence, every error with its place, limits, and texts meant to harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagset.errors import ExpressionError, TooLargeError
from tagset.expression import (
    Alias,
    Complement,
    Difference,
    Everyone,
    Expression,
    Intersection,
    Leaf,
    Outcome,
    Tag,
    Union,
    User,
    operands,
)
from tagset.parser import parse
from tagset.text import to_text
from tests.tagset.strategies import expressions

A, B, C, D = (Tag(name) for name in "abcd")


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("a", A),
        ("*", Everyone()),
        ('"a"', A),
        ('"gold 2024"', Tag("gold 2024")),
        ('"a + (b)"', Tag("a + (b)")),
        ('"größe*"', Tag("größe*")),
        ("2024.q1_x", Tag("2024.q1_x")),
        ("user", Tag("user")),
        ("sent + pending", Union((Tag("sent"), Tag("pending")))),
        ("@a", Alias("a")),
        ('@"two words"', Alias("two words")),
        ("user:ana.b-1+x@example.org", User("ana.b-1+x@example.org")),
        ("user:a+b", User("a+b")),
        ("user:a + b", Union((User("a"), B))),
        ("!user:a&b", Intersection((Complement(User("a")), B))),
        ("(user:a)-b", Difference((User("a"), B))),
        ("sent(n1) - delivered( n1 )", Difference((Outcome("sent", "n1"), Outcome("delivered", "n1")))),
        ("pending(n2)&a", Intersection((Outcome("pending", "n2"), A))),
        ("a+b+c", Union((A, B, C))),
        ("a-b-c", Difference((A, B, C))),
        ("a&b&c", Intersection((A, B, C))),
        ("a + b - c + d", Union((Difference((Union((A, B)), C)), D))),
        ("a - b + c - d", Difference((Union((Difference((A, B)), C)), D))),
        ("a + b & c", Union((A, Intersection((B, C))))),
        ("a & b + c", Union((Intersection((A, B)), C))),
        ("(a + b) & c", Intersection((Union((A, B)), C))),
        ("(a + b) + c", Union((Union((A, B)), C))),
        ("a - (b - c)", Difference((A, Difference((B, C))))),
        ("!a & b", Intersection((Complement(A), B))),
        ("!(a & b)", Complement(Intersection((A, B)))),
        ("!!a", Complement(Complement(A))),
        ("((a))", A),
        (" a\t+\r\nb ", Union((A, B))),
    ],
)  # fmt: skip
def test_precedence(text: str, expression: Expression) -> None:
    assert parse(text) == expression
    assert parse(to_text(expression)) == expression


@pytest.mark.parametrize(
    ("text", "column", "expected", "found"),
    [
        ("", 1, "a tag", "the end"),
        ("  ", 3, "a tag", "the end"),
        ("a b", 3, "'+', '-', '&' or the end", "'b'"),
        ("a !b", 3, "'+', '-', '&' or the end", "'!'"),
        ("a + ", 5, "a tag", "the end"),
        ("a + + b", 5, "a tag", "'+'"),
        ("& a", 1, "a tag", "'&'"),
        ("()", 2, "a tag", "')'"),
        ("a)", 2, "the end", "')'"),
        ("(a", 3, "')' for the '(' at column 1", "the end"),
        ("a + (b - (c)", 13, "')' for the '(' at column 5", "the end"),
        ("(a b)", 4, "')' for the '(' at column 1", "'b'"),
        ("a(b)", 2, "the end", "'('"),
        ("sent (n1)", 6, "the end", "'('"),
        ("sent()", 6, "a notification's id", "')'"),
        ("sent(", 6, "a notification's id", "the end"),
        ("pending(n1 n2)", 12, "')' after the id", "'n'"),
        ("a | b", 3, "an operator", "'|'"),
        ("größe", 3, "double quotes", "'ö'"),
        ("ö", 1, "double quotes", "'ö'"),
        ("\N{NO-BREAK SPACE}a", 1, "a tag", "'\\xa0'"),
        ("a +\x00", 4, "a tag", "'\\x00'"),
        ("@", 2, "a name after '@'", "the end"),
        ("@ a", 2, "a name after '@'", "' '"),
        ("@@a", 2, "a name after '@'", "'@'"),
        ("user:", 6, "a user's id", "the end"),
        ("user: a", 6, "a user's id", "' '"),
        ('user:"a"', 6, "a user's id", "'\"'"),
        (f"a + user:{'x' * 129}", 5, "at most 128 characters", "129"),
        (f"b - {'x' * 129}", 5, "at most 128 characters", "129"),
        ('a + "b', 5, "no closing", ""),
        ('a + ""', 6, "at least one character", ""),
        ('" a"', 2, "begin with a space", ""),
        ('"a "', 3, "end with a space", ""),
        ('"a\\b"', 3, "can't hold", "\\"),
        ('"a\nb"', 3, "can't hold", "\\n"),
        ('@"a\x7f"', 4, "can't hold", "\\x7f"),
    ],
)  # fmt: skip
def test_an_error_tells_the_place_what_was_expected_and_what_was_found(text: str, column: int, expected: str, found: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    error = caught.value
    assert error.column == column
    assert expected in error.text
    assert found in error.text
    assert str(error) == f"column {column}: {error.text}"


def test_a_part_knows_where_it_begins() -> None:
    whole = parse(" (a + b) & !(c - d)")
    union, complement = operands(whole)
    (difference,) = operands(complement)
    assert [part.column for part in (whole, union, complement, difference, *operands(difference))] == [2, 3, 12, 14, 14, 18]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("(" * 100_000, "bytes"),
        ("(" * 60_000, "nested more than 64"),
        ("a+" * 10_000 + "a", "1,000 operands"),
        ("a&!" * 10_000 + "a", "1,000 operands"),
        ("(a+" * 10_000 + "a" + ")" * 10_000, "nested more than 64"),
        ("!" * 1_000 + "a", "nested more than 64"),
        ("!(" * 65 + "a" + ")" * 65, "nested more than 64"),
        ("(" * 65 + "a" + ")" * 65, "nested more than 64"),
        ("a" + "+a-a" * 40, "nested more than 64"),
        ("a+" * 1_000 + "a", "1,000 operands"),
        ("!" * 65_000 + "vip", "more than 1,000 '!'"),
        ("+".join(["!" * 60 + "a"] * 17), "more than 1,000 '!'"),
        ("a " * 40_000, "bytes"),
        ("ö" * 40_000, "bytes"),
    ],
)  # fmt: skip
def test_too_much_is_refused_by_name(text: str, limit: str) -> None:
    with pytest.raises(TooLargeError, match=limit):
        parse(text)


def test_hostile_text_that_is_also_faulty_is_refused_as_a_fault() -> None:
    with pytest.raises(ExpressionError):
        parse("!" * 1_000)
    with pytest.raises(ExpressionError):
        parse("a" + ")" * 60_000)
    with pytest.raises(ExpressionError):
        parse("\ud800")


@pytest.mark.parametrize(
    "text",
    [
        "a+" * 999 + "a",
        "a-" * 999 + "a",
        "!" * 65 + "a",
        "+".join(["!a"] * 1_000),
        "(" * 64 + "a" + ")" * 64,
        "a+(b&" * 32 + "a" + ")" * 32,
        "(a&b-c)&" * 300 + "d",
        "b&(" * 64 + "a" + ")-c" * 64,
        f'"{"ö" * 128}"',
    ],
)  # fmt: skip
def test_all_that_is_allowed_is_read_and_written(text: str) -> None:
    assert parse(to_text(parse(text))) == parse(text)


@given(expressions)
def test_what_is_written_reads_the_same(expression: Expression) -> None:
    assert parse(to_text(expression)) == expression


@given(expressions)
def test_no_parenthesis_could_be_left_out(expression: Expression) -> None:
    text = to_text(expression)
    for opened in [
        index for index, character in enumerate(text) if character == "(" and text[max(0, index - 4) : index] not in _CALLS
    ]:
        closed = _closing(text, opened)
        assert parse(text[:opened] + text[opened + 1 : closed] + text[closed + 1 :]) != expression


_CALLS = ("sent", "ered", "ding")


def _closing(text: str, opened: int) -> int:
    depth = 0
    for index in range(opened, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if not depth:
            return index
    raise AssertionError(text)


@given(st.text('ab+-&!()*@:". \\ö\n', max_size=30))
def test_any_text_is_read_or_refused_with_a_place_inside_it(text: str) -> None:
    try:
        expression = parse(text)
    except ExpressionError as error:
        assert 1 <= error.column <= len(text) + 1
    else:
        assert parse(to_text(expression)) == expression


@given(
    st.lists(
        st.sampled_from(["a", "@b", "user:", "sent(", "n1", "(", ")", "+", "-", "&", "!", "*", '"', " ", "ö"]), max_size=25
    ).map("".join)
)
def test_any_pieces_are_read_or_refused(text: str) -> None:
    try:
        expression = parse(text)
    except ExpressionError as error:
        assert 1 <= error.column <= len(text) + 1
    else:
        assert all(text[part.column - 1] in "a@bus*n1" or text[part.column - 1] == '"' for part in _leaves(expression))


def _leaves(expression: Expression) -> list[Expression]:
    return [expression] if isinstance(expression, Leaf) else [leaf for part in operands(expression) for leaf in _leaves(part)]

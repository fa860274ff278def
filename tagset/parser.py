"""Reads an expression: `!` binds tightest, then `&`, then `+` and `-` from the left.

Rules: no recursion, so that no text can exhaust the stack; one pass; the first fault from the left is told. Depth counts operators
within operators, and parentheses within parentheses, needed or not. `!` before a single operand adds nothing, nor does an `&` at
the head of a difference (``a & b - c``): so the canonical form of what can be read can be read too.
"""

from itertools import repeat
from typing import NamedTuple, TypeAlias

from tagset.errors import ExpressionError, TooLargeError
from tagset.expression import Complement, Difference, Expression, Intersection, Leaf, Union
from tagset.lexer import Token, found, tokens

MAX_BYTES = 64 * 1024  # of text in UTF-8; this and the next three as the contract says
MAX_OPERANDS = 1_000
MAX_DEPTH = 64
MAX_BANGS = MAX_OPERANDS  # a canonical form has at most one before each operand

_OPERAND = "expected a tag, @alias, user:ID, sent(N), '*', '!' or '('"
_Operator: TypeAlias = type[Union] | type[Intersection] | type[Difference]


def parse(text: str, max_bytes: int = MAX_BYTES) -> Expression:
    """Read an expression.

    Args:
        text: as written.
        max_bytes: most bytes of text; more than usual for a canonical form, whose blanks and `!` may take a few KiB.

    Raises:
        ExpressionError: it is none; tells where, what was expected and what was found.
        TooLargeError: too long, too many operands, or nested too deep.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > max_bytes:
        raise TooLargeError(f"the text has {size:,} bytes; at most {max_bytes:,} are allowed")
    parser = _Parser()
    for token in tokens(text):
        parser.read(token)
    return parser.whole


class _Part(NamedTuple):
    """A part that has been read, how deep it is nested within, and where it begins with its parenthesis."""

    expression: Expression
    depth: int
    column: int


class _Group:
    """What is inside a pair of parentheses, or the whole text, as far as it has been read.

    Attributes:
        column: of its opening parenthesis; 0 for the whole text.
        terms: operands of the chain of `+`, or of `-`, that is open.
        operator: that chain's.
        factors: operands of the chain of `&` that is open.
        bangs: columns of the `!` that wait for an operand.
    """

    __slots__ = ("bangs", "column", "factors", "operator", "terms")

    def __init__(self, column: int) -> None:
        self.column = column
        self.terms: list[_Part] = []
        self.operator: _Operator = Union
        self.factors: list[_Part] = []
        self.bangs: list[int] = []

    def add(self, part: _Part) -> None:
        """An operand is complete."""
        while self.bangs:
            part = _complement(part, self.bangs.pop())
        self.factors.append(part)

    def chain(self, operator: _Operator) -> None:
        """`+` or `-` follows."""
        self._end_factors()
        if len(self.terms) > 1 and operator is not self.operator:
            self.terms = [_join(self.operator, self.terms)]
        self.operator = operator

    def close(self) -> _Part:
        """The group as one part."""
        self._end_factors()
        return _join(self.operator, self.terms)

    def _end_factors(self) -> None:
        self.terms.append(_join(Intersection, self.factors))
        self.factors = []


class _Parser:
    def __init__(self) -> None:
        self._groups = [_Group(0)]
        self._operands = 0
        self._bangs = 0
        self._complete = False  # whether an operand has just ended, so that an operator must follow
        self.whole: Expression

    def read(self, token: Token) -> None:
        """Take the next piece."""
        opens = token.symbol in ("operand", "!", "(")
        if opens == self._complete:
            raise ExpressionError(f"{self._expected()}, {found(token.text)}", token.column)
        match token.symbol:
            case "!":
                self._bang(token.column)
            case "(":
                self._open(token.column)
            case ")":
                self._close(token)
            case "end":
                self._end(token)
            case "operand" if token.operand is not None:
                self._operand(token.operand)
            case operator:
                self._operator(operator)

    def _bang(self, column: int) -> None:
        self._bangs += 1
        if self._bangs > MAX_BANGS:
            raise TooLargeError(f"there are more than {MAX_BANGS:,} '!'")
        self._groups[-1].bangs.append(column)

    def _operand(self, leaf: Leaf) -> None:
        self._operands += 1
        if self._operands > MAX_OPERANDS:
            raise TooLargeError(f"there are more than {MAX_OPERANDS:,} operands")
        self._groups[-1].add(_Part(leaf, 0, leaf.column))
        self._complete = True

    def _operator(self, symbol: str) -> None:
        if symbol != "&":
            self._groups[-1].chain(Union if symbol == "+" else Difference)
        self._complete = False

    def _open(self, column: int) -> None:
        if len(self._groups) > MAX_DEPTH:
            raise _too_deep()
        self._groups.append(_Group(column))

    def _close(self, token: Token) -> None:
        if len(self._groups) == 1:
            raise ExpressionError(f"{self._expected()}, {found(token.text)}, which closes nothing", token.column)
        group = self._groups.pop()
        self._groups[-1].add(group.close()._replace(column=group.column))

    def _end(self, token: Token) -> None:
        if len(self._groups) > 1:
            raise ExpressionError(f"{self._expected()}, {found(token.text)}", token.column)
        self.whole = self._groups[0].close().expression

    def _expected(self) -> str:
        if not self._complete:
            return _OPERAND
        column = self._groups[-1].column
        close = f"')' for the '(' at column {column}" if column else "the end"
        return f"expected '+', '-', '&' or {close}"


def _complement(part: _Part, column: int) -> _Part:
    depth = _deeper(part.depth, part.depth == 0 and isinstance(part.expression, Leaf))
    return _Part(Complement(part.expression, column), depth, column)


def _join(operator: _Operator, parts: list[_Part]) -> _Part:
    first, *others = parts
    if not others:
        return first
    free = operator is Difference and isinstance(first.expression, Intersection)
    depth = max(_deeper(first.depth, free), *map(_deeper, (part.depth for part in others), repeat(False)))
    return _Part(operator(tuple(part.expression for part in parts), first.column), depth, first.column)


def _deeper(depth: int, free: bool) -> int:
    """The depth around a part, unless what is around it is free."""
    if free:
        return depth
    if depth >= MAX_DEPTH:
        raise _too_deep()
    return depth + 1


def _too_deep() -> TooLargeError:
    return TooLargeError(f"it is nested more than {MAX_DEPTH} deep")

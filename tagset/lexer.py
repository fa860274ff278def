"""Cuts the text of an expression into operators, parentheses and operands.

Rules: space, tab, carriage return and newline part words and mean nothing else. A word is an outcome only when its parenthesis
follows at once, and a user only when its colon does. It must not know how operators bind.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, NoReturn, TypeAlias, cast

from tagset import names
from tagset.errors import ExpressionError
from tagset.expression import Alias, Everyone, Leaf, Outcome, OutcomeKind, Tag, User

Symbol: TypeAlias = Literal["+", "-", "&", "!", "(", ")", "operand", "end"]

_SPACE = re.compile(r"[ \t\r\n]*")
_USER_ID = re.compile(r"[A-Za-z0-9._@+-]+")
_NOTIFICATION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # its exact form is its owner's business
_OUTCOME = re.compile(r"(sent|delivered|pending)\(")
_SHOWN = 40  # characters of what was found that an error repeats


class Token(NamedTuple):
    """A piece of the text.

    Attributes:
        symbol: which piece.
        column: where it begins, from 1.
        text: as written.
        operand: the leaf it is, of an operand.
    """

    symbol: Symbol
    column: int
    text: str
    operand: Leaf | None = None


def found(text: str) -> str:
    """What was found, for an error: quoted, and cut when long; the end when nothing."""
    if not text:
        return "found the end"
    return f"found {text[:_SHOWN]!r}{'…' if len(text) > _SHOWN else ''}"


def tokens(text: str) -> Iterator[Token]:
    """The pieces in order; the last is the end.

    Raises:
        ExpressionError: at a place that can begin none, or an operand that isn't whole.
    """
    lexer = _Lexer(text)
    while (token := lexer.next()).symbol != "end":
        yield token
    yield token


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def next(self) -> Token:
        self._skip_space()
        column, begin = self._at + 1, self._at
        character = self._text[begin : begin + 1]
        if not character:
            return Token("end", column, "")
        if character in "+-&!()":
            self._at += 1
            return Token(cast("Symbol", character), column, character)
        operand = self._operand(character, column)
        return Token("operand", column, self._text[begin : self._at], operand)

    def _operand(self, character: str, column: int) -> Leaf:
        if character == "*":
            self._at += 1
            return Everyone(column)
        if character == "@":
            self._at += 1
            return Alias(self._name("a name after '@'"), column)
        outcome = _OUTCOME.match(self._text, self._at)
        if outcome:
            return self._outcome(cast("OutcomeKind", outcome[1]), outcome.end(), column)
        if self._text.startswith("user:", self._at):
            return self._user(column)
        return Tag(self._name("a tag, @alias, user:ID, sent(N), '*' or an operator"), column)

    def _user(self, column: int) -> User:
        self._at += len("user:")
        user_id = self._run(_USER_ID)
        if not user_id:
            self._refuse("a user's id right after 'user:'")
        if len(user_id) > names.USER_ID_LENGTH:
            raise ExpressionError(f"a user's id has at most {names.USER_ID_LENGTH} characters, not {len(user_id):,}", column)
        return User(user_id, column)

    def _outcome(self, kind: OutcomeKind, inside: int, column: int) -> Outcome:
        self._at = inside
        self._skip_space()
        notification_id = self._run(_NOTIFICATION_ID)
        if not notification_id:
            self._refuse(f"a notification's id in '{kind}(…)'")
        self._skip_space()
        if not self._text.startswith(")", self._at):
            self._refuse(f"')' after the id in '{kind}(…)'")
        self._at += 1
        return Outcome(kind, notification_id, column)

    def _name(self, expected: str) -> str:
        if self._text.startswith('"', self._at):
            return self._quoted()
        column, name = self._at + 1, self._run(names.BARE)
        if not name:
            self._refuse(expected, '; a name with such characters goes in double quotes: "…"')
        self._check(name, column)
        return name

    def _quoted(self) -> str:
        begin = self._at + 1
        end = self._text.find('"', begin)
        if end < 0:
            raise ExpressionError("a name in quotes begins here and has no closing '\"'", begin)
        self._at = end + 1
        name = self._text[begin:end]
        self._check(name, begin + 1)
        return name

    def _check(self, name: str, column: int) -> None:
        fault = names.fault(name)
        if fault:
            raise ExpressionError(fault[1], column + fault[0])

    def _skip_space(self) -> None:
        self._run(_SPACE)

    def _run(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if not match:
            return ""
        self._at = match.end()
        return match[0]

    def _refuse(self, expected: str, hint: str = "") -> NoReturn:
        character = self._text[self._at : self._at + 1]
        advice = hint if character and character not in "+-&!()*@\"' \t\r\n" else ""
        raise ExpressionError(f"expected {expected}, {found(character)}{advice}", self._at + 1)

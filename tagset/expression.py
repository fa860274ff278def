"""The parts of an expression, as written. Equal means written alike; where in the text something stands makes no difference.

Rules: operators that chain hold all their operands at once (``a + b + c`` is one union of three), so that depth is nesting, not
length. ``(a + b) + c`` stays a union within a union, for its group is a part that somebody may want counted.
A bare name is a `Tag`, whether a tag or a combination has it: a snapshot knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

OutcomeKind: TypeAlias = Literal["sent", "delivered", "pending"]


@dataclass(frozen=True, slots=True)
class Everyone:
    """All clients known."""

    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Tag:
    """Who has a tag, or is in a combination."""

    name: str
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Alias:
    """Whoever an alias stands for; its name is without the @."""

    name: str
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class User:
    """One user."""

    user_id: str
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The recipients of a notification with an outcome."""

    kind: OutcomeKind
    notification_id: str
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Complement:
    """All clients known but these."""

    operand: "Expression"
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Union:
    """Who is in any of two or more."""

    operands: tuple["Expression", ...]
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Intersection:
    """Who is in all of two or more."""

    operands: tuple["Expression", ...]
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Difference:
    """Who is in the first and in none of the others, of which there are one or more."""

    operands: tuple["Expression", ...]
    column: int = field(default=0, compare=False)


Leaf: TypeAlias = Everyone | Tag | Alias | User | Outcome
Expression: TypeAlias = Leaf | Complement | Union | Intersection | Difference


def operands(expression: Expression) -> tuple[Expression, ...]:
    """What an operator is applied to, in order; nothing for a leaf."""
    match expression:
        case Union() | Intersection() | Difference():
            return expression.operands
        case Complement():
            return (expression.operand,)
        case _:
            return ()


def leaves(expression: Expression) -> Iterator[Leaf]:
    """Every leaf, from left to right, repeats included."""
    waiting = [expression]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Leaf):
            yield part
        else:
            waiting.extend(reversed(operands(part)))

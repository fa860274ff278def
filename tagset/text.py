"""Writes an expression as text, with as few parentheses as leave every part what it is.

`parse(to_text(expression))` is equal to the expression.
"""

from typing import TypeAlias

from tagset import names
from tagset.expression import Alias, Complement, Difference, Everyone, Expression, Intersection, Leaf, Outcome, Tag, Union, User

_Kinds: TypeAlias = tuple[type[Expression], ...]

_SUMS: _Kinds = (Union, Difference)  # bind loosest
_CHAINS: _Kinds = (*_SUMS, Intersection)


def to_text(expression: Expression) -> str:
    """The expression as text."""
    match expression:
        case Union(operands):
            return _chain(" + ", operands, (Union,), _SUMS)
        case Difference(operands):
            return _chain(" - ", operands, (Difference,), _SUMS)
        case Intersection(operands):
            return _chain(" & ", operands, _CHAINS, _CHAINS)
        case Complement(operand):
            return f"!{_within(operand, _CHAINS)}"
        case _:
            return _leaf(expression)


def _chain(operator: str, operands: tuple[Expression, ...], grouped_first: _Kinds, grouped: _Kinds) -> str:
    first, *others = operands
    return operator.join([_within(first, grouped_first), *(_within(operand, grouped) for operand in others)])


def _within(expression: Expression, grouped: _Kinds) -> str:
    """The text of an operand, in parentheses when it is of a kind that would be read otherwise."""
    text = to_text(expression)
    return f"({text})" if isinstance(expression, grouped) else text


def _leaf(leaf: Leaf) -> str:
    match leaf:
        case Everyone():
            return "*"
        case Tag(name):
            return names.written(name)
        case Alias(name):
            return f"@{names.written(name)}"
        case User(user_id):
            return f"user:{user_id}"
        case Outcome(kind, notification_id):
            return f"{kind}({notification_id})"

"""One way to write an audience: equal canonical forms mean equal audiences, whatever the names in them stand for.

The rules, on the negation normal form (`!` only before operands):
1. chains hold no chain of their own kind and no repeats, and are sorted: operands, operands with `!`, chains;
2. `*` and nobody vanish or take over: ``a + * = *``, ``a & * = a``;
3. what an operand of a chain settles is settled in its whole chain, at any depth: ``a & (a + b) = a``, ``a + (b - a) = a + b``,
   ``a & !a`` is nobody, ``a + !a`` everyone;
4. of two chains side by side where one has all parts of the other, the longer goes: ``a & b + a & b & c = a & b``.

Written out, `-` stands where it needs no parentheses, which is at the outermost level; nobody is ``* - *``.
The converse is not promised (it is as hard as satisfiability): two forms may differ and mean the same audience.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

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
    leaves,
)

# Tuples, for they hash, compare and sort as they are, at C's speed:
# an operand is (0, negated, its number in the order of operands), a chain (1, "&" or "+", part, part, ...) with its parts sorted.
_Node: TypeAlias = tuple[Any, ...]

_OPERAND, _CHAIN, _CONSTANT = 0, 1, 2
_NOBODY: _Node = (_CONSTANT, False)
_EVERYONE: _Node = (_CONSTANT, True)
_DUAL = {"&": "+", "+": "&"}
_NEUTRAL = {"&": _EVERYONE, "+": _NOBODY}
_DOMINANT = {"&": _NOBODY, "+": _EVERYONE}


def canonical(expression: Expression) -> Expression:
    """The same audience, written the one way. Its columns are 0."""
    operands = sorted({replace(leaf, column=0) for leaf in leaves(expression)}, key=_place)
    numbers = {operand: number for number, operand in enumerate(operands)}
    return _Writer(operands).whole(_simplified(_normal(expression, False, numbers), {}))


def _place(leaf: Leaf) -> tuple[int, str, str]:
    """Tags come first, then aliases, users and outcomes, each by name."""
    match leaf:
        case Everyone():
            return 0, "", ""
        case Tag(name):
            return 1, name, ""
        case Alias(name):
            return 2, name, ""
        case User(user_id):
            return 3, user_id, ""
        case Outcome(kind, notification_id):
            return 4, notification_id, kind


def _normal(expression: Expression, negated: bool, numbers: Mapping[Leaf, int]) -> _Node:
    """Push `!` down to the operands, by De Morgan; a difference is an intersection with complements."""
    match expression:
        case Everyone():
            return _NOBODY if negated else _EVERYONE
        case Complement(operand):
            return _normal(operand, not negated, numbers)
        case Union(operands) | Intersection(operands):
            operator = "+" if isinstance(expression, Union) is not negated else "&"
            return (_CHAIN, operator, *(_normal(operand, negated, numbers) for operand in operands))
        case Difference((first, *others)):
            subtracted = (_normal(other, not negated, numbers) for other in others)
            return (_CHAIN, "+" if negated else "&", _normal(first, negated, numbers), *subtracted)
        case Tag() | Alias() | User() | Outcome():
            return (_OPERAND, negated, numbers[expression])
    raise TypeError(f"{expression!r} is no expression")


def _simplified(node: _Node, settled: dict[int, bool]) -> _Node:
    """A part by rules 1 to 4, where operands are settled: whether everyone of interest is in them, or nobody."""
    if node[0] == _CHAIN:
        return _Chain(node[1], settled).simplified(node[2:])
    if node[0] == _OPERAND and node[2] in settled:
        return _EVERYONE if settled[node[2]] is not node[1] else _NOBODY
    return node


class _Chain:
    """A chain as it becomes simple.

    Args:
        operator: "&" or "+".
        settled: what the chains around have settled; while this one is at work, also what it settles itself.
    """

    def __init__(self, operator: str, settled: dict[int, bool]) -> None:
        self._operator = operator
        self._settled = settled
        self._operands: list[_Node] = []
        self._chains: list[_Node | None] = []  # None where one was taken out, to be simplified again
        self._holding: defaultdict[int, list[int]] = defaultdict(list)  # places of chains, by the operands in them

    def simplified(self, parts: Iterable[_Node]) -> _Node:
        """What is left of it."""
        decided = self._take_all(parts)
        for _, _, number in self._operands:
            del self._settled[number]
        if decided:
            return _DOMINANT[self._operator]
        left = sorted([*self._operands, *_shortest(chain for chain in self._chains if chain)])
        if len(left) > 1:
            return (_CHAIN, self._operator, *left)
        return left[0] if left else _NEUTRAL[self._operator]

    def _take_all(self, parts: Iterable[_Node]) -> bool:
        """Take parts, those again in which something was settled since; true as soon as one decides the whole chain."""
        waiting = sorted(parts, reverse=True)
        while waiting:
            known = len(self._operands)
            if self._take(waiting.pop()):
                return True
            for _, _, number in self._operands[known:]:
                for place in self._holding.pop(number, ()):
                    chain, self._chains[place] = self._chains[place], None
                    waiting.extend([chain] if chain else [])
        return False

    def _take(self, part: _Node) -> bool:
        part = _simplified(part, self._settled)
        if part[0] == _CONSTANT:
            return part == _DOMINANT[self._operator]
        if part[0] == _OPERAND:
            self._operands.append(part)
            self._settled[part[2]] = (self._operator == "&") is not part[1]
        elif part[1] == self._operator:
            return any(self._take(inner) for inner in part[2:])
        else:
            for number in set(_numbers(part)):
                self._holding[number].append(len(self._chains))
            self._chains.append(part)
        return False


def _numbers(node: _Node) -> Iterator[int]:
    """Of the operands in a part."""
    if node[0] == _OPERAND:
        yield node[2]
    else:
        for part in node[2:]:
            yield from _numbers(part)


def _shortest(chains: Iterable[_Node]) -> list[_Node]:
    """Those chains that hold no other's parts, each once (rule 4)."""
    kept: list[_Node] = []
    by_part: dict[_Node, list[frozenset[_Node]]] = {}  # kept ones' parts, each under one of them
    for chain in sorted(chains, key=lambda chain: (len(chain), chain)):
        parts = frozenset(chain[2:])
        if not any(shorter <= parts for part in parts for shorter in by_part.get(part, ())):
            by_part.setdefault(chain[2], []).append(parts)
            kept.append(chain)
    return kept


class _Writer:
    def __init__(self, operands: Sequence[Leaf]) -> None:
        self._leaves = operands

    def whole(self, node: _Node) -> Expression:
        """The outermost level: nobody, and differences, are written here only."""
        if node[0] == _CONSTANT:
            return Everyone() if node == _EVERYONE else Difference((Everyone(), Everyone()))
        kept: list[_Node] = []
        subtracted: list[_Node] = []
        for part in node[2:] if node[:2] == (_CHAIN, "&") else ():
            (subtracted if part[:2] == (_OPERAND, True) else kept).append(part)
        if not kept or not subtracted:
            return self._part(node)
        first = self._part(kept[0] if len(kept) == 1 else (_CHAIN, "&", *kept))
        return Difference((first, *(self._leaves[number] for _, _, number in subtracted)))

    def _part(self, node: _Node) -> Expression:
        if node[0] == _OPERAND:
            leaf = self._leaves[node[2]]
            return Complement(leaf) if node[1] else leaf
        parts = tuple(self._part(part) for part in node[2:])
        return Union(parts) if node[1] == "+" else Intersection(parts)

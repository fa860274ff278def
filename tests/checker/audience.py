"""Tag expressions as the checker makes and understands them: trees over Python sets, written with all their parentheses.

On purpose it shares nothing with the implementation that it judges.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

Tree = Sequence[Any]
"""("tag", name), ("user", id), ("!", tree), or (operator, left, right) with one of + - &. Lists when read back from a file."""


def draw(rng: random.Random, tags: Sequence[str], users: Sequence[str], depth: int = 3) -> Tree:
    """A random tree."""
    kind = rng.choice("+-&!tttu") if depth else rng.choice("tttu")
    if kind == "t":
        return ("tag", rng.choice(tags))
    if kind == "u":
        return ("user", rng.choice(users))
    if kind == "!":
        return ("!", draw(rng, tags, users, depth - 1))
    return (kind, draw(rng, tags, users, depth - 1), draw(rng, tags, users, depth - 1))


def text(tree: Tree) -> str:
    """As the service reads it."""
    kind, *operands = tree
    if kind == "tag":
        return str(operands[0])
    if kind == "user":
        return f"user:{operands[0]}"
    if kind == "!":
        return f"!({text(operands[0])})"
    return f"({text(operands[0])} ) {kind} ({text(operands[1])} )"


def members(tree: Tree, tags: Mapping[str, set[str]], everybody: set[str]) -> set[str]:
    """Whom it means, where `tags` says who has which."""
    kind, *operands = tree
    if kind == "tag":
        return set(tags.get(operands[0], set()))
    if kind == "user":
        return {operands[0]}
    if kind == "!":
        return everybody - members(operands[0], tags, everybody)
    left, right = (members(one, tags, everybody) for one in operands)
    return {"+": left | right, "-": left - right, "&": left & right}[kind]

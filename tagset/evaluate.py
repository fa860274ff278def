"""Who is meant by an expression, and how many by each of its parts."""

from collections.abc import Mapping
from dataclasses import dataclass

from pyroaring import AbstractBitMap, BitMap

from tagset.algebra import Bitmaps, Fold, Surroundings, own
from tagset.expression import Expression, operands
from tagset.outline import Part, outline
from tagset.snapshot import Snapshot


def evaluate(
    expression: Expression,
    snapshot: Snapshot,
    highest_ordinal: int,
    users: Mapping[str, int],
    outcomes: Mapping[tuple[str, str], AbstractBitMap],
) -> BitMap:
    """Everybody meant.

    Args:
        highest_ordinal: all clients known are 1 to this, and to the highest in any tag, outcome or user given.
        users: user id -> ordinal, of all users that it names (`resolve.users`).
        outcomes: (kind, notification id) -> ordinals, of all outcomes that it names (`resolve.outcomes`).

    Returns:
        Ordinals, in a bitmap that is the caller's own.

    Raises:
        UnknownNameError: it names what isn't there, or isn't given.
        CycleError, TooLargeError: its combinations contain themselves, nest too deep, or lead to too much.
    """
    surroundings = Surroundings.of(snapshot, highest_ordinal, users, outcomes)
    found = Fold(snapshot, Bitmaps(surroundings)).value(expression)
    return found if isinstance(found, BitMap) and operands(expression) else own(found)


@dataclass(frozen=True, slots=True)
class CountedNode:
    """A part of an expression, with how many it means. See `outline.Part` for text, kind and column.

    Attributes:
        count: how many clients.
        operands: what is beneath; left out where a combination was shown before, or the tree is deep or large.
    """

    text: str
    kind: str
    count: int
    column: int
    operands: tuple["CountedNode", ...]


def count_tree(
    expression: Expression,
    snapshot: Snapshot,
    highest_ordinal: int,
    users: Mapping[str, int],
    outcomes: Mapping[tuple[str, str], AbstractBitMap],
) -> CountedNode:
    """The tree as written, with the count of every part. Takes and raises what `evaluate` does."""
    counts: dict[int, int] = {}  # by the identity of the part: it is alive as long as the expression and the snapshot are

    def note(part: Expression, found: AbstractBitMap) -> None:
        counts[id(part)] = len(found)

    surroundings = Surroundings.of(snapshot, highest_ordinal, users, outcomes)
    Fold(snapshot, Bitmaps(surroundings), note).value(expression)
    return _counted(outline(expression, snapshot), counts)


def _counted(part: Part, counts: Mapping[int, int]) -> CountedNode:
    inner = tuple(_counted(operand, counts) for operand in part.operands)
    return CountedNode(part.text, part.kind, counts[id(part.source)], part.column, inner)

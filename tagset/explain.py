"""Whether one client is meant by an expression, and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyroaring import AbstractBitMap

from tagset.algebra import Fold, Membership, Surroundings
from tagset.expression import Expression
from tagset.outline import Part, outline
from tagset.snapshot import Snapshot

_REASONS = 5  # parts named in words; the tree has them all
_VERBS = {"tag": ("have", "don't have"), "user": ("are", "aren't")}  # of the client, who is in it or isn't
_OTHERWISE = ("are in", "aren't in")


@dataclass(frozen=True, slots=True)
class ExplainedNode:
    """A part of an expression, with whether the client is in it. See `outline.Part` for text and kind.

    Attributes:
        included: whether they are in it.
        operands: what is beneath; left out where a combination was shown before, or the tree is deep or large.
    """

    text: str
    kind: str
    included: bool
    operands: tuple["ExplainedNode", ...]


def explain(
    ordinal: int,
    expression: Expression,
    snapshot: Snapshot,
    highest_ordinal: int,
    users: Mapping[str, int],
    outcomes: Mapping[tuple[str, str], AbstractBitMap],
) -> ExplainedNode:
    """The tree as written, with whether the client of this ordinal is in each part. Otherwise as `evaluate`."""
    known: dict[int, bool] = {}  # by the identity of the part: it is alive as long as the expression and the snapshot are

    def note(part: Expression, included: bool) -> None:
        known[id(part)] = included

    surroundings = Surroundings.of(snapshot, highest_ordinal, users, outcomes)
    Fold(snapshot, Membership(ordinal, surroundings), note).value(expression)
    return _explained(outline(expression, snapshot), known)


def _explained(part: Part, known: Mapping[int, bool]) -> ExplainedNode:
    inner = tuple(_explained(operand, known) for operand in part.operands)
    return ExplainedNode(part.text, part.kind, known[id(part.source)], inner)


def because(node: ExplainedNode) -> str:
    """In words: ``in, because they have "gold 2024" and don't have banned``. Names the parts that decide, and no others."""
    reasons = list(dict.fromkeys(_reason(part) for part in _deciding(node)))
    shown = reasons[:_REASONS]
    if len(reasons) > _REASONS:
        shown.append(f"{len(reasons) - _REASONS} more")
    *most, last = shown
    return f"{'in' if node.included else 'out'}, because they {', '.join(most)}{' and ' if most else ''}{last}"


def _deciding(node: ExplainedNode) -> list[ExplainedNode]:
    """The leaves that make the node what it is: of one operand where one is enough (the one with the least to say), else of all."""
    if not node.operands:
        return [node]
    first, *others = node.operands
    match node.kind, node.included:
        case ("union", True):
            return _shortest(operand for operand in node.operands if operand.included)
        case ("intersection", False):
            return _shortest(operand for operand in node.operands if not operand.included)
        case ("difference", False):
            return _shortest(operand for operand in node.operands if operand.included is not (operand is first))
        case ("complement", False) if not first.included:
            return [ExplainedNode("*", "everyone", False, ())]
    return [leaf for operand in (first, *others) for leaf in _deciding(operand)]


def _shortest(nodes: Iterator[ExplainedNode]) -> list[ExplainedNode]:
    return min((_deciding(node) for node in nodes), key=len)


def _reason(leaf: ExplainedNode) -> str:
    if leaf.kind == "everyone":
        return "are a known client" if leaf.included else "aren't a known client"
    says = _VERBS.get(leaf.kind, _OTHERWISE)
    return f"{says[not leaf.included]} {leaf.text}"

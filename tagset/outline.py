"""An expression as a tree to be shown: as written, with what aliases and combinations stand for beneath them.

Rules: what a combination stands for is shown where it is first named, so that nothing can blow up, and only while the tree is
small; beneath a certain depth nothing is shown. A part that shows nothing beneath is complete all the same: its own value is known.
"""

from dataclasses import dataclass

from tagset import resolve
from tagset.entries import TagEntry
from tagset.expression import Alias, Complement, Difference, Everyone, Expression, Intersection, Outcome, Tag, Union, User, operands
from tagset.names import written
from tagset.snapshot import Snapshot
from tagset.text import to_text

MAX_DEPTH = 64  # levels shown; protobuf's readers refuse messages nested more than 100 deep
MAX_PARTS = 4_000  # parts shown, combinations included; the expression as written is always within
TEXT_LENGTH = 1_000  # characters shown of a part's text

_KINDS = {
    Union: "union",
    Difference: "difference",
    Intersection: "intersection",
    Complement: "complement",
    Everyone: "everyone",
    User: "user",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the tree.

    Attributes:
        text: as written; cut, with "…", when long.
        kind: "union", "difference", "intersection", "complement", "everyone", "tag", "alias", "combination", "user", "sent",
            "delivered" or "pending".
        column: where it begins in the text, from 1; 0 beneath an alias or combination.
        source: the part of the expression, or of a combination's, whose value this has.
        operands: what is beneath.
    """

    text: str
    kind: str
    column: int
    source: Expression
    operands: tuple["Part", ...] = ()


def outline(expression: Expression, snapshot: Snapshot) -> Part:
    """The tree of an expression whose names are all there."""
    return _Outline(snapshot).part(expression, False, 1)


class _Outline:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._shown: set[str] = set()
        self._parts = 0

    def part(self, expression: Expression, hidden: bool, level: int) -> Part:
        """A part and all that is shown beneath it.

        Args:
            hidden: whether it isn't in the text itself, but in a combination.
            level: how deep, from 1.
        """
        self._parts += 1
        column = 0 if hidden else expression.column
        if isinstance(expression, Tag):
            return self._tag(expression, expression, column, level)
        if isinstance(expression, Alias):
            target = Tag(self._snapshot.aliases[expression.name])
            beneath = (self._tag(target, expression, 0, level + 1),) if level < MAX_DEPTH else ()
            return Part(_cut(to_text(expression)), "alias", column, expression, beneath)
        kind = expression.kind if isinstance(expression, Outcome) else _KINDS[type(expression)]
        inner = operands(expression) if level < MAX_DEPTH else ()
        parts = tuple(self.part(operand, hidden, level + 1) for operand in inner)
        return Part(_cut(to_text(expression)), kind, column, expression, parts)

    def _tag(self, tag: Tag, source: Expression, column: int, level: int) -> Part:
        """A tag or combination, named in the text or by an alias."""
        entry = resolve.stands_for(tag, self._snapshot)
        if isinstance(entry, TagEntry):
            return Part(written(tag.name), "tag", column, source)
        beneath: tuple[Part, ...] = ()
        if level < MAX_DEPTH and self._parts < MAX_PARTS and tag.name not in self._shown:
            self._shown.add(tag.name)
            beneath = (self.part(entry.expression, True, level + 1),)
        return Part(written(tag.name), "combination", column, source, beneath)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH else f"{text[: TEXT_LENGTH - 1]}…"

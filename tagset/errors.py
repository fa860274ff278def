"""What can be wrong with an expression, what it names, or a record. `str()` of each is the sentence for people.

They carry no transport's code: whoever serves callers maps each type to one.
"""

from collections.abc import Sequence


class ExpressionError(Exception):
    """The text is no expression.

    Attributes:
        text: what was expected and what was found, without the place.
        column: where, in characters, from 1.
    """

    def __init__(self, text: str, column: int) -> None:
        super().__init__(f"column {column}: {text}")
        self.text = text
        self.column = column


class TooLargeError(Exception):
    """Larger than allowed in text, operands, depth, or in what it reaches through combinations.

    Attributes:
        text: which limit, and what it is.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class UnknownNameError(Exception):
    """It names something that isn't there.

    Attributes:
        name: as in the expression; an alias without its @.
        kind: "tag or combination", "alias", "user" or "notification".
        column: where the expression names it, from 1; 0 when a combination or an alias does.
        within: that combination, or alias with its @; empty when the expression itself names it.
    """

    def __init__(self, name: str, kind: str, column: int = 0, within: str = "") -> None:
        place = f"in {within}: " if within else f"column {column}: " if column else ""
        super().__init__(f"{place}there is no {kind} {name!r}")
        self.name = name
        self.kind = kind
        self.column = column
        self.within = within


class CycleError(Exception):
    """A combination would contain itself.

    Attributes:
        path: the way round, beginning and ending with the same name; aliases with their @.
    """

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(f"{path[0]!r} would contain itself: {' -> '.join(path)}")
        self.path = tuple(path)


class CorruptRecordError(Exception):
    """Bytes of the log or a checkpoint that are no bitmap; they were damaged on their way, or never valid."""

"""What a snapshot holds of one tag, and of one combination. Nothing of it ever changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pyroaring import BitMap, FrozenBitMap

from tagset.errors import CorruptRecordError, ExpressionError, TooLargeError
from tagset.expression import Expression
from tagset.parser import MAX_BYTES, parse
from tidings.tag.v1.tag_pb2 import Combination, Tag

NO_ONE = FrozenBitMap()
_CANONICAL_BYTES = 2 * MAX_BYTES  # a canonical form has some blanks and `!` more than what the caller wrote


@dataclass(frozen=True, slots=True)
class TagEntry:
    """A tag and who has it.

    Attributes:
        name: its name.
        description: for people.
        attributes: the business's own; read only.
        revision: version in which its description or attributes last changed.
        create_time: microseconds since 1970.
        members: ordinals of the clients who have it.
    """

    name: str
    description: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    revision: int = 0
    create_time: int = 0
    members: FrozenBitMap = NO_ONE


@dataclass(frozen=True, slots=True)
class CombinationEntry:
    """A saved expression.

    Attributes:
        name: its name.
        text: the expression, as saved.
        description: for people.
        revision: version in which it last changed.
    """

    name: str
    text: str
    description: str = ""
    revision: int = 0
    _read: Expression | ExpressionError | TooLargeError = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_read", _read(self.text))

    @property
    def expression(self) -> Expression:
        """The expression, read.

        Raises:
            ExpressionError, TooLargeError: it can't be read, which would be so from the beginning: a faulty record must not keep
                the log from being followed, so the fault is told where the combination is used.
        """
        if isinstance(self._read, ExpressionError | TooLargeError):
            raise self._read.with_traceback(None)  # or it would keep those of all earlier times
        return self._read


def _read(text: str) -> Expression | ExpressionError | TooLargeError:
    try:
        return parse(text, _CANONICAL_BYTES)
    except (ExpressionError, TooLargeError) as error:
        return error


def tag_entry(tag: Tag, revision: int, members: FrozenBitMap = NO_ONE) -> TagEntry:
    """A tag as it is to be held."""
    attributes = MappingProxyType(dict(tag.attributes))
    return TagEntry(tag.name, tag.description, attributes, revision, tag.create_time.ToMicroseconds(), members)


def combination_entry(combination: Combination, revision: int) -> CombinationEntry:
    """A combination as it is to be held."""
    return CombinationEntry(combination.name, combination.expression, combination.description, revision)


def ordinals(data: bytes) -> FrozenBitMap:
    """The bitmap of a record; empty bytes mean nobody. 0 is nobody's ordinal, and is left out.

    Raises:
        CorruptRecordError: it is no roaring bitmap in the portable serialisation.
    """
    if not data:
        return NO_ONE
    try:
        found = FrozenBitMap.deserialize(data)
    except (ValueError, IndexError) as error:
        raise CorruptRecordError(f"{len(data):,} bytes that should be a bitmap are none: {error}") from error
    return found - BitMap([0]) if 0 in found else found

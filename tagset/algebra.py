"""Works out an expression from the leaves up: as bitmaps of everybody, or for one client only.

Rules: every combination is worked out once, before whatever names it, so combinations may share others without bound and nothing
here recurses deeper than one expression. A bitmap that somebody else holds is never changed; every operator's result is a new one,
and only that is changed in place while it is being made.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from pyroaring import AbstractBitMap, BitMap

from tagset import resolve
from tagset.entries import TagEntry
from tagset.errors import UnknownNameError
from tagset.expression import Alias, Complement, Difference, Everyone, Expression, Intersection, Outcome, Tag, Union, User
from tagset.snapshot import Snapshot

_AT_ONCE = 8  # bitmaps united in one go: the library does several at once faster, and only so many intermediate ones are held

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the meaning of an expression depends on besides the snapshot.

    Attributes:
        highest_ordinal: all clients known are 1 to this.
        users: user id -> ordinal.
        outcomes: (kind, notification id) -> ordinals.
    """

    highest_ordinal: int
    users: Mapping[str, int]
    outcomes: Mapping[tuple[str, str], AbstractBitMap]

    @classmethod
    def of(
        cls, snapshot: Snapshot, highest_ordinal: int, users: Mapping[str, int], outcomes: Mapping[tuple[str, str], AbstractBitMap]
    ) -> "Surroundings":
        """Whoever is named anywhere is known too, so that no complement can miss them."""
        named = [highest_ordinal, snapshot.highest_ordinal, *users.values()]
        named += [found.max() for found in outcomes.values() if found]
        return cls(max(named), users, outcomes)

    def ordinal(self, user: User) -> int:
        """A user's ordinal; UnknownNameError when it isn't given."""
        if user.user_id not in self.users:
            raise UnknownNameError(user.user_id, "user", user.column)
        return self.users[user.user_id]

    def recipients(self, outcome: Outcome) -> AbstractBitMap:
        """A notification's recipients; UnknownNameError when they aren't given."""
        key = (outcome.kind, outcome.notification_id)
        if key not in self.outcomes:
            raise UnknownNameError(outcome.notification_id, "notification", outcome.column)
        return self.outcomes[key]


class Algebra(Protocol[T]):
    """What operands mean, and what operators make of them."""

    def everyone(self) -> T:
        """All clients known."""

    def tag(self, entry: TagEntry) -> T:
        """A tag."""

    def user(self, user: User) -> T:
        """One user."""

    def outcome(self, outcome: Outcome) -> T:
        """Recipients of a notification."""

    def complement(self, value: T) -> T:
        """All but these."""

    def union(self, values: Iterator[T]) -> T:
        """Any of these. It takes all values, as do the others, for somebody may be counting them."""

    def intersection(self, values: Iterator[T]) -> T:
        """All of these."""

    def difference(self, values: Iterator[T]) -> T:
        """The first without the others."""


class Bitmaps:
    """Everybody, as bitmaps of ordinals."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._end = surroundings.highest_ordinal + 1

    def everyone(self) -> AbstractBitMap:
        """A few runs, however many there are."""
        return BitMap(range(1, self._end))

    def tag(self, entry: TagEntry) -> AbstractBitMap:
        """The snapshot's own."""
        return entry.members

    def user(self, user: User) -> AbstractBitMap:
        """One ordinal."""
        return BitMap([self._surroundings.ordinal(user)])

    def outcome(self, outcome: Outcome) -> AbstractBitMap:
        """The caller's own."""
        return self._surroundings.recipients(outcome)

    def complement(self, value: AbstractBitMap) -> AbstractBitMap:
        """Every value is within 1 to the highest ordinal, so to flip that range is enough."""
        return value.flip(1, self._end)

    def union(self, values: Iterator[AbstractBitMap]) -> AbstractBitMap:
        """Several at once."""
        result = BitMap()
        while several := list(islice(values, _AT_ONCE)):
            result = result.union(*several)
        return result

    def intersection(self, values: Iterator[AbstractBitMap]) -> AbstractBitMap:
        """One after the other."""
        result = own(next(values))
        for value in values:
            result &= value
        return result

    def difference(self, values: Iterator[AbstractBitMap]) -> AbstractBitMap:
        """One after the other."""
        result = own(next(values))
        for value in values:
            result -= value
        return result


class Membership:
    """One client: in, or not.

    Args:
        ordinal: theirs.
    """

    def __init__(self, ordinal: int, surroundings: Surroundings) -> None:
        self._ordinal = ordinal
        self._surroundings = surroundings

    def everyone(self) -> bool:
        """Whether they are known."""
        return 1 <= self._ordinal <= self._surroundings.highest_ordinal

    def tag(self, entry: TagEntry) -> bool:
        """Whether they have it."""
        return self._ordinal in entry.members

    def user(self, user: User) -> bool:
        """Whether it is them."""
        return self._ordinal == self._surroundings.ordinal(user)

    def outcome(self, outcome: Outcome) -> bool:
        """Whether they are among them."""
        return self._ordinal in self._surroundings.recipients(outcome)

    def complement(self, value: bool) -> bool:
        """Known, and not among them."""
        return self.everyone() and not value

    def union(self, values: Iterator[bool]) -> bool:
        """In any."""
        return any(list(values))

    def intersection(self, values: Iterator[bool]) -> bool:
        """In all."""
        return all(list(values))

    def difference(self, values: Iterator[bool]) -> bool:
        """In the first, and in no other."""
        first, *others = values
        return first and not any(others)


def own(bitmap: AbstractBitMap) -> BitMap:
    """A copy, to be changed by whoever asked for it."""
    return BitMap(bitmap, optimize=False)  # to look for runs would take ten times as long as to copy


class Fold(Generic[T]):
    """Works out expressions over one snapshot.

    Args:
        algebra: in which sense.
        noted: called with every part that is worked out and its value; parts of combinations included.
    """

    def __init__(self, snapshot: Snapshot, algebra: Algebra[T], noted: Callable[[Expression, T], None] | None = None) -> None:
        self._snapshot = snapshot
        self._algebra = algebra
        self._noted = noted
        self._combinations: dict[str, T] = {}

    def value(self, expression: Expression) -> T:
        """What an expression comes to.

        Raises:
            UnknownNameError: it names what isn't there.
            CycleError, TooLargeError: its combinations contain themselves, nest too deep, or lead to too much.
        """
        for combination in resolve.combinations(expression, self._snapshot):
            self._combinations[combination.name] = self._part(combination.expression)
        return self._part(expression)

    def _part(self, expression: Expression) -> T:
        value = self._worked_out(expression)
        if self._noted is not None:
            self._noted(expression, value)
        return value

    def _worked_out(self, expression: Expression) -> T:
        match expression:
            case Union(operands):
                return self._algebra.union(self._parts(operands))
            case Intersection(operands):
                return self._algebra.intersection(self._parts(operands))
            case Difference(operands):
                return self._algebra.difference(self._parts(operands))
            case Complement(operand):
                return self._algebra.complement(self._part(operand))
            case Tag() | Alias():
                return self._named(expression)
            case User():
                return self._algebra.user(expression)
            case Outcome():
                return self._algebra.outcome(expression)
            case Everyone():
                return self._algebra.everyone()

    def _parts(self, operands: Iterable[Expression]) -> Iterator[T]:
        return map(self._part, operands)

    def _named(self, named: Tag | Alias) -> T:
        entry = resolve.stands_for(named, self._snapshot)
        return self._algebra.tag(entry) if isinstance(entry, TagEntry) else self._combinations[entry.name]

"""What an expression names, followed through aliases and combinations as a snapshot has them.

Rules: what is named must be there. How deep combinations nest and how much they lead to is bounded, so that evaluation is. Each is
followed once. No recursion.
"""

from collections.abc import Iterator
from itertools import chain
from typing import TypeAlias

from tagset.entries import CombinationEntry, TagEntry
from tagset.errors import CycleError, TooLargeError, UnknownNameError
from tagset.expression import Alias, Expression, Leaf, Outcome, OutcomeKind, Tag, User, leaves
from tagset.snapshot import Snapshot

MAX_NESTING = 64  # combinations within combinations
MAX_REACHED = 100_000  # operands in an expression and all the combinations it leads to

_Named: TypeAlias = Tag | Alias


def names(expression: Expression, snapshot: Snapshot) -> list[str]:
    """Every tag, alias (with its @) and combination it names, also through combinations and aliases; sorted.

    Raises:
        UnknownNameError: one isn't there.
        CycleError: a combination it names contains itself.
        TooLargeError: combinations nest too deep, or lead to too much.
    """
    found = set()
    for leaf in _all_leaves(expression, snapshot):
        if isinstance(leaf, _Named):
            found.add(label(leaf))
        if isinstance(leaf, Alias):
            found.add(snapshot.aliases[leaf.name])
    return sorted(found)


def users(expression: Expression, snapshot: Snapshot) -> set[str]:
    """The ids of all users it names, also through combinations. Raises as `names`."""
    return {leaf.user_id for leaf in _all_leaves(expression, snapshot) if isinstance(leaf, User)}


def outcomes(expression: Expression, snapshot: Snapshot) -> set[tuple[OutcomeKind, str]]:
    """(kind, notification id) of all outcomes it names, also through combinations. Raises as `names`."""
    found = _all_leaves(expression, snapshot)
    return {(leaf.kind, leaf.notification_id) for leaf in found if isinstance(leaf, Outcome)}


def check_cycle(name: str, expression: Expression, snapshot: Snapshot) -> None:
    """Make sure that a combination of this name could stand for this expression. What isn't there leads nowhere.

    Raises:
        CycleError: it would contain itself.
        TooLargeError: its combinations lead to too much.
    """
    _check_cycle(Tag(name), expression, snapshot)


def check_alias_cycle(alias: str, target: str, snapshot: Snapshot) -> None:
    """Make sure that an alias (named without its @) could stand for a tag or combination. Raises as `check_cycle`."""
    _check_cycle(Alias(alias), Tag(target), snapshot)


def stands_for(named: _Named, snapshot: Snapshot, within: str = "") -> TagEntry | CombinationEntry:
    """The tag or combination that a name or an alias leads to.

    Args:
        within: the combination or alias that names it; empty for the expression itself.

    Raises:
        UnknownNameError: there is none.
    """
    column = 0 if within else named.column
    if isinstance(named, Alias):
        if named.name not in snapshot.aliases:
            raise UnknownNameError(named.name, "alias", column, within)
        return stands_for(Tag(snapshot.aliases[named.name]), snapshot, label(named))
    entry = snapshot.tags.get(named.name) or snapshot.combinations.get(named.name)
    if entry is None:
        raise UnknownNameError(named.name, "tag or combination", column, within)
    return entry


def label(named: _Named) -> str:
    """The name; an alias with its @."""
    return f"@{named.name}" if isinstance(named, Alias) else named.name


def combinations(expression: Expression, snapshot: Snapshot) -> list[CombinationEntry]:
    """Every combination it leads to, each once, and after all those that it leads to itself. Raises as `names`."""
    return _Walk(snapshot).through(expression)


def _all_leaves(expression: Expression, snapshot: Snapshot) -> Iterator[Leaf]:
    found = combinations(expression, snapshot)  # everything is there, before any leaf is given
    return chain(leaves(expression), *(leaves(combination.expression) for combination in found))


class _Step:
    """An expression on the way down: what it names is being followed.

    Attributes:
        combination: whose expression it is; None for the first.
        ahead: combinations it names that are still to be followed.
        nesting: how many combinations are within each other below, as far as is known.
    """

    __slots__ = ("ahead", "combination", "nesting")

    def __init__(self, combination: CombinationEntry | None, ahead: list[CombinationEntry]) -> None:
        self.combination = combination
        self.ahead = ahead
        self.nesting = 0


class _Walk:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._reached = 0
        self._steps: list[_Step] = []
        self._nesting: dict[str, int] = {}  # of those that have been followed

    def through(self, expression: Expression) -> list[CombinationEntry]:
        found: list[CombinationEntry] = []
        self._enter(None, expression)
        while True:
            step = self._steps[-1]
            if step.ahead:
                self._follow(step.ahead.pop())
                continue
            self._steps.pop()
            if step.combination is None:
                return found
            self._nesting[step.combination.name] = step.nesting
            self._deepen(step.nesting)
            found.append(step.combination)

    def _follow(self, combination: CombinationEntry) -> None:
        if combination.name in self._nesting:
            self._deepen(self._nesting[combination.name])
            return
        path = [step.combination.name for step in self._steps if step.combination]
        if combination.name in path:
            raise CycleError([*path[path.index(combination.name) :], combination.name])
        self._enter(combination, combination.expression)

    def _enter(self, combination: CombinationEntry | None, expression: Expression) -> None:
        if len(self._steps) > MAX_NESTING:
            raise _nested_too_deep()
        within = combination.name if combination else ""
        named = []
        for leaf in leaves(expression):
            self._reached += 1
            if self._reached > MAX_REACHED:
                raise _reaches_too_much()
            entry = stands_for(leaf, self._snapshot, within) if isinstance(leaf, _Named) else None
            if isinstance(entry, CombinationEntry):
                named.append(entry)
        self._steps.append(_Step(combination, named))

    def _deepen(self, nesting_below: int) -> None:
        """The innermost step names a combination with so many within each other below."""
        step = self._steps[-1]
        step.nesting = max(step.nesting, nesting_below + 1)
        if step.nesting > MAX_NESTING:
            raise _nested_too_deep()


def _reaches_too_much() -> TooLargeError:
    return TooLargeError(f"its combinations lead to more than {MAX_REACHED:,} operands")


def _nested_too_deep() -> TooLargeError:
    return TooLargeError(f"its combinations are nested more than {MAX_NESTING} deep")


def _check_cycle(goal: _Named, expression: Expression, snapshot: Snapshot) -> None:
    waiting: list[tuple[_Named, tuple[str, ...]]] = []
    ahead, reached = _named(expression), 0
    path: tuple[str, ...] = (label(goal),)
    seen: set[_Named] = set()
    while True:
        for following in ahead:
            reached += 1
            if reached > MAX_REACHED:
                raise _reaches_too_much()
            if following == goal:
                raise CycleError((*path, label(following)))
            if following not in seen:
                seen.add(following)
                waiting.append((following, path))
        if not waiting:
            return
        named, before = waiting.pop()
        ahead, path = _leads_to(named, snapshot), (*before, label(named))


def _named(expression: Expression) -> Iterator[_Named]:
    return (leaf for leaf in leaves(expression) if isinstance(leaf, _Named))


def _leads_to(named: _Named, snapshot: Snapshot) -> Iterator[_Named]:
    if isinstance(named, Alias):
        return iter([Tag(snapshot.aliases[named.name])] if named.name in snapshot.aliases else [])
    combination = snapshot.combinations.get(named.name)
    return _named(combination.expression) if combination and named.name not in snapshot.tags else iter(())

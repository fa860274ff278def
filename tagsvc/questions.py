"""An expression asked against one snapshot, with what it needs from elsewhere: ordinals of users, recipients of notifications."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial

from pyroaring import BitMap

from mesh import errors
from tagset import resolve
from tagset.algebra import Surroundings
from tagset.errors import UnknownNameError
from tagset.expression import Expression, Outcome, User, leaves
from tagset.snapshot import Snapshot
from tagsvc import expressions
from tagsvc.journal import Journal
from tagsvc.ordinals import Ordinals
from tagsvc.ports import Notifications
from tagsvc.workbench import Workbench, is_quick
from tidings.common.v1 import error_pb2
from tidings.common.v1 import notification_pb2 as common

MAX_NOTIFICATIONS = 100  # whose recipients one expression may name, as the contract says: each may be megabytes
_READS = 4  # at once, of one question
_OUTCOMES: Mapping[str, common.Outcome.ValueType] = {
    "sent": common.OUTCOME_SENT,
    "delivered": common.OUTCOME_DELIVERED,
    "pending": common.OUTCOME_PENDING,
}
_Outcomes = Mapping[tuple[str, str], BitMap]


@dataclass(frozen=True, slots=True)
class Question:
    """An expression and what it is worked out against.

    Attributes:
        text: as asked.
        expression: the same, read.
        snapshot: the tags.
        known: highest user ordinal: all clients known are 1 to this.
        users: user id -> ordinal, of those it names.
        outcomes: (kind, notification id) -> recipients, of those it names.
    """

    text: str
    expression: Expression
    snapshot: Snapshot
    known: int
    users: Mapping[str, int]
    outcomes: _Outcomes

    @property
    def quick(self) -> bool:
        """Whether it is worked out in a moment."""
        return is_quick(self.expression, self.snapshot, self.known)


class Questions:
    """Makes questions of what callers ask."""

    def __init__(self, journal: Journal, ordinals: Ordinals, notifications: Notifications, workbench: Workbench) -> None:
        self._journal = journal
        self._ordinals = ordinals
        self._notifications = notifications
        self._workbench = workbench

    async def ask(self, text: str, version: int, known: int = 0) -> Question:
        """Read an expression, and get what it needs.

        Args:
            version: the snapshot's; 0 for the newest.
            known: highest user ordinal to go by; 0 for the one now.

        Raises:
            TidingsError: whatever is wrong with it, see ValidateExpression; SNAPSHOT_GONE; UNAVAILABLE.
        """
        try:
            return await self._ask(text, version, known)
        except errors.TidingsError as error:
            # Another tagsvc may have made the tag a moment ago: that there is none is said only when the log has none.
            if version or error.code != error_pb2.ERROR_CODE_UNKNOWN_TAG or not await self._journal.catch_up():
                raise
        return await self._ask(text, version, known)

    async def _ask(self, text: str, version: int, known: int) -> Question:
        expression, snapshot = expressions.read(text), self._journal.at(version)
        with expressions.named():
            needs = partial(_needs, expression, snapshot)
            user_ids, outcomes = await self._workbench.do(needs, quick=is_quick(expression, snapshot, 0))
        users = await self._users(user_ids, expression)
        found = await self._recipients(outcomes)
        surroundings = Surroundings.of(snapshot, known or self._journal.known, users, found)
        return Question(text, expression, snapshot, surroundings.highest_ordinal, users, found)

    async def check(self, expression: Expression) -> None:
        """Make sure that an expression doesn't lead to too much, and that users and notifications which it names itself exist.

        Raises:
            TidingsError: EXPRESSION_TOO_LARGE, UNKNOWN_USER, NOTIFICATION_NOT_FOUND, REPORT_GONE, UNAVAILABLE.
        """
        snapshot = self._journal.newest()
        with expressions.named(), suppress(UnknownNameError):  # tags are looked for when it is saved, after those saved before
            walk = partial(resolve.combinations, expression, snapshot)
            await self._workbench.do(walk, quick=is_quick(expression, snapshot, 0))
        await self._users({leaf.user_id for leaf in leaves(expression) if isinstance(leaf, User)}, expression)
        outcomes = {(leaf.kind, leaf.notification_id) for leaf in leaves(expression) if isinstance(leaf, Outcome)}
        await self._recipients(outcomes)

    async def _users(self, user_ids: Iterable[str], expression: Expression) -> dict[str, int]:
        wanted = sorted(user_ids)
        found = await self._ordinals.find(wanted)
        for missing in (user_id for user_id in wanted if user_id not in found):
            columns = [leaf.column for leaf in leaves(expression) if isinstance(leaf, User) and leaf.user_id == missing]
            raise errors.unknown_user(missing, column=min(columns, default=0))
        return found

    async def _recipients(self, outcomes: Iterable[tuple[str, str]]) -> _Outcomes:
        kinds: dict[str, list[str]] = defaultdict(list)
        for kind, notification_id in sorted(outcomes):
            kinds[notification_id].append(kind)
        if len(kinds) > MAX_NOTIFICATIONS:
            raise errors.expression_too_large(f"it names the recipients of more than {MAX_NOTIFICATIONS} notifications")
        turn, found = asyncio.Semaphore(_READS), dict[tuple[str, str], BitMap]()

        async def read(notification_id: str) -> None:
            async with turn:
                found.update(await self._read(notification_id, kinds[notification_id]))

        await asyncio.gather(*map(read, kinds))
        return found

    async def _read(self, notification_id: str, kinds: list[str]) -> dict[tuple[str, str], BitMap]:
        """The recipients of one notification, as stored now."""
        found = [BitMap() for _ in kinds]
        try:
            async with aclosing(self._notifications.recipients(notification_id, [_OUTCOMES[kind] for kind in kinds])) as chunks:
                async for chunk in chunks:
                    for bitmap, data in zip(found, chunk, strict=True):
                        bitmap.update(BitMap.deserialize(data))
        except errors.TidingsError as error:
            error.field = error.field and "expression"  # it names the notification
            raise
        return {(kind, notification_id): bitmap for kind, bitmap in zip(kinds, found, strict=True)}


def _needs(expression: Expression, snapshot: Snapshot) -> tuple[set[str], set[tuple[str, str]]]:
    """Ids of the users, and the outcomes, that it leads to."""
    return resolve.users(expression, snapshot), set[tuple[str, str]](resolve.outcomes(expression, snapshot))

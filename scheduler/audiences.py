"""Whom an audience means: ids and tag expressions become bitmaps of ordinals.

(recipient_ids + expression) - (excluded_ids + excluded_expression), both expressions in one snapshot of the tags.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from pyroaring import BitMap

from mesh import errors
from mesh.patience import delays
from scheduler.fields import expression_at
from scheduler.ports import Expansion, Tags, Users
from tidings.common.v1 import error_pb2
from tidings.common.v1.notification_pb2 import EXPAND_AT_UPLOAD, Audience, NotificationSpec

MAX_NAMES = 1_000  # what the store keeps for one notification
_ATTEMPTS = 5  # another instance of the tags' service may be a moment behind the first


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many an audience has, of how many, in which snapshot of the tags (0 without an expression)."""

    count: int
    known_clients: int
    version: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """The users that an audience names by id, as ordinals."""

    recipients: BitMap
    excluded: BitMap


class Audiences:
    """Reads and counts audiences."""

    def __init__(self, users: Users, tags: Tags) -> None:
        self._users = users
        self._tags = tags

    async def names(self, audience: Audience, field: str) -> list[str]:
        """Every tag, alias and combination that its expressions name; sorted.

        Raises:
            TidingsError: what the tags' service finds wrong, at its field; EXPRESSION_TOO_LARGE when they are too many.
        """
        names: set[str] = set()
        for part in ("expression", "excluded_expression"):
            if getattr(audience, part):
                with expression_at(f"{field}.{part}"):
                    names.update((await self._tags.validate(getattr(audience, part))).names)
        if len(names) > MAX_NAMES:
            text = f"{len(names):,} tags and combinations are named, at most {MAX_NAMES:,} may be"
            raise errors.expression_too_large(text, field=f"{field}.expression")
        return sorted(names)

    async def resolve(self, spec: NotificationSpec) -> Resolved:
        """The users it names by id; recipients never seen come into being.

        So do excluded ones when an expression is evaluated later: someone first seen by then may be in it, and stays out. Otherwise
        who was never seen can't be in the audience, and needs no ordinal.
        """
        audience = spec.audience
        recipients = await self._users.ensure(_once(audience.recipient_ids))
        if audience.expression and spec.expand_at != EXPAND_AT_UPLOAD:
            return Resolved(recipients, await self._users.ensure(_once(audience.excluded_ids)))
        return Resolved(recipients, BitMap((await self._users.find(_once(audience.excluded_ids))).values()))

    async def expand(self, audience: Audience, resolved: Resolved, field: str) -> Expansion:
        """Everybody it means now; the snapshot and the clients known are 0 without an expression.

        Raises:
            TidingsError: as `names`.
        """
        included, excluded = await self._expand_both(audience, field)
        members = (included.members | resolved.recipients) - (excluded.members | resolved.excluded)
        return Expansion(members, excluded.version, included.known or excluded.known)

    async def estimate(self, audience: Audience, field: str) -> Estimate:
        """How many it means now; nobody comes into being. A recipient never seen counts, but isn't among the known clients."""
        count, expansion = await self._count(audience, field)
        return Estimate(count, expansion.known or await self._tags.known_clients(), expansion.version)

    async def count(self, audience: Audience, field: str) -> int:
        """How many it means now; as `estimate`, but the tags' service is asked for expressions only."""
        return (await self._count(audience, field))[0]

    async def _count(self, audience: Audience, field: str) -> tuple[int, Expansion]:
        recipients, excluded = set(audience.recipient_ids), set(audience.excluded_ids)
        found = await self._users.find(sorted(recipients | excluded))
        resolved = Resolved(_ordinals(found, recipients), _ordinals(found, excluded))
        expansion = await self.expand(audience, resolved, field)
        new = sum(1 for one in recipients - excluded if one not in found)
        return len(expansion.members) + new, expansion

    async def _expand_both(self, audience: Audience, field: str) -> tuple[Expansion, Expansion]:
        """The two expressions in one snapshot. The second may be asked of an instance that hasn't it yet: then once more."""
        for attempt, delay in enumerate(delays(), 1):
            included = await self._expand(audience.expression, 0, f"{field}.expression")
            try:
                excluded = await self._expand(audience.excluded_expression, included.version, f"{field}.excluded_expression")
            except errors.TidingsError as error:
                if error.code != error_pb2.ERROR_CODE_SNAPSHOT_GONE or attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(delay)
            else:
                return included, excluded
        raise AssertionError("delays never end")

    async def _expand(self, expression: str, version: int, field: str) -> Expansion:
        if not expression:
            return Expansion(BitMap(), version, 0)
        with expression_at(field):
            return await self._tags.expand(expression, version)


def _once(user_ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(user_ids))


def _ordinals(found: dict[str, int], user_ids: set[str]) -> BitMap:
    return BitMap(ordinal for user_id, ordinal in found.items() if user_id in user_ids)

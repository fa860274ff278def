"""From an audience to the ordinals of its users: (recipients + expression) - (excluded + excluded expression).

Expressions are asked of tagsvc; while none answers, of the replica of the tags kept here, which may be a little behind. Both
expressions of an audience are taken from one snapshot.

Rules: what is wrong with an expression is said by a tagsvc only. The replica may lack what was made since, so what it lacks makes
the question an open one, to be asked again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from pyroaring import BitMap

from mesh import errors, patience
from router import bitmaps
from router.ports import AudienceService
from tidings.common.v1 import error_pb2
from tidings.common.v1.notification_pb2 import Audience
from tidings.tag.v1.audience_pb2 import ExpandExpressionRequest, ExpandExpressionResponse

_STREAM_SECONDS = 30.0  # for all chunks, once the first has come
_PASSING = {*patience.PASSING, error_pb2.ERROR_CODE_INTERNAL, error_pb2.ERROR_CODE_SNAPSHOT_GONE}
_log = structlog.get_logger(__name__)


def may_pass(error: errors.TidingsError) -> bool:
    """Whether asking again may do better. A fault of ours may be mended, a snapshot that is gone has a follower."""
    return error.code in _PASSING


@dataclass(frozen=True, slots=True)
class Meant:
    """Who is meant, in which snapshot of the tags; 0 when no expression was asked for."""

    ordinals: BitMap
    version: int


class Meaning(Protocol):
    """Who can say what expressions mean."""

    async def meant(self, expressions: Sequence[str]) -> tuple[list[BitMap], int]:
        """Everybody meant by each, all in one snapshot, and its version.

        Args:
            expressions: at least one, none empty.

        Raises:
            TidingsError: what is wrong with one, or what keeps it from being answered.
        """


class TagServiceMeaning:
    """tagsvc's word.

    Args:
        within: seconds in which the first part of an answer must come.
    """

    def __init__(self, service: AudienceService, within: float) -> None:
        self._service = service
        self._within = within

    async def meant(self, expressions: Sequence[str]) -> tuple[list[BitMap], int]:
        """See `Meaning`."""
        found, version = [], 0
        for expression in expressions:
            ordinals, version = await self._expand(expression, version)
            found.append(ordinals)
        return found, version

    async def _expand(self, expression: str, version: int) -> tuple[BitMap, int]:
        request = ExpandExpressionRequest(expression=expression, version=version)
        parts: list[ExpandExpressionResponse] = []
        try:
            async with asyncio.timeout(self._within) as limit:
                async for part in self._service.expand_expression(request, _STREAM_SECONDS):
                    limit.reschedule(None)
                    parts.append(part)
        except TimeoutError:
            raise errors.unavailable("no tagsvc answered in time") from None
        if not parts:
            raise errors.internal("tagsvc said nothing about an expression")
        return BitMap.union(BitMap(), *(bitmaps.read(part.user_ordinals) for part in parts)), parts[0].version


class Expansions:
    """Settles audiences.

    Args:
        tags: tagsvc.
        replica: asked while tagsvc is away; None to wait for it.
    """

    def __init__(self, tags: Meaning, replica: Meaning | None) -> None:
        self._tags = tags
        self._replica = replica

    async def settle(self, audience: Audience, recipients: BitMap, excluded: BitMap) -> Meant:
        """The users of an audience; version 0 without an expression.

        Args:
            recipients, excluded: ordinals of those named by id.

        Raises:
            TidingsError: see `may_pass`.
        """
        try:
            return await _settle(self._tags, audience, recipients, excluded)
        except errors.TidingsError as error:
            if not may_pass(error) or self._replica is None:
                raise
            _log.warning("asking the replica", reason=error.reason, error=error.message)
        try:
            return await _settle(self._replica, audience, recipients, excluded)
        except errors.TidingsError as error:
            raise errors.unavailable(f"no tagsvc answered, and the replica of the tags could not: {error.message}") from error


async def _settle(meaning: Meaning, audience: Audience, recipients: BitMap, excluded: BitMap) -> Meant:
    asked = [one for one in (audience.expression, audience.excluded_expression) if one]
    found, version = await meaning.meant(asked) if asked else ([], 0)
    included = recipients | found[0] if audience.expression else recipients
    left_out = excluded | found[-1] if audience.excluded_expression else excluded
    return Meant(included - left_out, version)

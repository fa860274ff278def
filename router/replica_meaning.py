"""What expressions mean by the replica of the tags: with users and outcomes read from the store."""

import asyncio
from collections.abc import Sequence
from itertools import chain

from pyroaring import AbstractBitMap, BitMap

from mesh import errors
from router import bitmaps
from router.directory import chunks
from router.ports import NotificationStore, UserStore
from router.tag_replica import TagReplica
from tagset import resolve
from tagset.errors import CycleError, ExpressionError, TooLargeError, UnknownNameError
from tagset.evaluate import evaluate
from tagset.expression import Expression, OutcomeKind
from tagset.parser import parse
from tagset.snapshot import Snapshot
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1.notification_pb2 import ReadRecipientsRequest
from tidings.store.v1.user_pb2 import GetUsersRequest

_OUTCOMES: dict[OutcomeKind, common.Outcome.ValueType] = {
    "sent": common.OUTCOME_SENT,
    "delivered": common.OUTCOME_DELIVERED,
    "pending": common.OUTCOME_PENDING,
}


class ReplicaMeaning:
    """`Meaning` by the replica."""

    def __init__(self, replica: TagReplica, users: UserStore, store: NotificationStore) -> None:
        self._replica = replica
        self._users = users
        self._store = store

    async def meant(self, expressions: Sequence[str]) -> tuple[list[BitMap], int]:
        """See `Meaning`.

        Raises:
            TidingsError: UNAVAILABLE also for what is wrong with an expression: the replica may be behind.
        """
        snapshot, known = self._replica.snapshot, self._replica.highest_user_ordinal
        if snapshot is None:
            raise errors.unavailable("there is no replica of the tags yet")
        try:
            found = [await self._evaluate(parse(text), snapshot, known) for text in expressions]
        except (ExpressionError, TooLargeError, UnknownNameError, CycleError) as error:
            raise errors.unavailable(f"by the tags as of version {snapshot.version}: {error}") from error
        return found, snapshot.version

    async def _evaluate(self, expression: Expression, snapshot: Snapshot, known: int) -> BitMap:
        users = await self._ordinals(sorted(resolve.users(expression, snapshot)))
        outcomes: dict[tuple[str, str], AbstractBitMap] = {
            (kind, name): await self._recipients(kind, name) for kind, name in resolve.outcomes(expression, snapshot)
        }
        return await asyncio.to_thread(evaluate, expression, snapshot, known, users, outcomes)  # immutable, and may take a while

    async def _ordinals(self, user_ids: list[str]) -> dict[str, int]:
        found = [await self._users.get_users(GetUsersRequest(user_ids=part)) for part in chunks(user_ids)]
        return {user.user_id: user.user_ordinal for user in chain.from_iterable(one.users for one in found)}

    async def _recipients(self, kind: OutcomeKind, notification_id: str) -> BitMap:
        request = ReadRecipientsRequest(notification_id=notification_id, outcomes=[_OUTCOMES[kind]])
        found = BitMap()
        async for chunk in self._store.read_recipients(request):
            found |= bitmaps.read(chunk.user_ordinals[0])
        return found

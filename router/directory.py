"""Conversations and users by id: the cache, and the store behind it. Unknown ones are loaded many at a time."""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import structlog

from mesh import batching, errors, patience
from router.membership import Membership, MembershipCache
from router.ports import ConversationStore, UserStore
from tidings.common.v1.conversation_pb2 import Conversation
from tidings.store.v1.conversation_pb2 import DirectPair, EnsureDirectRequest, GetConversationsRequest
from tidings.store.v1.user_pb2 import EnsureUsersRequest

STORE_BATCH = 1000  # the store's own limit on every batched call
_STALE_SECONDS = 5.0  # how long to ask for a membership that the log says exists
KNOWN_USERS = 100_000  # whose ordinals are remembered: about 20 MB; those asked for longest ago are forgotten
T = TypeVar("T")
_log = structlog.get_logger(__name__)


def chunks(items: Iterable[T], size: int = STORE_BATCH) -> Iterator[list[T]]:
    """Cut into lists of at most `size`."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


class Directory:
    """The memberships this router holds, and how it learns more."""

    def __init__(self, cache: MembershipCache, store: ConversationStore) -> None:
        self._cache = cache
        self._store = store

    def get(self, conversation_id: str) -> Membership | None:
        """What is held; None when it must be loaded first."""
        return self._cache.get(conversation_id)

    def learn(self, conversation: Conversation) -> None:
        """Take over what a store said about a conversation, with its members."""
        self._cache.put([conversation])

    async def load(self, conversation_ids: Collection[str], within: float | None = None) -> None:
        """Ask the store for these, waiting for a store as `until_done` does; those that don't exist stay unknown."""
        for chunk in chunks(conversation_ids):
            request = GetConversationsRequest(conversation_ids=chunk)
            response = await patience.until_done(lambda request=request: self._store.get_conversations(request), within)  # type: ignore[misc]
            self._cache.put(response.conversations)

    async def missing(self, conversation_ids: Iterable[str], within: float | None = None) -> None:
        """Load those of these that are not held."""
        unknown = {one for one in conversation_ids if self._cache.get(one) is None}
        if unknown:
            await self.load(unknown, within)

    async def at_least(self, versions: dict[str, int]) -> set[str]:
        """Hold each of these conversations at this membership version or a later one, asking the store where needed.

        Gives those for which that failed: their members now are not known, so nothing may be told about them.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STALE_SECONDS):
                for delay in patience.delays():
                    stale = self._stale(versions)
                    if not stale:
                        return stale
                    await self.load(stale)
                    if self._stale(versions):
                        await asyncio.sleep(delay)
        stale = self._stale(versions)
        _log.error("memberships could not be brought up to the log's", conversations=sorted(stale)[:10])
        return stale

    def _stale(self, versions: dict[str, int]) -> set[str]:
        return {one for one, version in versions.items() if self._older(one, version)}

    def _older(self, conversation_id: str, version: int) -> bool:
        held = self._cache.get(conversation_id)
        return held is None or held.version < version

    async def ensure_direct(self, pairs: Collection[tuple[str, str]]) -> None:
        """Make direct conversations exist, waiting for a store for ever.

        Raises:
            TidingsError: the store refuses a pair; the others may exist.
        """
        for chunk in chunks(pairs):
            request = EnsureDirectRequest(pairs=[DirectPair(first_user_id=a, second_user_id=b) for a, b in chunk])
            response = await patience.until_done(lambda request=request: self._store.ensure_direct(request))  # type: ignore[misc]
            self._cache.put(response.conversations)


class Ordinals:
    """Users' ordinals by id, asked for in batches; users never seen come into being. An ordinal never changes, so those known are
    remembered: whoever comes back costs the store nothing here.

    Args:
        capacity: questions waiting. When full, further ones are refused with OVERLOADED.
        within: seconds a question may wait for a store.
    """

    def __init__(self, store: UserStore, capacity: int, within: float) -> None:
        self._store = store
        self._within = within
        self._known: dict[str, int] = {}
        self._queue: batching.Batcher[tuple[str, asyncio.Future[int]]] = batching.Batcher(capacity, STORE_BATCH)

    async def run(self) -> None:
        """Answer until cancelled."""
        await patience.drain(self._queue, self._answer)

    async def of(self, user_id: str) -> int:
        """One user's ordinal.

        Raises:
            TidingsError: OVERLOADED, UNAVAILABLE, or the store's refusal of the id.
        """
        return await self.ask(user_id)

    def ask(self, user_id: str) -> "asyncio.Future[int]":
        """As `of`, without waiting."""
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        known = self._known.get(user_id)
        if known is not None:
            answer.set_result(known)
        elif not self._queue.offer((user_id, answer)):
            answer.set_exception(errors.overloaded(1.0, "the directory of users"))
        return answer

    async def _answer(self, batch: list[tuple[str, "asyncio.Future[int]"]]) -> None:
        try:
            ordinals = await self._ensure([user_id for user_id, _ in batch])
        except errors.TidingsError as error:
            await self._fail(batch, error)
            return
        for user_id, answer in batch:
            if not answer.done():
                answer.set_result(ordinals[user_id])

    async def _fail(self, batch: Sequence[tuple[str, "asyncio.Future[int]"]], error: errors.TidingsError) -> None:
        """One bad id must not fail its neighbours: ask for each by itself."""
        if len(batch) > 1 and error.code not in patience.PASSING:
            for one in batch:
                await self._answer([one])
            return
        for _, answer in batch:
            if not answer.done():
                answer.set_exception(error)

    async def _ensure(self, user_ids: list[str]) -> dict[str, int]:
        unique = list(dict.fromkeys(user_ids))
        request = EnsureUsersRequest(user_ids=unique)
        response = await patience.until_done(lambda: self._store.ensure_users(request), self._within)
        found = {user_id: user.user_ordinal for user_id, user in zip(unique, response.users, strict=True)}
        self._remember(found)
        return found

    def _remember(self, found: dict[str, int]) -> None:
        self._known |= found
        while len(self._known) > KNOWN_USERS:
            del self._known[next(iter(self._known))]

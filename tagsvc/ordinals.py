"""Users by ordinal and ordinals by user, in bulk: what isn't in memory is asked of the store, 1,000 at a time, several at once.

Ordinals never change, so what is in memory is never wrong.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

from mesh import errors, patience
from mesh.naming import USER_ID
from tagsvc.ports import UserDirectory
from tidings.store.v1.user_pb2 import User

_CALL_USERS = 1000  # as the contract says
_CALLS = 4  # at once, of one bulk: a store writes one transaction at a time anyway
T = TypeVar("T")


class Ordinals:
    """A cache in front of the directory of users.

    Args:
        directory: the store's.
        capacity: users kept; when full, the half that came first makes room.
        within: seconds after which a store that doesn't answer is given up.
        seen: told of ordinals that users were just found to have, the highest of each call.
    """

    def __init__(self, directory: UserDirectory, capacity: int, within: float, seen: Callable[[int], None]) -> None:
        self._directory = directory
        self._capacity = capacity
        self._within = within
        self._seen = seen
        self._cache: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._cache)

    async def ensure(self, user_ids: Sequence[str], field: str) -> list[int]:
        """Their ordinals, in order; users never seen come into being.

        Raises:
            TidingsError: INVALID_FIELD naming `field` when one isn't a user id; UNAVAILABLE.
        """
        found = list(map(self._cache.get, user_ids))
        missing = [user_id for user_id, ordinal in zip(user_ids, found, strict=True) if ordinal is None]
        if not missing:
            return found  # type: ignore[return-value]  # there is no None in it
        _check(missing, field)
        made = await self._asked(list(dict.fromkeys(missing)), self._directory.ensure_users)
        fresh = {user.user_id: user.user_ordinal for user in made}
        self._remember(fresh)
        return [fresh[user_id] if ordinal is None else ordinal for user_id, ordinal in zip(user_ids, found, strict=True)]

    async def find(self, user_ids: Iterable[str]) -> dict[str, int]:
        """The ordinals of those that exist."""
        wanted = list(user_ids)
        found = {user_id: self._cache[user_id] for user_id in wanted if user_id in self._cache}
        missing = [user_id for user_id in wanted if user_id not in found]
        asked = {user.user_id: user.user_ordinal for user in await self._asked(missing, self._directory.get_users)}
        self._remember(asked)
        return found | asked

    async def user_ids(self, ordinals: Sequence[int]) -> list[str]:
        """The users of these ordinals, in order."""
        return [user.user_id for user in await self._asked(ordinals, self._directory.list_users)]

    async def _asked(self, items: Sequence[T], call: Callable[[Sequence[T]], Awaitable[Sequence[User]]]) -> list[User]:
        """The answers about all items, in order."""
        turn = asyncio.Semaphore(_CALLS)

        async def ask(part: Sequence[T]) -> Sequence[User]:
            async with turn:
                return await patience.until_done(lambda: call(part), self._within)

        parts = [items[start : start + _CALL_USERS] for start in range(0, len(items), _CALL_USERS)]
        return [user for answer in await asyncio.gather(*map(ask, parts)) for user in answer]

    def _remember(self, fresh: dict[str, int]) -> None:
        if not fresh:
            return
        self._seen(max(fresh.values()))
        if len(self._cache) + len(fresh) > self._capacity:
            for user_id in list(islice(self._cache, self._capacity // 2)):
                del self._cache[user_id]
        self._cache.update(fresh)


def _check(user_ids: Iterable[str], field: str) -> None:
    for user_id in user_ids:
        if not USER_ID.fullmatch(user_id):
            raise errors.invalid_field(field, f"{user_id[:140]!r} is no user id, which is 1-128 characters of [A-Za-z0-9._@+-]")

"""tidings.store.v1.UserService: contract in, one call, contract out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from mesh.times import microseconds
from store import checks, codec, users
from store.ports import Database
from tidings.store.v1 import user_pb2 as pb
from tidings.store.v1 import user_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class UserServicer(user_pb2_grpc.UserServiceServicer):
    """Serves the directory of users.

    Args:
        database: where they are.
        clock: microseconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def EnsureUsers(self, request: pb.EnsureUsersRequest, context: Context) -> pb.EnsureUsersResponse:
        """Makes users exist; mostly they do, and then nothing is written."""
        checks.listed("user_ids", request.user_ids)
        wanted = [checks.user_id("user_ids", user_id) for user_id in request.user_ids]
        found = await self._database.read(partial(users.find_users, user_ids=wanted))
        if len(found) < len(set(wanted)):
            found = await self._database.write(partial(users.ensure_users, user_ids=wanted, now=self._clock()))
        return pb.EnsureUsersResponse(users=[codec.user(found[user_id]) for user_id in wanted])

    async def GetUsers(self, request: pb.GetUsersRequest, context: Context) -> pb.GetUsersResponse:
        """Finds users."""
        checks.listed("user_ids", request.user_ids)
        wanted = [user_id for user_id in dict.fromkeys(request.user_ids) if checks.is_user_id(user_id)]
        found = await self._database.read(partial(users.find_users, user_ids=wanted))
        return pb.GetUsersResponse(users=[codec.user(found[user_id]) for user_id in wanted if user_id in found])

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        """Finds users by ordinal."""
        checks.listed("user_ordinals", request.user_ordinals)
        wanted = list(dict.fromkeys(request.user_ordinals))
        found = await self._database.read(partial(users.list_users, ordinals=wanted))
        return pb.ListUsersResponse(users=[codec.user(found[ordinal]) for ordinal in wanted if ordinal in found])

    async def RecordLastSeen(self, request: pb.RecordLastSeenRequest, context: Context) -> pb.RecordLastSeenResponse:
        """Notes who left when."""
        checks.listed("last_seen", request.last_seen)
        latest: dict[int, int] = {}
        for one in request.last_seen:
            latest[one.user_ordinal] = max(latest.get(one.user_ordinal, 0), microseconds(one.time))
        if latest:
            await self._database.write(partial(users.record_last_seen, seen=latest))
        return pb.RecordLastSeenResponse()

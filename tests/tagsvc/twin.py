"""A store in memory, as far as tagsvc asks one: users, the log of tags, notifications' recipients. It can be told to do wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from pyroaring import BitMap

from mesh import errors, rpc
from mesh.naming import new_instance_id
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from tidings.common.v1.instance_pb2 import Instance
from tidings.store.v1 import notification_pb2, notification_pb2_grpc, tag_log_pb2, tag_log_pb2_grpc, user_pb2, user_pb2_grpc

RECORDS_BELOW_CHECKPOINT = 10_000


@dataclass
class Memory:
    """What a database would hold, and what to do wrong.

    Attributes:
        users: by id; ordinals are their places, from 1.
        log: records.
        kept_after: records up to this version are gone.
        checkpoint: version and parts.
        recipients: (notification id, outcome) -> ordinals.
        totals_only: notifications of which only totals are kept.
        references: tag, alias with @, or combination -> notification ids.
        lose_answers: so many appends are stored, then break without an answer.
        die: with the next answer that is lost, refuse everything from then on.
        lose_requests: so many appends break before they are stored.
        answering: cleared to hold appends back before they are stored.
        refuse: error for every call.
        held: appends that wait for `answering`.
        appends: numbers of records in each append stored.
        bulks: numbers of users in each EnsureUsers.
        loads: how often the checkpoint was loaded.
    """

    users: dict[str, int] = field(default_factory=dict)
    log: list[bytes] = field(default_factory=list)
    kept_after: int = 0
    checkpoint: tuple[int, list[bytes]] | None = None
    recipients: dict[tuple[str, int], BitMap] = field(default_factory=dict)
    totals_only: set[str] = field(default_factory=set)
    references: dict[str, list[str]] = field(default_factory=dict)
    lose_answers: int = 0
    die: bool = False
    lose_requests: int = 0
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    refuse: errors.TidingsError | None = None
    held: int = 0
    appends: list[int] = field(default_factory=list)
    bulks: list[int] = field(default_factory=list)
    loads: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.answering.set()

    @property
    def version(self) -> int:
        """The log's."""
        return len(self.log)

    async def tell(self) -> None:
        """Something changed."""
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Any) -> None:
        """Wait until something is so, told of each change."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)

    async def fail(self) -> None:
        """Refuse everything."""
        self.refuse = errors.unavailable("the twin is told to be away", retry_after=0.1)
        await self.tell()

    def check(self) -> None:
        """Refuse everything, if told so."""
        if self.refuse is not None:
            raise self.refuse


class TagLog(tag_log_pb2_grpc.TagLogServiceServicer):
    """TagLogService."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def AppendRecords(self, request: tag_log_pb2.AppendRecordsRequest, context: Any) -> tag_log_pb2.AppendRecordsResponse:
        """Append, or conflict."""
        memory = self.memory
        memory.check()
        assert 1 <= len(request.records) <= 1000
        assert sum(map(len, request.records)) <= 8 * 1024 * 1024
        memory.held += 1
        await memory.tell()
        await memory.answering.wait()
        memory.held -= 1
        if memory.lose_requests:
            memory.lose_requests -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "request lost")
        if request.expected_version != memory.version:
            return tag_log_pb2.AppendRecordsResponse(conflict_version=memory.version)
        memory.log.extend(request.records)
        memory.appends.append(len(request.records))
        await memory.tell()
        if memory.lose_answers:
            memory.lose_answers -= 1
            if memory.die:
                await memory.fail()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "answer lost")
        return tag_log_pb2.AppendRecordsResponse(version=memory.version)

    async def FollowRecords(
        self, request: tag_log_pb2.FollowRecordsRequest, context: Any
    ) -> AsyncIterator[tag_log_pb2.FollowRecordsResponse]:
        """Follow, a few records a response."""
        memory, at, known, first = self.memory, request.after_version, 0, True
        while True:
            memory.check()
            if not memory.kept_after <= at <= memory.version:
                raise errors.snapshot_gone(at, memory.kept_after, memory.version)
            if first or at < memory.version or known < len(memory.users):
                records, known, first = memory.log[at : at + 7], len(memory.users), False
                at += len(records)
                yield tag_log_pb2.FollowRecordsResponse(
                    records=records, version=at, last_version=memory.version, highest_user_ordinal=known
                )
                continue
            async with memory.changed:
                while memory.version == at and len(memory.users) == known and memory.refuse is None:
                    await memory.changed.wait()

    async def SaveCheckpoint(
        self, requests: AsyncIterator[tag_log_pb2.SaveCheckpointRequest], context: Any
    ) -> tag_log_pb2.SaveCheckpointResponse:
        """Keep one that is complete and newer."""
        self.memory.check()
        version, parts, last = 0, list[bytes](), False
        async for request in requests:
            assert not last
            version, last = request.version or version, request.last
            parts.append(request.part)
        assert last
        if self.memory.checkpoint and self.memory.checkpoint[0] > version:
            return tag_log_pb2.SaveCheckpointResponse(kept=False)
        self.memory.checkpoint = (version, parts)
        self.memory.kept_after = max(self.memory.kept_after, version - RECORDS_BELOW_CHECKPOINT)
        await self.memory.tell()
        return tag_log_pb2.SaveCheckpointResponse(kept=True)

    async def LoadCheckpoint(
        self, request: tag_log_pb2.LoadCheckpointRequest, context: Any
    ) -> AsyncIterator[tag_log_pb2.LoadCheckpointResponse]:
        """The newest."""
        self.memory.check()
        self.memory.loads += 1
        if self.memory.checkpoint is not None:
            version, parts = self.memory.checkpoint
            for part in parts:
                yield tag_log_pb2.LoadCheckpointResponse(version=version, part=part)


class Users(user_pb2_grpc.UserServiceServicer):
    """UserService."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def EnsureUsers(self, request: user_pb2.EnsureUsersRequest, context: Any) -> user_pb2.EnsureUsersResponse:
        """Make users."""
        self.memory.check()
        assert len(request.user_ids) <= 1000
        self.memory.bulks.append(len(request.user_ids))
        for user_id in request.user_ids:
            self.memory.users.setdefault(user_id, len(self.memory.users) + 1)
        await self.memory.tell()
        return user_pb2.EnsureUsersResponse(users=[self._user(user_id) for user_id in request.user_ids])

    async def GetUsers(self, request: user_pb2.GetUsersRequest, context: Any) -> user_pb2.GetUsersResponse:
        """Find users."""
        self.memory.check()
        return user_pb2.GetUsersResponse(users=[self._user(one) for one in request.user_ids if one in self.memory.users])

    async def ListUsers(self, request: user_pb2.ListUsersRequest, context: Any) -> user_pb2.ListUsersResponse:
        """Find users by ordinal."""
        self.memory.check()
        assert len(request.user_ordinals) <= 1000
        ids = list(self.memory.users)
        return user_pb2.ListUsersResponse(users=[self._user(ids[ordinal - 1]) for ordinal in request.user_ordinals])

    def _user(self, user_id: str) -> user_pb2.User:
        return user_pb2.User(user_id=user_id, user_ordinal=self.memory.users[user_id])


class Notifications(notification_pb2_grpc.NotificationStoreServiceServicer):
    """NotificationStoreService."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def ReadRecipients(
        self, request: notification_pb2.ReadRecipientsRequest, context: Any
    ) -> AsyncIterator[notification_pb2.ReadRecipientsResponse]:
        """Recipients, in two chunks."""
        self.memory.check()
        if request.notification_id in self.memory.totals_only:
            raise errors.report_gone(request.notification_id)
        if not any(known == request.notification_id for known, _ in self.memory.recipients):
            raise errors.notification_not_found(request.notification_id)
        found = [self.memory.recipients.get((request.notification_id, outcome), BitMap()) for outcome in request.outcomes]
        for block in (BitMap(range(3)), BitMap(range(3, 1 << 20))):
            yield notification_pb2.ReadRecipientsResponse(user_ordinals=[(one & block).serialize() for one in found])

    async def ListReferences(
        self, request: notification_pb2.ListReferencesRequest, context: Any
    ) -> notification_pb2.ListReferencesResponse:
        """Who names these."""
        self.memory.check()
        found = [one for name in request.names for one in self.memory.references.get(name, [])]
        return notification_pb2.ListReferencesResponse(notification_ids=found)


@asynccontextmanager
async def serve(memory: Memory, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Instance]:
    """Serve a twin until the context ends, which it does at once, as a killed process would."""
    log, users = TagLog(memory), Users(memory)  # type: ignore[abstract]  # what tagsvc never calls is left out, here and below
    notifications = Notifications(memory)  # type: ignore[abstract]
    servicers: dict[str, rpc.AddServicer] = {
        "tidings.store.v1.TagLogService": partial(tag_log_pb2_grpc.add_TagLogServiceServicer_to_server, log),
        "tidings.store.v1.UserService": partial(user_pb2_grpc.add_UserServiceServicer_to_server, users),
        "tidings.store.v1.NotificationStoreService": partial(
            notification_pb2_grpc.add_NotificationStoreServiceServicer_to_server, notifications
        ),
    }
    async with rpc.serve("127.0.0.1:0", servicers, telemetry, reflect=False, drain_seconds=0) as port:
        instance = Instance(service="store", instance_id=new_instance_id("store"), grpc_address=f"127.0.0.1:{port}")
        async with registry.register(instance):
            yield instance

"""tagsvc in memory behind its contract, as far as routers call it. It can be made to keep silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pyroaring import BitMap

from mesh import errors, rpc
from mesh.naming import new_instance_id
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from tagset.errors import ExpressionError, UnknownNameError
from tagset.evaluate import evaluate
from tagset.parser import parse
from tagset.snapshot import Snapshot, parts
from tidings.common.v1.instance_pb2 import Instance
from tidings.tag.v1 import audience_pb2 as pb
from tidings.tag.v1.audience_pb2_grpc import AudienceServiceServicer, add_AudienceServiceServicer_to_server
from tidings.tag.v1.log_pb2 import MembershipChange, TagMembers, TagRecord


class Tags:
    """What tagsvc holds.

    Attributes:
        speaking: cleared to answer no call any more.
        expanded: expressions asked for, in order.
        watchers: how many follow.
    """

    def __init__(self) -> None:
        self.snapshot = Snapshot.empty()
        self.records: list[TagRecord] = []
        self.known = 100
        self.speaking = asyncio.Event()
        self.speaking.set()
        self.expanded: list[str] = []
        self.watchers = 0
        self.changed = asyncio.Condition()

    async def add(self, tag: str, *ordinals: int) -> None:
        """Give users a tag."""
        members = TagMembers(tag=tag, added_ordinals=BitMap(ordinals).serialize())
        record = TagRecord(memberships=MembershipChange(tags=[members]))
        self.records.append(record)
        self.snapshot = self.snapshot.apply(self.snapshot.version + 1, record)
        async with self.changed:
            self.changed.notify_all()


class _Servicer(AudienceServiceServicer):
    def __init__(self, tags: Tags) -> None:
        self.tags = tags

    async def ExpandExpression(
        self, request: pb.ExpandExpressionRequest, context: Any
    ) -> AsyncIterator[pb.ExpandExpressionResponse]:
        self.tags.expanded.append(request.expression)
        await self.tags.speaking.wait()
        snapshot = self.tags.snapshot
        if request.version not in {0, snapshot.version}:
            raise errors.snapshot_gone(request.version, snapshot.version, snapshot.version)
        try:
            found = evaluate(parse(request.expression), snapshot, self.tags.known, {}, {})
        except UnknownNameError as error:
            raise errors.unknown_tag(error.name, error.kind, column=error.column) from error
        except ExpressionError as error:
            raise errors.invalid_expression(error.text, error.column) from error
        half = len(found) // 2
        for part in (found[:half], found[half:]):
            yield pb.ExpandExpressionResponse(user_ordinals=part.serialize(), version=snapshot.version, count=len(found))

    async def WatchSnapshots(self, request: pb.WatchSnapshotsRequest, context: Any) -> AsyncIterator[pb.WatchSnapshotsResponse]:
        told = request.after_version
        await self.tags.speaking.wait()
        self.tags.watchers += 1
        if not told:
            snapshot, told = self.tags.snapshot, self.tags.snapshot.version
            whole = list(parts(snapshot, 1024 * 1024))
            for number, part in enumerate(whole, 1):
                yield pb.WatchSnapshotsResponse(
                    version=told, highest_user_ordinal=self.tags.known, part=part, complete=number == len(whole)
                )
        while True:
            async with self.tags.changed:
                while self.tags.snapshot.version <= told:
                    await self.tags.changed.wait()
            records, told = self.tags.records[told:], self.tags.snapshot.version
            yield pb.WatchSnapshotsResponse(version=told, highest_user_ordinal=self.tags.known, records=records, complete=True)


@asynccontextmanager
async def serve(tags: Tags, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Instance]:
    """Serve a twin until the context ends, which it does at once."""
    instance = Instance(service="tagsvc", instance_id=new_instance_id("tagsvc"))
    servicer = _Servicer(tags)  # type: ignore[abstract]  # without what no router calls
    servicers: dict[str, rpc.AddServicer] = {
        "tidings.tag.v1.AudienceService": lambda s: add_AudienceServiceServicer_to_server(servicer, s)
    }
    async with rpc.serve("127.0.0.1:0", servicers, telemetry, reflect=False, drain_seconds=0) as port:
        instance.grpc_address = f"127.0.0.1:{port}"
        async with registry.register(instance):
            yield instance

"""A tags' service behind its contract, with as much of the language as these tests speak: names, *, !name, + and - from the left.

Its instances share one `Tags`, as real ones share a log; each may be made to lag behind.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pyroaring import BitMap

from mesh import errors, rpc
from mesh.naming import new_instance_id
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from tidings.common.v1.instance_pb2 import Instance
from tidings.tag.v1 import audience_pb2 as pb
from tidings.tag.v1.audience_pb2_grpc import AudienceServiceServicer, add_AudienceServiceServicer_to_server

_TOKEN = re.compile(r"\s*(?:([+-])|(!?)(\*|[A-Za-z0-9_]+))")
MAX_OPERANDS = 1_000


@dataclass
class Tags:
    """What all instances know.

    Attributes:
        members: tag -> ordinals, in the newest snapshot.
        highest: the highest ordinal known.
        version: of the newest snapshot.
        newcomers: so many clients come into being after each expansion.
        calls: methods called, in order.
    """

    members: dict[str, set[int]] = field(default_factory=dict)
    highest: int = 0
    version: int = 7
    newcomers: int = 0
    calls: list[str] = field(default_factory=list)

    def put(self, name: str, *ordinals: int) -> None:
        """A tag has these members now."""
        self.members[name] = set(ordinals)
        self.highest = max(self.highest, *ordinals, 0)
        self.version += 1

    def evaluate(self, expression: str) -> tuple[BitMap, list[str]]:
        """Everybody meant, and the tags named."""
        total, sign, at = BitMap(), "+", 0
        names: set[str] = set()
        while at < len(expression.rstrip()):
            found = _TOKEN.match(expression, at)
            if found is None or bool(found[1]) == bool(sign):
                raise errors.invalid_expression("a name or an operator is missing", at + 1)
            at, sign, previous = found.end(), found[1] or "", sign
            if not sign:
                part = self._operand(found[3], found[2], names, found.start(3) + 1)
                total = total | part if previous == "+" else total - part
        if sign:
            raise errors.invalid_expression("it ends too early", at + 1)
        if expression.count("+") >= MAX_OPERANDS:
            raise errors.expression_too_large(f"at most {MAX_OPERANDS:,} operands")
        return total, sorted(names)

    def _operand(self, name: str, negation: str, names: set[str], column: int) -> BitMap:
        everybody = BitMap(range(1, self.highest + 1))
        if name == "*":
            return everybody
        if name not in self.members:
            raise errors.unknown_tag(name, column=column)
        names.add(name)
        members = BitMap(self.members[name])
        return everybody - members if negation else members


class Audience(AudienceServiceServicer):
    """One instance.

    Attributes:
        behind: snapshots that it lags behind; each refusal for that reason brings it one further.
    """

    def __init__(self, tags: Tags) -> None:
        self.tags = tags
        self.behind = 0

    async def ValidateExpression(self, request: pb.ValidateExpressionRequest, context: Any) -> pb.ValidateExpressionResponse:
        """Read an expression."""
        self.tags.calls.append("validate")
        _, names = self.tags.evaluate(request.expression)
        return pb.ValidateExpressionResponse(
            canonical_expression=request.expression, names=names, version=self.tags.version - self.behind
        )

    async def CountExpression(self, request: pb.CountExpressionRequest, context: Any) -> pb.CountExpressionResponse:
        """Count one."""
        self.tags.calls.append("count")
        members, _ = self.tags.evaluate(request.expression)
        return pb.CountExpressionResponse(count=len(members), known_clients=self.tags.highest, version=self.tags.version)

    async def ExpandExpression(
        self, request: pb.ExpandExpressionRequest, context: Any
    ) -> AsyncIterator[pb.ExpandExpressionResponse]:
        """Everybody meant, in two chunks."""
        self.tags.calls.append("expand")
        newest = self.tags.version - self.behind
        if request.version > newest:
            self.behind -= 1
            raise errors.snapshot_gone(request.version, 1, newest)
        members, _ = self.tags.evaluate(request.expression)
        half = len(members) // 2
        for part in (members[:half], members[half:]):
            yield pb.ExpandExpressionResponse(
                user_ordinals=part.serialize(), version=newest, count=len(members), known_clients=self.tags.highest
            )
        self.tags.highest += self.tags.newcomers

    async def ListAudience(self, request: pb.ListAudienceRequest, context: Any) -> pb.ListAudienceResponse:
        """Nobody here asks."""
        raise errors.unknown_request("ListAudience")

    async def ExplainUser(self, request: pb.ExplainUserRequest, context: Any) -> pb.ExplainUserResponse:
        """Nobody here asks."""
        raise errors.unknown_request("ExplainUser")

    async def WatchSnapshots(self, request: pb.WatchSnapshotsRequest, context: Any) -> AsyncIterator[pb.WatchSnapshotsResponse]:
        """Nobody here asks."""
        raise errors.unknown_request("WatchSnapshots")
        yield pb.WatchSnapshotsResponse()


@asynccontextmanager
async def serve(tags: Tags, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Audience]:
    """Run one instance."""
    audience = Audience(tags)
    add: dict[str, rpc.AddServicer] = {
        "tidings.tag.v1.AudienceService": lambda server: add_AudienceServiceServicer_to_server(audience, server)
    }
    async with rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=0.1) as port:
        instance = Instance(service="tagsvc", instance_id=new_instance_id("tagsvc"), grpc_address=f"127.0.0.1:{port}")
        async with registry.register(instance):
            yield audience

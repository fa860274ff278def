"""`Tags` over gRPC, at whichever instance of the tags' service answers."""

from pyroaring import BitMap

from mesh import rpc
from mesh.nodes import NodePool
from scheduler.ports import Expansion
from tidings.tag.v1 import audience_pb2 as tags
from tidings.tag.v1.audience_pb2_grpc import AudienceServiceStub

_EVERYBODY = "*"
_STREAM_SECONDS = 30.0


class GrpcTags:
    """See `Tags`."""

    def __init__(self, pool: NodePool) -> None:
        self._pool = pool

    async def validate(self, expression: str) -> tags.ValidateExpressionResponse:
        """See `Tags`."""
        request = tags.ValidateExpressionRequest(expression=expression)
        return await self._pool.call(lambda node: node.stub(AudienceServiceStub).ValidateExpression, request)

    async def expand(self, expression: str, version: int) -> Expansion:
        """See `Tags`."""
        request = tags.ExpandExpressionRequest(expression=expression, version=version)
        members, known = BitMap(), 0
        chunks = self._pool.stream(
            lambda node: node.stub(AudienceServiceStub).ExpandExpression, request, rpc.remaining(_STREAM_SECONDS)
        )
        async for chunk in chunks:
            members |= BitMap.deserialize(chunk.user_ordinals)
            version, known = chunk.version, chunk.known_clients
        return Expansion(members, version, known)

    async def known_clients(self) -> int:
        """See `Tags`."""
        request = tags.CountExpressionRequest(expression=_EVERYBODY)
        counted = await self._pool.call(lambda node: node.stub(AudienceServiceStub).CountExpression, request)
        return counted.known_clients

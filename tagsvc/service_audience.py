"""tidings.tag.v1.AudienceService: contract in, one call, contract out. Errors become statuses in mesh.rpc."""

from collections.abc import AsyncIterator
from typing import Any

from tagset.evaluate import CountedNode
from tagset.explain import ExplainedNode, because
from tagsvc.audience import Audience, chunks
from tagsvc.watches import Watches
from tidings.tag.v1 import audience_pb2 as pb
from tidings.tag.v1.audience_pb2_grpc import AudienceServiceServicer

Context = Any  # grpc.aio.ServicerContext; nothing here looks at it


class AudienceServicer(AudienceServiceServicer):
    """Serves who is meant by an expression."""

    def __init__(self, audience: Audience, watches: Watches) -> None:
        self._audience = audience
        self._watches = watches

    async def ValidateExpression(self, request: pb.ValidateExpressionRequest, context: Context) -> pb.ValidateExpressionResponse:
        """Checks an expression."""
        question, names, form = await self._audience.validate(request.expression)
        return pb.ValidateExpressionResponse(canonical_expression=form, names=names, version=question.snapshot.version)

    async def CountExpression(self, request: pb.CountExpressionRequest, context: Context) -> pb.CountExpressionResponse:
        """Counts an expression and its parts."""
        question, tree, form = await self._audience.count(request.expression, request.version)
        return pb.CountExpressionResponse(
            count=tree.count,
            root=_counted(tree),
            known_clients=question.known,
            version=question.snapshot.version,
            canonical_expression=form,
        )

    async def ExpandExpression(
        self, request: pb.ExpandExpressionRequest, context: Context
    ) -> AsyncIterator[pb.ExpandExpressionResponse]:
        """Everybody meant, as bitmaps."""
        question, members = await self._audience.expand(request.expression, request.version)
        for chunk in chunks(members):
            yield pb.ExpandExpressionResponse(
                user_ordinals=chunk.serialize(),
                version=question.snapshot.version,
                count=len(members),
                known_clients=question.known,
            )

    async def ListAudience(self, request: pb.ListAudienceRequest, context: Context) -> pb.ListAudienceResponse:
        """A page of those meant."""
        page = await self._audience.page(request.expression, request.version, request.page_size, request.page_token)
        return pb.ListAudienceResponse(
            user_ids=page.user_ids, next_page_token=page.next_page_token, version=page.version, count=page.count
        )

    async def ExplainUser(self, request: pb.ExplainUserRequest, context: Context) -> pb.ExplainUserResponse:
        """Whether one user is meant, and why."""
        question, tree = await self._audience.explain(request.user_id, request.expression, request.version)
        return pb.ExplainUserResponse(
            included=tree.included, explanation=because(tree), root=_explained(tree), version=question.snapshot.version
        )

    async def WatchSnapshots(self, request: pb.WatchSnapshotsRequest, context: Context) -> AsyncIterator[pb.WatchSnapshotsResponse]:
        """Tells of each new snapshot."""
        async for response in self._watches.watch(request):
            yield response


def _counted(node: CountedNode) -> pb.ExpressionNode:
    operands = [_counted(operand) for operand in node.operands]
    return pb.ExpressionNode(text=node.text, kind=node.kind, count=node.count, operands=operands, column=node.column)


def _explained(node: ExplainedNode) -> pb.ExplanationNode:
    operands = [_explained(operand) for operand in node.operands]
    return pb.ExplanationNode(text=node.text, kind=node.kind, included=node.included, operands=operands)

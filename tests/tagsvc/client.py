"""tagsvc as a business sees it: stubs over one channel, and short words for what tests say often."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest
from pyroaring import BitMap

from mesh import errors, patience, rpc
from tidings.tag.v1 import audience_pb2 as audience
from tidings.tag.v1 import tag_pb2 as pb
from tidings.tag.v1.audience_pb2_grpc import AudienceServiceStub
from tidings.tag.v1.tag_pb2_grpc import TagServiceStub

READY_SECONDS = 10.0


class Refusal:
    """What a call was refused with.

    Attributes:
        error: set when the block has ended.
    """

    error: errors.TidingsError


@contextmanager
def refused(reason: str, field: str | None = None) -> Iterator[Refusal]:
    """The block's call is refused with this reason, and about this field."""
    refusal = Refusal()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield refusal
    refusal.error = errors.from_rpc_error(raised.value)
    assert refusal.error.reason == reason, refusal.error.message
    if field is not None:
        assert refusal.error.field == field


class TagClient:
    """Calls one tagsvc."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.tags: Any = TagServiceStub(channel)
        self.audience: Any = AudienceServiceStub(channel)
        self._numbers = itertools.count(1)

    async def create(self, *names: str) -> int:
        """Create tags; gives the last one's revision."""
        made = [await self.tags.CreateTag(pb.CreateTagRequest(name=name)) for name in names]
        return int(made[-1].tag.revision)

    async def apply(self, *chunks: pb.ApplyMappingRequest) -> list[pb.ApplyMappingResponse]:
        """Stream chunks; the answers."""
        call = self.tags.ApplyMapping(iter(chunks))
        return [response async for response in call]

    async def add(self, tag: str, *user_ids: str) -> int:
        """Give users a tag, which comes into being when new; gives the version."""
        return (await self.apply(chunk(add={tag: user_ids})))[-1].version

    async def remove(self, tag: str, *user_ids: str) -> int:
        """Take a tag from users; gives the version."""
        return (await self.apply(chunk(remove={tag: user_ids})))[-1].version

    async def replace(self, tag: str, *messages: Iterable[str]) -> pb.ReplaceMembersResponse:
        """Replace a tag's members."""
        last = len(messages) - 1
        requests = [pb.ReplaceMembersRequest(tag=tag, user_ids=ids, last=n == last) for n, ids in enumerate(messages)]
        return await self.tags.ReplaceMembers(iter(requests))  # type: ignore[no-any-return]

    async def alias(self, name: str, target: str) -> None:
        """Put an alias."""
        await self.tags.PutAlias(pb.PutAliasRequest(name=name, target=target))

    async def combine(self, name: str, expression: str) -> pb.Combination:
        """Put a combination."""
        response = await self.tags.PutCombination(pb.PutCombinationRequest(name=name, expression=expression))
        return response.combination  # type: ignore[no-any-return]

    async def count(self, expression: str, version: int = 0) -> int:
        """How many are meant."""
        request = audience.CountExpressionRequest(expression=expression, version=version)
        return int((await self.audience.CountExpression(request)).count)

    async def expand(self, expression: str, version: int = 0) -> BitMap:
        """Everybody meant, as ordinals."""
        found = BitMap()
        request = audience.ExpandExpressionRequest(expression=expression, version=version)
        async for response in self.audience.ExpandExpression(request):
            chunk_ = BitMap.deserialize(response.user_ordinals)
            assert not found or not chunk_ or chunk_.min() > found.max()
            found |= chunk_
        return found

    async def people(self, expression: str, version: int = 0, page_size: int = 0) -> list[str]:
        """Everybody meant, by id."""
        found, token, tokens = list[str](), "", set[str]()
        while True:
            assert token not in tokens, "the pages go round"
            tokens.add(token)
            page = await self.audience.ListAudience(
                audience.ListAudienceRequest(expression=expression, version=version, page_size=page_size, page_token=token)
            )
            found += page.user_ids
            token = page.next_page_token
            if not token:
                return found

    async def members(self, tag: str) -> list[str]:
        """Who has a tag."""
        return list((await self.tags.ListMembers(pb.ListMembersRequest(name=tag))).user_ids)

    async def version(self) -> int:
        """The newest snapshot's."""
        return int((await self.audience.ValidateExpression(audience.ValidateExpressionRequest(expression="*"))).version)

    async def reach(self, version: int) -> None:
        """Wait until the newest snapshot is this one, or later."""
        async with asyncio.timeout(10):
            async for response in self.audience.WatchSnapshots(audience.WatchSnapshotsRequest()):
                if response.version >= version:
                    return

    async def ready(self) -> None:
        """Wait until it has caught up with the log."""

        async def ask() -> None:
            with rpc.named_errors():
                await self.tags.ListAliases(pb.ListAliasesRequest())

        await patience.until_done(ask, READY_SECONDS)


def chunk(
    add: dict[str, Any] | None = None,
    remove: dict[str, Any] | None = None,
    users: Iterable[pb.UserChange] = (),
    create: bool = True,
) -> pb.ApplyMappingRequest:
    """A chunk: tag -> users."""
    added, removed = add or {}, remove or {}
    tags = [
        pb.TagChange(tag=tag, add_user_ids=added.get(tag, ()), remove_user_ids=removed.get(tag, ()))
        for tag in dict.fromkeys([*added, *removed])
    ]
    return pb.ApplyMappingRequest(tags=tags, users=users, create_tags=create)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[TagClient]:
    """A client of the tagsvc there, which is ready."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 << 20)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        client = TagClient(channel)
        await client.ready()
        yield client

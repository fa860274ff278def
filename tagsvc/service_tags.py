"""tidings.tag.v1.TagService: contract in, one call, contract out. Errors become statuses in mesh.rpc."""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

from google.protobuf.message import Message

from tagsvc import catalogue, expressions, fields, pages
from tagsvc.changes import CreateTag, PutAlias, PutCombination, UpdateTag
from tagsvc.deletions import Deletions
from tagsvc.journal import Journal
from tagsvc.mapping import Mapping
from tagsvc.people import People
from tagsvc.questions import Questions
from tagsvc.writer import Writer
from tidings.tag.v1 import tag_pb2 as pb
from tidings.tag.v1.tag_pb2_grpc import TagServiceServicer

_PAGE_SIZE = 100  # of names, when a caller asks for none; both as the contract says
_MAX_PAGE_SIZE = 1000
T = TypeVar("T", bound=Message)
Context = Any  # grpc.aio.ServicerContext; nothing here looks at it


class TagServicer(TagServiceServicer):
    """Serves tags, aliases, combinations, and who has which tag.

    Args:
        most: tags there may be; so many aliases, and so many combinations.
    """

    def __init__(
        self,
        journal: Journal,
        writer: Writer,
        deletions: Deletions,
        mapping: Mapping,
        people: People,
        questions: Questions,
        most: int,
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._deletions = deletions
        self._mapping = mapping
        self._people = people
        self._questions = questions
        self._most = most

    async def CreateTag(self, request: pb.CreateTagRequest, context: Context) -> pb.CreateTagResponse:
        """Creates a tag."""
        request_id, name = fields.request_id(request.request_id), fields.name("name", request.name)
        description, attributes = fields.description(request.description), fields.attributes(request.attributes)
        digest = fields.request_digest(request)
        done = await self._writer.change(CreateTag(name, description, attributes, request_id, digest, most=self._most))
        made = catalogue.tag_as_made(done.snapshot.tags.get(name), done.version, name, description, attributes)
        return pb.CreateTagResponse(tag=made)

    async def UpdateTag(self, request: pb.UpdateTagRequest, context: Context) -> pb.UpdateTagResponse:
        """Changes a tag."""
        request_id, name = fields.request_id(request.request_id), fields.name("name", request.name)
        description = fields.description(request.description) if request.HasField("description") else None
        attributes = fields.attributes(request.attributes.values) if request.HasField("attributes") else None
        digest, expected = fields.request_digest(request), request.expected_revision
        done = await self._writer.change(UpdateTag(name, description, attributes, expected, request_id, digest))
        made = catalogue.tag_as_made(done.snapshot.tags.get(name), done.version, name, description, attributes)
        return pb.UpdateTagResponse(tag=made)

    async def DeleteTag(self, request: pb.DeleteTagRequest, context: Context) -> pb.DeleteTagResponse:
        """Deletes a tag."""
        return pb.DeleteTagResponse(version=await self._deletions.delete("tag", request))

    async def GetTag(self, request: pb.GetTagRequest, context: Context) -> pb.GetTagResponse:
        """One tag."""
        return pb.GetTagResponse(tag=catalogue.tag(catalogue.find_tag(self._journal.newest(), request.name)))

    async def ListTags(self, request: pb.ListTagsRequest, context: Context) -> pb.ListTagsResponse:
        """Tags by name."""
        tags = self._journal.newest().tags
        found, token = _page(tags, lambda name: catalogue.tag(tags[name]), request, request.prefix)
        return pb.ListTagsResponse(tags=found, next_page_token=token)

    async def PutAlias(self, request: pb.PutAliasRequest, context: Context) -> pb.PutAliasResponse:
        """Creates an alias, or moves it."""
        request_id, name = fields.request_id(request.request_id), fields.name("name", request.name)
        target = fields.name("target", request.target)
        await self._writer.change(PutAlias(name, target, request_id, fields.request_digest(request), most=self._most))
        return pb.PutAliasResponse(alias=pb.Alias(name=name, target=target))

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Context) -> pb.DeleteAliasResponse:
        """Deletes an alias."""
        return pb.DeleteAliasResponse(version=await self._deletions.delete("alias", request))

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Context) -> pb.ListAliasesResponse:
        """Aliases by name."""
        aliases = self._journal.newest().aliases
        found, token = _page(aliases, lambda name: pb.Alias(name=name, target=aliases[name]), request)
        return pb.ListAliasesResponse(aliases=found, next_page_token=token)

    async def PutCombination(self, request: pb.PutCombinationRequest, context: Context) -> pb.PutCombinationResponse:
        """Saves an expression."""
        request_id, name = fields.request_id(request.request_id), fields.name("name", request.name)
        description, expression = fields.description(request.description), expressions.read(request.expression)
        digest = fields.request_digest(request)
        change = PutCombination(name, expression, description, request.expected_revision, request_id, digest, most=self._most)
        if not self._writer.carried_out(request_id):
            await self._questions.check(expression)
        done = await self._writer.change(change)
        return pb.PutCombinationResponse(combination=change.made(done.version))

    async def DeleteCombination(self, request: pb.DeleteCombinationRequest, context: Context) -> pb.DeleteCombinationResponse:
        """Deletes a combination."""
        return pb.DeleteCombinationResponse(version=await self._deletions.delete("combination", request))

    async def ListCombinations(self, request: pb.ListCombinationsRequest, context: Context) -> pb.ListCombinationsResponse:
        """Combinations by name."""
        combinations = self._journal.newest().combinations
        found, token = _page(combinations, lambda name: catalogue.combination(combinations[name]), request)
        return pb.ListCombinationsResponse(combinations=found, next_page_token=token)

    async def ApplyMapping(
        self, requests: AsyncIterator[pb.ApplyMappingRequest], context: Context
    ) -> AsyncIterator[pb.ApplyMappingResponse]:
        """Adds and removes memberships."""
        async for response in self._mapping.apply(requests):
            yield response

    async def ReplaceMembers(
        self, requests: AsyncIterator[pb.ReplaceMembersRequest], context: Context
    ) -> pb.ReplaceMembersResponse:
        """Replaces all members of a tag."""
        return await self._mapping.replace(requests)

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        """Who has a tag."""
        page = await self._people.members(request.name, request.page_size, request.page_token)
        return pb.ListMembersResponse(user_ids=page.user_ids, next_page_token=page.next_page_token, version=page.version)

    async def ListUserTags(self, request: pb.ListUserTagsRequest, context: Context) -> pb.ListUserTagsResponse:
        """Which tags a user has."""
        tags, version = await self._people.tags_of(request.user_id)
        return pb.ListUserTagsResponse(tags=tags, version=version)


def _page(
    names: Iterable[str],
    show: Callable[[str], T],
    request: pb.ListTagsRequest | pb.ListAliasesRequest | pb.ListCombinationsRequest,
    prefix: str = "",
) -> tuple[list[T], str]:
    """A page by name, and the token of the next."""
    listed = f"{request.DESCRIPTOR.name} {prefix}"
    size = pages.page_size(request.page_size, _PAGE_SIZE, _MAX_PAGE_SIZE)
    shown, last = catalogue.page(names, pages.read_name_token(request.page_token, listed), size, show, prefix)
    return shown, pages.name_token(last, listed) if last else ""

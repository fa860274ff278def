"""tidings.store.v1.ConversationService: contract in, one call, contract out."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import grpc

from mesh import errors, naming
from store import checks, codec, conversations, groups
from store.conversations import ListingPlace
from store.groups import Changed, NewGroup
from store.model import Retention, Role
from store.ports import Database
from tidings.store.v1 import conversation_pb2 as pb
from tidings.store.v1 import conversation_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
R = TypeVar("R", pb.CreateGroupResponse, pb.UpdateConversationResponse, pb.PutMemberResponse, pb.RemoveMemberResponse)


class ConversationServicer(conversation_pb2_grpc.ConversationServiceServicer):
    """Serves conversations and their members.

    Args:
        database: where they are.
        clock: microseconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def EnsureDirect(self, request: pb.EnsureDirectRequest, context: Context) -> pb.EnsureDirectResponse:
        """Makes direct conversations exist; mostly they do, and then nothing is written."""
        checks.listed("pairs", request.pairs)
        pairs = [_pair(pair) for pair in request.pairs]
        names = [naming.direct_conversation_id(*pair) for pair in pairs]
        found = await self._database.read(partial(conversations.find_conversations, conversation_ids=names))
        if len(found) < len(set(names)):
            found = await self._database.write(partial(conversations.ensure_direct, pairs=pairs, now=self._clock()))
        return pb.EnsureDirectResponse(conversations=[codec.conversation(found[name]) for name in names])

    async def CreateGroup(self, request: pb.CreateGroupRequest, context: Context) -> pb.CreateGroupResponse:
        """Creates a group."""
        new = _new_group(request)
        changed = await self._database.write(partial(groups.create_group, new=new, now=self._clock()))
        response = pb.CreateGroupResponse(conversation=codec.conversation(changed.conversation))
        return _with_entry(response, changed)

    async def GetConversations(self, request: pb.GetConversationsRequest, context: Context) -> pb.GetConversationsResponse:
        """Finds conversations."""
        checks.listed("conversation_ids", request.conversation_ids)
        wanted = [name for name in dict.fromkeys(request.conversation_ids) if naming.CONVERSATION_ID.fullmatch(name)]
        found = await self._database.read(partial(conversations.find_conversations, conversation_ids=wanted))
        return pb.GetConversationsResponse(conversations=[codec.conversation(found[name]) for name in wanted if name in found])

    async def ListConversations(self, request: pb.ListConversationsRequest, context: Context) -> pb.ListConversationsResponse:
        """A page of a user's conversations."""
        user_id = checks.user_id("user_id", request.user_id)
        size = checks.page_size(request.page_size)
        place = ListingPlace.parse(request.page_token) if request.page_token else None
        work = partial(conversations.list_conversations, user_id=user_id, place=place, page_size=size)
        page, following = await self._database.read(work)
        return pb.ListConversationsResponse(
            conversations=map(codec.conversation, page), next_page_token=str(following) if following else ""
        )

    async def UpdateConversation(self, request: pb.UpdateConversationRequest, context: Context) -> pb.UpdateConversationResponse:
        """Renames, or changes what is kept."""
        work = partial(
            groups.update_conversation,
            conversation_id=checks.conversation_id(request.conversation_id),
            actor_id=checks.user_id("actor_id", request.actor_id),
            name=checks.group_name(request.name) if request.name else "",
            retention=codec.retention(request.retention) if request.HasField("retention") else None,
            now=self._clock(),
        )
        changed = await self._database.write(work)
        response = pb.UpdateConversationResponse(conversation=codec.conversation(changed.conversation))
        return _with_entry(response, changed)

    async def PutMember(self, request: pb.PutMemberRequest, context: Context) -> pb.PutMemberResponse:
        """Adds a member or changes a role."""
        work = partial(
            groups.put_member,
            conversation_id=checks.conversation_id(request.conversation_id),
            actor_id=checks.user_id("actor_id", request.actor_id),
            member_id=checks.user_id("member_id", request.member_id),
            role=_role(request.role),
            now=self._clock(),
        )
        changed = await self._database.write(work)
        return _with_entry(pb.PutMemberResponse(conversation=codec.conversation(changed.conversation)), changed)

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        """Removes a member."""
        work = partial(
            groups.remove_member,
            conversation_id=checks.conversation_id(request.conversation_id),
            actor_id=checks.user_id("actor_id", request.actor_id),
            member_id=checks.user_id("member_id", request.member_id),
            now=self._clock(),
        )
        changed = await self._database.write(work)
        response = pb.RemoveMemberResponse(
            conversation=codec.conversation(changed.conversation), removed_user_ordinal=changed.removed_ordinal
        )
        return _with_entry(response, changed)


def _with_entry(response: R, changed: Changed) -> R:
    if changed.entry is not None:
        response.entry.CopyFrom(codec.log_entry(changed.entry))
    return response


def _pair(pair: pb.DirectPair) -> tuple[str, str]:
    first = checks.user_id("pairs.first_user_id", pair.first_user_id)
    second = checks.user_id("pairs.second_user_id", pair.second_user_id)
    if first == second:
        raise errors.invalid_recipient(second)
    return first, second


def _new_group(request: pb.CreateGroupRequest) -> NewGroup:
    return NewGroup(
        actor_id=checks.user_id("actor_id", request.actor_id),
        request_id=checks.request_id(request.request_id),
        request_hash=hashlib.sha256(request.SerializeToString(deterministic=True)).digest(),
        name=checks.group_name(request.name),
        member_ids=tuple(checks.user_id("member_ids", user_id) for user_id in request.member_ids),
        retention=codec.retention(request.retention) if request.HasField("retention") else Retention(),
    )


def _role(number: int) -> Role | None:
    if number not in {0, *Role}:
        raise errors.invalid_field("role", "OWNER, ADMIN or MEMBER")
    return Role(number) if number else None

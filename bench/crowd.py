"""The users of a run and the lanes they talk in: connects them by the balancer, opens their groups, deals out messages."""

import asyncio
import itertools

import aiohttp
from google.protobuf import json_format

from bench import frames
from bench.invitations import invite
from bench.ledger import Lane, Ledger
from bench.user import BenchUser
from mesh.naming import direct_conversation_id
from tidings.client.v1 import http_pb2
from tidings.common.v1 import conversation_pb2

MIXES: dict[str, dict[int, int]] = {  # of 100 messages, so many go to conversations of so many members
    "pairs": {2: 100},
    "groups10": {10: 100},
    "groups100": {100: 100},
    "mixed": {2: 80, 10: 15, 100: 5},
}
_AT_ONCE = 50  # connections being opened at the same time
_OPEN_SECONDS = 60.0


class Crowd:
    """Users 0 … n-1 of one run.

    Args:
        url: the balancer's.
        tokens: user id -> token.
        message_bytes: bytes of text per message.
        ledger: the accounts.
    """

    def __init__(self, url: str, tokens: dict[str, str], message_bytes: int, ledger: Ledger) -> None:
        self._url = url.rstrip("/")
        self._tokens = tokens
        self._bytes = message_bytes
        self.users = [BenchUser(index, user_id, ledger) for index, user_id in enumerate(tokens)]
        self.lanes: dict[int, list[tuple[Lane, frames.MessageMould]]] = {}

    async def connect(self) -> str:
        """Connect everyone; gives the URL of an edge's HTTP API."""
        room = asyncio.Semaphore(_AT_ONCE)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE)) as session:
            apis = await asyncio.gather(*(self._connect_one(session, user, room) for user in self.users))
        return apis[0]

    async def open_lanes(self, sizes: list[int], api_url: str) -> None:
        """Pair everyone, and make groups of the sizes asked for."""
        async with aiohttp.ClientSession() as session:
            for size in sizes:
                self.lanes[size] = self._pairs() if size == 2 else await self._groups(session, api_url, size)

    def greetings(self) -> list[tuple[Lane, frames.MessageMould]]:
        """Per pair one lane addressed by user, so that its first message brings the conversation into being."""
        moulds = [frames.MessageMould(other.user_id, self._bytes, recipient=True) for _, other in self._couples()]
        return [(_direct(one, other), mould) for (one, other), mould in zip(self._couples(), moulds, strict=True)]

    def deal(self, mix: str) -> "itertools.cycle[tuple[Lane, frames.MessageMould]]":
        """The order in which lanes take messages, over and over: a fixed shuffle that spreads senders and sizes evenly."""
        shares = MIXES[mix]
        longest = max(-(-len(self.lanes[size]) * 100 // share) for size, share in shares.items())
        takers = {size: itertools.cycle(self.lanes[size]) for size in shares}
        pattern = _interleave(shares)
        return itertools.cycle([next(takers[size]) for _, size in zip(range(longest), itertools.cycle(pattern), strict=False)])

    async def _connect_one(self, session: aiohttp.ClientSession, user: BenchUser, room: asyncio.Semaphore) -> str:
        async with room:
            invitation = await invite(session, self._url, self._tokens[user.user_id])
            await user.open(invitation.url, _OPEN_SECONDS)
            return invitation.api_url

    def _couples(self) -> list[tuple[BenchUser, BenchUser]]:
        return list(zip(self.users[::2], self.users[1::2], strict=False))

    def _pairs(self) -> list[tuple[Lane, frames.MessageMould]]:
        lanes = [_direct(*couple) for couple in self._couples()] + [_direct(b, a) for a, b in self._couples()]
        return [(lane, frames.MessageMould(lane.conversation, self._bytes)) for lane in lanes]

    async def _groups(self, session: aiohttp.ClientSession, api_url: str, size: int) -> list[tuple[Lane, frames.MessageMould]]:
        lanes = []
        for start in range(0, len(self.users) - size + 1, size):
            members = self.users[start : start + size]
            conversation = await self._create_group(session, api_url, members)
            mould = frames.MessageMould(conversation, self._bytes)
            lanes += [(Lane(member.index, conversation, size - 1), mould) for member in members]
        if not lanes:
            raise ValueError(f"groups of {size} need at least {size} users: give more with --users")
        return lanes

    async def _create_group(self, session: aiohttp.ClientSession, api_url: str, members: list[BenchUser]) -> str:
        owner, *others = (member.user_id for member in members)
        group = conversation_pb2.CONVERSATION_KIND_GROUP
        request = http_pb2.CreateChatRequest(request_id=f"{owner}-{len(others)}", kind=group, member_ids=others, name="bench")
        headers = {"Authorization": f"Bearer {self._tokens[owner]}", "Content-Type": "application/json"}
        body = json_format.MessageToJson(request, preserving_proto_field_name=True)
        async with session.post(f"{api_url}/api/v1/chats", data=body, headers=headers) as response:
            text = await response.text()
            if response.status != 200:
                raise ConnectionError(f"creating a group answered {response.status}: {text}")
        return json_format.Parse(text, http_pb2.Chat(), ignore_unknown_fields=True).conversation.conversation_id


def _direct(sender: BenchUser, other: BenchUser) -> Lane:
    return Lane(sender.index, direct_conversation_id(sender.user_id, other.user_id), 1)


def _interleave(shares: dict[int, int]) -> list[int]:
    """100 sizes, each as often as its share says, spread evenly."""
    places = [((n + 0.5) / share, size) for size, share in shares.items() for n in range(share)]
    return [size for _, size in sorted(places)]

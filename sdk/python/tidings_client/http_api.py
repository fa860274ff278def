"""The HTTP API of an edge, for what isn't a stream: opening chats, listing them, and who is in them."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from google.protobuf import json_format
from google.protobuf.message import Message as Protobuf

from tidings.client.v1 import http_pb2 as pb
from tidings.common.v1 import conversation_pb2, error_pb2
from tidings.common.v1.conversation_pb2 import Conversation, Retention
from tidings.common.v1.error_pb2 import Error
from tidings_client.door import Tokens
from tidings_client.errors import NotConnected, RequestFailed

TIMEOUT = aiohttp.ClientTimeout(total=20)
PAGE = 100  # conversations of one page of a list

T = TypeVar("T", bound=Protobuf)


class HttpApi:
    """See http.proto.

    Args:
        base: gives the API's base URL, waiting until it is known.
    """

    def __init__(self, http: aiohttp.ClientSession, tokens: Tokens, base: Callable[[], Awaitable[str]]) -> None:
        self._http = http
        self._tokens = tokens
        self._base = base

    async def create_group(self, request_id: str, name: str, members: list[str], retention: Retention | None) -> Conversation:
        """Open a group; the same request_id and content give the same group."""
        group = conversation_pb2.CONVERSATION_KIND_GROUP
        request = pb.CreateChatRequest(request_id=request_id, kind=group, member_ids=members, name=name, retention=retention)
        return (await self._call("POST", "/api/v1/chats", pb.Chat(), request)).conversation

    async def list(self) -> list[Conversation]:
        """All the user's conversations, the most recently active first."""
        found: list[Conversation] = []
        token = ""
        while True:
            query = {"limit": str(PAGE), **({"page_token": token} if token else {})}
            page = await self._call("GET", "/api/v1/chats", pb.ListChatsResponse(), query=query)
            found += page.conversations
            token = page.next_page_token
            if not token:
                return found

    async def get(self, conversation_id: str) -> Conversation:
        """One conversation with its members and their marks."""
        return (await self._call("GET", _chat(conversation_id), pb.Chat())).conversation

    async def update(self, conversation_id: str, name: str, retention: Retention | None) -> Conversation:
        """Rename, or change what is kept."""
        request = pb.UpdateChatRequest(name=name, retention=retention)
        return (await self._call("PATCH", _chat(conversation_id), pb.Chat(), request)).conversation

    async def put_member(self, conversation_id: str, user_id: str, role: conversation_pb2.Role.ValueType) -> Conversation:
        """Add a member or change their role."""
        path = f"{_chat(conversation_id)}/members/{quote(user_id, safe='')}"
        return (await self._call("PUT", path, pb.Chat(), pb.PutMemberRequest(role=role))).conversation

    async def delete_member(self, conversation_id: str, user_id: str) -> Conversation:
        """Remove a member, or leave."""
        path = f"{_chat(conversation_id)}/members/{quote(user_id, safe='')}"
        return (await self._call("DELETE", path, pb.Chat())).conversation

    async def _call(
        self, method: str, path: str, answer: T, request: Protobuf | None = None, query: dict[str, str] | None = None
    ) -> T:
        """One call.

        Raises:
            RequestFailed: the server refused it.
            NotConnected: the server can't be reached.
        """
        body = None if request is None else json_format.MessageToJson(request, preserving_proto_field_name=True, indent=None)
        url = await self._base() + path
        try:
            status, text = await self._send(method, url, query or {}, body)
            if status == 401 and self._tokens.renewable:
                await self._tokens.renew()
                status, text = await self._send(method, url, query or {}, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NotConnected(f"{url} can't be reached ({error or type(error).__name__}): try again") from error
        if status != 200:
            raise RequestFailed(_error(status, text))
        return json_format.Parse(text, answer, ignore_unknown_fields=True)

    async def _send(self, method: str, url: str, query: dict[str, str], body: str | None) -> tuple[int, str]:
        headers: dict[str, Any] = {"Authorization": f"Bearer {await self._tokens.get()}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        async with self._http.request(method, url, params=query, data=body, headers=headers, timeout=TIMEOUT) as response:
            return response.status, await response.text()


def _chat(conversation_id: str) -> str:
    return f"/api/v1/chats/{quote(conversation_id, safe='')}"


def _error(status: int, text: str) -> Error:
    try:
        error = json_format.Parse(text, Error(), ignore_unknown_fields=True)
        if error.code:
            return error
    except json_format.ParseError:
        pass
    code = error_pb2.ERROR_CODE_UNAUTHENTICATED if status == 401 else error_pb2.ERROR_CODE_UNSPECIFIED
    return Error(code=code, message=f"HTTP {status}: {text[:200]}")

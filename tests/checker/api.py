"""The HTTP API as a stranger would use it: history, chats and members, in a user's name, past the SDK and its cache."""

from collections import deque
from typing import Any, TypeVar

import aiohttp
from google.protobuf import json_format
from google.protobuf.message import Message as Protobuf

from tests.checker.history import Entry
from tidings.client.v1 import frames_pb2, http_pb2
from tidings.common.v1 import conversation_pb2, error_pb2
from tidings.common.v1.conversation_pb2 import Conversation, LogEntry

T = TypeVar("T", bound=Protobuf)
_TIMEOUT = aiohttp.ClientTimeout(total=8)
_KINDS = {"content": "message", "edit": "edit", "deletion": "deletion", "membership": "membership"}


class RefusedError(Exception):
    """The server answered, and said no.

    Attributes:
        reason: the error's name, empty when it had none.
        retry_after: seconds, None when it gave none.
    """

    def __init__(self, status: int, error: error_pb2.Error) -> None:
        super().__init__(f"{status} {error.message}")
        known = error_pb2.ErrorCode.DESCRIPTOR.values_by_number.get(error.code)
        self.reason = known.name.removeprefix("ERROR_CODE_") if error.code and known else ""
        self.retry_after = error.retry_after.ToTimedelta().total_seconds() if error.HasField("retry_after") else None


class Api:
    """Asks in the name of one user.

    Args:
        session: of aiohttp.
        url: the balancer's; several with commas between.
        token: the user's.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session = session
        self._balancers = deque(one.rstrip("/") for one in url.split(","))
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._edge = ""

    async def create_group(self, request_id: str, name: str, members: list[str]) -> Conversation:
        """Open a group."""
        kind = conversation_pb2.CONVERSATION_KIND_GROUP
        request = http_pb2.CreateChatRequest(request_id=request_id, kind=kind, member_ids=members, name=name)
        return (await self._call("POST", "/api/v1/chats", http_pb2.Chat(), request)).conversation

    async def add(self, conversation: str, user: str) -> Conversation:
        """Add a member."""
        path = f"/api/v1/chats/{conversation}/members/{user}"
        return (await self._call("PUT", path, http_pb2.Chat(), http_pb2.PutMemberRequest())).conversation

    async def remove(self, conversation: str, user: str) -> Conversation:
        """Remove a member, or leave."""
        return (await self._call("DELETE", f"/api/v1/chats/{conversation}/members/{user}", http_pb2.Chat())).conversation

    async def conversations(self) -> list[Conversation]:
        """The user's conversations, at most a thousand."""
        answer = await self._call("GET", "/api/v1/chats", http_pb2.ListChatsResponse(), query={"limit": "1000"})
        return list(answer.conversations)

    async def page(self, conversation: str, direction: str, position: int | None, limit: int) -> frames_pb2.MessagePage:
        """A page of history: after or before a seq, or the newest."""
        query = {"limit": str(limit), **({} if position is None else {direction: str(position)})}
        return await self._call("GET", f"/api/v1/chats/{conversation}/messages", frames_pb2.MessagePage(), query=query)

    async def _call(
        self, method: str, path: str, answer: T, request: Protobuf | None = None, query: dict[str, str] | None = None
    ) -> T:
        """One call.

        Raises:
            RefusedError: the server said no.
            aiohttp.ClientError, OSError, TimeoutError: nobody knows.
        """
        try:
            if not self._edge:
                asked = f"{self._balancers[0]}/v1/connect"
                self._edge = (await self._ask("POST", asked, http_pb2.ConnectResponse(), "{}", {})).api_url
            body = None if request is None else json_format.MessageToJson(request, preserving_proto_field_name=True, indent=None)
            return await self._ask(method, self._edge + path, answer, body, query or {})
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._edge = ""  # the next call looks for another way
            self._balancers.rotate()
            raise

    async def _ask(self, method: str, url: str, answer: T, body: str | None, query: dict[str, str]) -> T:
        arguments: dict[str, Any] = {"data": body, "params": query, "headers": self._headers, "timeout": _TIMEOUT}
        async with self._session.request(method, url, **arguments) as response:
            text = await response.text()
            if response.status != 200:
                raise RefusedError(response.status, _error(text))
            return json_format.Parse(text, answer, ignore_unknown_fields=True)


def entry_of(entry: LogEntry) -> Entry:
    """A log entry as histories keep it."""
    body = entry.WhichOneof("body") or ""
    edit, event = entry.edit if body == "edit" else None, entry.membership
    content = edit.content if edit is not None else entry.content
    return Entry(
        seq=entry.seq,
        message_id=entry.message_id,
        sender=entry.sender_id,
        client_msg_id=entry.client_msg_id,
        content=content.text.text,
        kind=_KINDS.get(body, "unknown"),
        target_seq=edit.target_seq if edit is not None else entry.deletion.target_seq,
        change=change_name(event.change) if body == "membership" else "",
        users=tuple(event.user_ids),
    )


def change_name(change: "conversation_pb2.MembershipChange.ValueType") -> str:
    """A membership change's name as histories keep it."""
    return conversation_pb2.MembershipChange.Name(change).removeprefix("MEMBERSHIP_CHANGE_").lower()


def _error(text: str) -> error_pb2.Error:
    try:
        return json_format.Parse(text, error_pb2.Error(), ignore_unknown_fields=True)
    except json_format.ParseError:
        return error_pb2.Error(message=text[:200])

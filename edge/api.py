"""The HTTP API: chats, their members and messages, as http.proto lists them. Each request is one call to a router."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from aiohttp import web

from edge import bodies, requests
from edge.door import Door
from edge.rate import TokenBucket
from edge.router_calls import RouterCalls
from edge.rules import Rules
from edge.settings import EdgeSettings
from edge.switchboard import Switchboard
from mesh import errors, naming
from tidings.client.v1 import frames_pb2, http_pb2
from tidings.common.v1 import conversation_pb2
from tidings.router.v1 import conversation_pb2 as calls

GROUP_BYTES = 1_048_576  # of a request for a new group: 5,000 members, the most there can be, with the longest ids
BURST_FACTOR = 5  # requests of one user at once, in seconds of their rate
MAX_BUCKETS = 10_000  # users whose rate is remembered; past it the longest silent one is forgotten
MAX_PAGE = 1_000  # entries or chats of a page

Handler = Callable[[web.Request, str], Awaitable[web.Response]]


class Api:
    """Handlers by route. Every request carries a bearer token; the user it names is who asks."""

    def __init__(self, settings: EdgeSettings, rules: Rules, door: Door, switchboard: Switchboard) -> None:
        self._settings = settings
        self._rules = rules
        self._door = door
        self._routers = RouterCalls(switchboard)
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def routes(self) -> list[web.RouteDef]:
        """The routes of design and contract."""
        chat = "/api/v1/chats/{chat_id}"
        table: list[tuple[str, str, Handler]] = [
            ("POST", "/api/v1/chats", self.create_chat),
            ("GET", "/api/v1/chats", self.list_chats),
            ("GET", chat, self.get_chat),
            ("PATCH", chat, self.update_chat),
            ("GET", chat + "/messages", self.list_messages),
            ("POST", chat + "/messages", self.post_message),
            ("PUT", chat + "/members/{user_id}", self.put_member),
            ("DELETE", chat + "/members/{user_id}", self.remove_member),
            ("GET", "/messages/{user_id}", self.list_direct_messages),
        ]
        return [web.route(method, path, self._authenticated(handler)) for method, path, handler in table]

    async def create_chat(self, request: web.Request, user_id: str) -> web.Response:
        """POST /api/v1/chats"""
        body = await bodies.read(request, http_pb2.CreateChatRequest(), GROUP_BYTES, self._settings.body_seconds)
        if not naming.CLIENT_MSG_ID.fullmatch(body.request_id or "-"):
            raise errors.invalid_field("request_id", "give 1-64 printable ASCII characters")
        call = calls.CreateConversationRequest(
            user_id=user_id,
            request_id=body.request_id,
            kind=body.kind,
            member_ids=body.member_ids,
            name=body.name,
            retention=body.retention if body.HasField("retention") else None,
        )
        made = await self._routers.ask(user_id, lambda router: router.CreateConversation, call)
        return _chat(request, made.conversation)

    async def list_chats(self, request: web.Request, user_id: str) -> web.Response:
        """GET /api/v1/chats"""
        call = calls.ListConversationsRequest(
            user_id=user_id, page_size=_number(request, "limit", MAX_PAGE) or 0, page_token=request.query.get("page_token", "")
        )
        page = await self._routers.ask(user_id, lambda router: router.ListConversations, call)
        for conversation in page.conversations:
            _strip(conversation)
        chats = http_pb2.ListChatsResponse(conversations=page.conversations, next_page_token=page.next_page_token)
        return bodies.answer(request, chats)

    async def get_chat(self, request: web.Request, user_id: str) -> web.Response:
        """GET /api/v1/chats/{chat_id}"""
        chat_id = _chat_id(request)
        call = calls.GetConversationRequest(user_id=user_id, conversation_id=chat_id)
        found = await self._routers.ask(chat_id, lambda router: router.GetConversation, call)
        return _chat(request, found.conversation)

    async def update_chat(self, request: web.Request, user_id: str) -> web.Response:
        """PATCH /api/v1/chats/{chat_id}"""
        chat_id = _chat_id(request)
        body = await self._body(request, http_pb2.UpdateChatRequest())
        call = calls.UpdateConversationRequest(
            user_id=user_id,
            conversation_id=chat_id,
            name=body.name,
            retention=body.retention if body.HasField("retention") else None,
        )
        changed = await self._routers.ask(chat_id, lambda router: router.UpdateConversation, call)
        return _chat(request, changed.conversation)

    async def put_member(self, request: web.Request, user_id: str) -> web.Response:
        """PUT /api/v1/chats/{chat_id}/members/{user_id}"""
        chat_id = _chat_id(request)
        body = await self._body(request, http_pb2.PutMemberRequest())
        call = calls.PutMemberRequest(user_id=user_id, conversation_id=chat_id, member_id=_member_id(request), role=body.role)
        changed = await self._routers.ask(chat_id, lambda router: router.PutMember, call)
        return _chat(request, changed.conversation)

    async def remove_member(self, request: web.Request, user_id: str) -> web.Response:
        """DELETE /api/v1/chats/{chat_id}/members/{user_id}"""
        chat_id = _chat_id(request)
        call = calls.RemoveMemberRequest(user_id=user_id, conversation_id=chat_id, member_id=_member_id(request))
        changed = await self._routers.ask(chat_id, lambda router: router.RemoveMember, call)
        return _chat(request, changed.conversation)

    async def list_messages(self, request: web.Request, user_id: str) -> web.Response:
        """GET /api/v1/chats/{chat_id}/messages"""
        return await self._messages(request, user_id, _chat_id(request), _number(request, "after", requests.MAX_SEQ))

    async def list_direct_messages(self, request: web.Request, user_id: str) -> web.Response:
        """GET /messages/{user_id}"""
        chat_id = requests.direct(user_id, request.match_info["user_id"])
        return await self._messages(request, user_id, chat_id, _after_id(request, chat_id))

    async def post_message(self, request: web.Request, user_id: str) -> web.Response:
        """POST /api/v1/chats/{chat_id}/messages"""
        chat_id = _chat_id(request)
        body = await self._body(request, http_pb2.PostMessageRequest())
        message = frames_pb2.SendMessage(client_msg_id=body.client_msg_id, conversation_id=chat_id, content=body.content)
        requests.send(message, user_id, self._rules)  # the same bounds as over a connection
        call = calls.SendMessageRequest(
            user_id=user_id, conversation_id=chat_id, client_msg_id=body.client_msg_id, content=body.content
        )
        stored = await self._routers.ask(chat_id, lambda router: router.SendMessage, call)
        answer = frames_pb2.MessageStored(
            client_msg_id=body.client_msg_id,
            message_id=stored.message_id,
            conversation_id=chat_id,
            seq=stored.seq,
            store_time=stored.store_time,
        )
        return bodies.answer(request, answer)

    async def _messages(self, request: web.Request, user_id: str, chat_id: str, after: int | None) -> web.Response:
        call = calls.ListMessagesRequest(
            user_id=user_id, conversation_id=chat_id, page_size=_number(request, "limit", MAX_PAGE) or 0
        )
        before = _number(request, "before", requests.MAX_SEQ)
        if after is not None and before is not None:
            raise errors.invalid_field("before", "give before or after, not both")
        if after is not None:
            call.after_seq = after
        elif before is not None:
            call.before_seq = before
        found = await self._routers.ask(chat_id, lambda router: router.ListMessages, call)
        page = frames_pb2.MessagePage(
            conversation_id=chat_id,
            entries=found.entries,
            last_seq=found.last_seq,
            first_available_seq=found.first_available_seq,
            has_more=found.has_more,
        )
        return bodies.answer(request, page)

    def _authenticated(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            identity = await self._door.bearer(request)
            self._check_rate(identity.user_id)
            return await handler(request, identity.user_id)

        return handle

    def _check_rate(self, user_id: str) -> None:
        rate, now = self._settings.api_requests_per_second, asyncio.get_running_loop().time()
        bucket = self._buckets.pop(user_id, None) or TokenBucket(rate * BURST_FACTOR, now)
        self._buckets[user_id] = bucket
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not bucket.take(rate, rate * BURST_FACTOR, now):
            raise errors.rate_limited(1.0)

    async def _body(self, request: web.Request, into: bodies.M) -> bodies.M:
        return await bodies.read(request, into, self._settings.max_frame_bytes, self._settings.body_seconds)


def _chat(request: web.Request, conversation: conversation_pb2.Conversation) -> web.Response:
    _strip(conversation)
    return bodies.answer(request, http_pb2.Chat(conversation=conversation))


def _strip(conversation: conversation_pb2.Conversation) -> None:
    """Ordinals are internal."""
    for member in conversation.members:
        member.ClearField("user_ordinal")


def _chat_id(request: web.Request) -> str:
    return requests.conversation(request.match_info["chat_id"])


def _member_id(request: web.Request) -> str:
    user_id = request.match_info["user_id"]
    if not naming.USER_ID.fullmatch(user_id):
        raise errors.invalid_field("user_id", "give 1-128 characters of [A-Za-z0-9._@+-]")
    return user_id


def _number(request: web.Request, name: str, most: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise errors.invalid_field(name, f"give a number from 0 to {most}")
    return int(text)


def _after_id(request: web.Request, chat_id: str) -> int | None:
    text = request.query.get("after_id")
    if not text:
        return None
    try:
        conversation_id, seq = naming.parse_message_id(text)
    except ValueError:
        conversation_id, seq = "", 0
    if conversation_id != chat_id:
        raise errors.invalid_field("after_id", "give the message_id of a message of this chat")
    return seq

"""A balancer and an edge in one aiohttp application, over `FakeLog`, that misbehaves on command.

It keeps the edge's promises (frames handled in order; after a refusal for want of room, later sends of that conversation are
refused until the refused one comes again), and its tests can cut sockets, refuse, drop answers, hide live entries and order
clients away. A token is "user" or "user/anything"; those in `bad_tokens` are refused.
"""

import asyncio
import itertools
import math
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tests.sdk.fake_log import FakeLog, Room
from tidings.client.v1 import frames_pb2 as pb
from tidings.client.v1 import http_pb2
from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.common.v1 import conversation_pb2, error_pb2
from tidings.common.v1.conversation_pb2 import LogEntry

Verdict = error_pb2.Error | None


@dataclass(eq=False)
class Session:
    """One connection, over whichever transport."""

    user_id: str
    write: Callable[[ServerFrame], None]
    end: Callable[[int], None]
    device_id: str = ""
    open: bool = False
    awaited: dict[str, str] = field(default_factory=dict)
    number: int = 0


class FakeServer:
    """See the top of this file. What tests turn are its public attributes."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.url = ""
        self.sessions: list[Session] = []
        self.received: list[ClientFrame] = []
        self.connects = 0
        self.returns: list[str] = []
        """Tokens with which upgrades came, in place of a ticket."""
        self.hellos: list[pb.Hello] = []
        self.bad_tokens: set[str] = set()
        self.refresh_tokens: list[str] = []
        self.websocket_status = 0
        """When set, upgrades get this HTTP status."""
        self.connect_status = 0
        """When set, POST /v1/connect gets this HTTP status …"""
        self.retry_after = ""
        """… with this Retry-After."""
        self.upgrading = asyncio.Event()
        """While it isn't set, upgrades are left waiting."""
        self.upgrading.set()
        self.answering = asyncio.Event()
        """While it isn't set, so is POST /v1/connect."""
        self.answering.set()
        self.refuse: Callable[[ClientFrame], Verdict] = lambda frame: None
        self.silence: Callable[[ClientFrame], bool] = lambda frame: False
        """Frames that are swallowed before they are handled."""
        self.drop_stored = 0
        """So many answers to sends are lost after the message was stored."""
        self.refuse_chats: list[error_pb2.Error] = []
        """Answers to the next that ask for a conversation."""
        self.hide: Callable[[LogEntry, Session], bool] = lambda entry, session: False
        """Live entries that don't reach a session."""
        self.limits = pb.Limits(max_sends_in_flight=50, max_page_entries=100, max_frame_bytes=65536, max_content_bytes=16384)
        self.clock_offset = 0.0
        """Seconds by which this server's clock is ahead of ours; NaN for a server that doesn't tell its time."""
        self.notifications: dict[str, pb.Notification] = {}
        """What connecting users are sent, unless they have acknowledged it."""
        self.acknowledged: list[tuple[str, ...]] = []
        """Notifications of each acknowledging frame."""
        self.heartbeat = 30.0
        self.page = 50
        self.changed = asyncio.Condition()
        self._tickets: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._polls: dict[str, Poll] = {}
        self._sockets: set[Session] = set()  # also those that have not been welcomed
        self.marks: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        self.counts: Counter[str] = Counter()

    # ---- what tests do

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until something has come to pass here."""
        async with asyncio.timeout(timeout), self.changed:
            await self.changed.wait_for(condition)

    def cut(self) -> None:
        """All sockets at once."""
        for session in {*self.sessions, *self._sockets}:
            session.end(0)

    def close(self, code: int) -> None:
        """Close every session with a code."""
        for session in list(self.sessions):
            session.end(code)

    def tell(self, frame: ServerFrame) -> None:
        """Say something to everyone."""
        for session in list(self.sessions):
            session.write(frame)

    def announce(self, *notifications: pb.Notification) -> None:
        """Send notifications to everyone, again if they were before."""
        for notification in notifications:
            self.notifications[notification.notification_id] = notification
            self.tell(ServerFrame(notification=notification))

    def ticket(self, user_id: str) -> str:
        """A ticket of this edge, good once."""
        ticket = f"ticket-{next(self._numbers)}"
        self._tickets[ticket] = user_id
        return ticket

    @property
    def edge_url(self) -> str:
        """The edge's base URL."""
        return self.url.replace("http", "ws")

    def go_away(self, after: float, url: str = "", ticket: str = "") -> None:
        """Ask everyone to leave, for the edge at `url` if one is given."""
        frame = ServerFrame(go_away=pb.GoAway(url=url, ticket=ticket))
        frame.go_away.code = error_pb2.ERROR_CODE_GOING_AWAY
        frame.go_away.reconnect_after.FromMilliseconds(int(after * 1000))
        self.tell(frame)

    def say(self, sender: str, room: Room, text: str) -> LogEntry:
        """A message from someone who isn't connected."""
        entry = LogEntry(sender_id=sender, client_msg_id=f"outside-{uuid.uuid4().hex[:8]}")
        entry.content.text.text = text
        return self._store(room, entry, None)

    # ---- frames

    def on_frame(self, session: Session, frame: ClientFrame) -> None:
        self.received.append(frame)
        self.counts[frame.WhichOneof("body") or ""] += 1
        if not self.silence(frame):
            handler = getattr(self, f"_on_{frame.WhichOneof('body')}")
            handler(session, frame)
        self.notify()

    def notify(self) -> None:
        async def tell() -> None:
            async with self.changed:
                self.changed.notify_all()

        task = asyncio.ensure_future(tell())
        task.add_done_callback(lambda _: None)

    def leave(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.remove(session)
        self.notify()

    def _on_hello(self, session: Session, frame: ClientFrame) -> None:
        hello = frame.hello
        self.hellos.append(hello)
        for other in list(self.sessions):
            if (other.user_id, other.device_id) == (session.user_id, hello.device_id):
                other.end(error_pb2.ERROR_CODE_SESSION_REPLACED)
        session.device_id, session.open = hello.device_id, True
        self.sessions.append(session)
        welcome = pb.Welcome(session_id="s", user_id=session.user_id, limits=self.limits)
        welcome.heartbeat_interval.FromMilliseconds(int(self.heartbeat * 1000))
        if not math.isnan(self.clock_offset):
            welcome.server_time.FromMilliseconds(int((time.time() + self.clock_offset) * 1000))
        session.write(ServerFrame(request_id=frame.request_id, welcome=welcome))
        cursors = self.log.cursors[session.user_id, session.device_id]
        cursors.update({position.conversation_id: position.seq for position in hello.resume})
        for page in self.log.missed(session.user_id, session.device_id, hello.history_limit or 1000, self.page):
            session.write(ServerFrame(message_page=page))
        for name in self.notifications.keys() - set(itertools.chain(*self.acknowledged)):
            session.write(ServerFrame(notification=self.notifications[name]))
        session.write(ServerFrame(caught_up=pb.CaughtUp()))

    def _on_heartbeat(self, session: Session, frame: ClientFrame) -> None:
        session.write(ServerFrame(request_id=frame.request_id, heartbeat=pb.Heartbeat()))

    def _on_refresh_token(self, session: Session, frame: ClientFrame) -> None:
        self.refresh_tokens.append(frame.refresh_token.token)
        session.write(ServerFrame(request_id=frame.request_id, token_refreshed=pb.TokenRefreshed()))

    def _on_send_message(self, session: Session, frame: ClientFrame) -> None:
        send = frame.send_message
        if send.WhichOneof("target") == "recipient_id":
            room: Room | None = self.log.direct(session.user_id, send.recipient_id)
        else:
            room = self.log.rooms.get(send.conversation_id)
        entry = LogEntry(client_msg_id=send.client_msg_id, content=send.content)
        self._append(session, frame, room, entry)

    def _on_edit_message(self, session: Session, frame: ClientFrame) -> None:
        edit = frame.edit_message
        entry = LogEntry(client_msg_id=edit.client_msg_id)
        entry.edit.target_seq = edit.target_seq
        entry.edit.content.CopyFrom(edit.content)
        self._append(session, frame, self.log.rooms.get(edit.conversation_id), entry)

    def _on_delete_message(self, session: Session, frame: ClientFrame) -> None:
        delete = frame.delete_message
        entry = LogEntry(client_msg_id=delete.client_msg_id)
        entry.deletion.target_seq = delete.target_seq
        self._append(session, frame, self.log.rooms.get(delete.conversation_id), entry)

    def _append(self, session: Session, frame: ClientFrame, room: Room | None, entry: LogEntry) -> None:
        if room is None or room.member(session.user_id) is None:
            code = error_pb2.ERROR_CODE_INVALID_CHAT_ID if room is None else error_pb2.ERROR_CODE_NOT_A_MEMBER
            self._refuse(session, frame, entry, error_pb2.Error(code=code, message="no"))
            return
        name = room.conversation.conversation_id
        verdict = self.refuse(frame)
        if verdict is None and session.awaited.get(name, entry.client_msg_id) != entry.client_msg_id:
            verdict = refusal(error_pb2.ERROR_CODE_RATE_LIMITED, 0.05)
        elif verdict is not None and verdict.HasField("retry_after"):
            session.awaited.setdefault(name, entry.client_msg_id)
        else:
            session.awaited.pop(name, None)
        if verdict is not None:
            self._refuse(session, frame, entry, verdict)
            return
        entry.sender_id = session.user_id
        stored = self._store(room, entry, session)
        if self.drop_stored:
            self.drop_stored -= 1
            return
        answer = pb.MessageStored(
            client_msg_id=stored.client_msg_id,
            message_id=stored.message_id,
            conversation_id=name,
            seq=stored.seq,
            store_time=stored.store_time,
        )
        session.write(ServerFrame(request_id=frame.request_id, message_stored=answer))

    def _refuse(self, session: Session, frame: ClientFrame, entry: LogEntry, error: error_pb2.Error) -> None:
        answer = ServerFrame(request_id=frame.request_id)
        answer.error.CopyFrom(error)
        answer.error.client_msg_id = entry.client_msg_id
        session.write(answer)

    def _store(self, room: Room, entry: LogEntry, source: Session | None) -> LogEntry:
        stored, new = self.log.append(room, entry)
        for session in self.sessions:
            if new and session is not source and room.member(session.user_id) and not self.hide(stored, session):
                session.write(ServerFrame(new_message=pb.NewMessage(entry=stored)))
        return stored

    def _on_acknowledge(self, session: Session, frame: ClientFrame) -> None:
        cursors = self.log.cursors[session.user_id, session.device_id]
        for position in frame.acknowledge.positions:
            cursors[position.conversation_id] = max(cursors.get(position.conversation_id, 0), position.seq)
            self._mark(session, position.conversation_id, position.seq, 0)

    def _on_acknowledge_notification(self, session: Session, frame: ClientFrame) -> None:
        self.acknowledged.append(tuple(frame.acknowledge_notification.notification_ids))

    def _on_mark_read(self, session: Session, frame: ClientFrame) -> None:
        self._mark(session, frame.mark_read.conversation_id, frame.mark_read.seq, frame.mark_read.seq)

    def _mark(self, session: Session, name: str, delivered: int, read: int) -> None:
        marks = self.marks[name][session.user_id]
        marks[:] = [max(marks[0], delivered, read), max(marks[1], read)]
        room = self.log.rooms[name]
        mark = pb.Watermark(user_id=session.user_id, delivered_seq=marks[0], read_seq=marks[1])
        for other in self.sessions:
            if other is not session and room.member(other.user_id):
                other.write(ServerFrame(receipt=pb.Receipt(conversation_id=name, watermarks=[mark])))

    def _on_start_typing(self, session: Session, frame: ClientFrame) -> None:
        self._typing(session, frame.start_typing.conversation_id, typing=True)

    def _on_stop_typing(self, session: Session, frame: ClientFrame) -> None:
        self._typing(session, frame.stop_typing.conversation_id, typing=False)

    def _typing(self, session: Session, name: str, *, typing: bool) -> None:
        told = pb.TypingIndicator(conversation_id=name, user_id=session.user_id, typing=typing)
        for other in self.sessions:
            if other.user_id != session.user_id:
                other.write(ServerFrame(typing_indicator=told))

    def _on_watch_presence(self, session: Session, frame: ClientFrame) -> None:
        online = {other.user_id for other in self.sessions}
        states = [
            pb.PRESENCE_STATE_ONLINE if user in online else pb.PRESENCE_STATE_OFFLINE for user in frame.watch_presence.user_ids
        ]
        presences = [
            pb.Presence(user_id=user, state=state) for user, state in zip(frame.watch_presence.user_ids, states, strict=True)
        ]
        session.write(ServerFrame(request_id=frame.request_id, presence_update=pb.PresenceUpdate(presences=presences)))

    def _on_unwatch_presence(self, session: Session, frame: ClientFrame) -> None:
        pass

    def _on_fetch_messages(self, session: Session, frame: ClientFrame) -> None:
        fetch = frame.fetch_messages
        room = self.log.rooms.get(fetch.conversation_id)
        if room is None or room.member(session.user_id) is None:
            error = error_pb2.Error(code=error_pb2.ERROR_CODE_INVALID_CHAT_ID, message="no such conversation")
            session.write(ServerFrame(request_id=frame.request_id, error=error))
            return
        limit = fetch.limit or 100
        if fetch.WhichOneof("position") == "after_seq":
            page = self.log.page_after(room, session.user_id, fetch.after_seq, limit)
        else:
            page = self.log.page_before(room, session.user_id, fetch.before_seq or 2**60, limit)
        session.write(ServerFrame(request_id=frame.request_id, message_page=page))

    # ---- HTTP

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/connect", self._connect),
                web.get("/v1/ws", self._websocket),
                web.post("/v1/poll", self._poll),
                web.post("/api/v1/chats", self._create),
                web.get("/api/v1/chats", self._list),
                web.get("/api/v1/chats/{name}", self._chat),
                web.put("/api/v1/chats/{name}/members/{user}", self._put_member),
            ]
        )
        return app

    def _user(self, request: web.Request) -> str:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token or token in self.bad_tokens:
            refusal = http_pb2.UnauthorizedResponse(reason="UNAUTHENTICATED", message="bad token", login_url="http://login")
            raise web.HTTPUnauthorized(text=json_format.MessageToJson(refusal))
        return token.partition("/")[0]

    async def _connect(self, request: web.Request) -> web.Response:
        self.connects += 1
        self.notify()
        await self.answering.wait()
        if self.connect_status:
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.Response(status=self.connect_status, headers=headers)
        ticket = self.ticket(self._user(request))
        answer = http_pb2.ConnectResponse(
            url=self.edge_url + "/v1/ws",
            ticket=ticket,
            api_url=self.url,
            backoff_base=Duration(nanos=10_000_000),
            backoff_max=Duration(nanos=50_000_000),
        )
        return _json(answer)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        self.counts["upgrades"] += 1
        ticket = request.query.get("ticket")
        if ticket is None:
            self.returns.append(request.headers.get("Authorization", "").removeprefix("Bearer "))
        self.notify()
        await self.upgrading.wait()
        if self.websocket_status:
            raise _status(self.websocket_status)
        user = self._user(request) if ticket is None else self._tickets.pop(ticket, "")
        if not user:
            raise web.HTTPUnauthorized
        socket = web.WebSocketResponse(protocols=["tidings.v1.proto"], compress=False)
        await socket.prepare(request)
        outgoing: asyncio.Queue[ServerFrame | int] = asyncio.Queue()
        session = Session(user, outgoing.put_nowait, outgoing.put_nowait, number=next(self._numbers))
        writer = asyncio.create_task(self._write(socket, request, outgoing))
        self._sockets.add(session)
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    self.on_frame(session, ClientFrame.FromString(message.data))
        finally:
            self._sockets.remove(session)
            self.leave(session)
            writer.cancel()
        return socket

    async def _write(
        self, socket: web.WebSocketResponse, request: web.Request, outgoing: "asyncio.Queue[ServerFrame | int]"
    ) -> None:
        while True:
            item = await outgoing.get()
            if isinstance(item, ServerFrame):
                await socket.send_bytes(item.SerializeToString())
            elif item:
                await socket.close(code=item, message=b"told to")
            elif request.transport is not None:
                request.transport.abort()

    async def _poll(self, request: web.Request) -> web.Response:
        body = json_format.Parse(await request.text(), http_pb2.PollRequest())
        self.counts["poll"] += 1
        if not body.poll_session:
            user = self._tickets.pop(request.query.get("ticket", ""), "")
            if not user:
                raise web.HTTPUnauthorized
            poll = Poll(f"poll-{next(self._numbers)}")
            poll.session = Session(user, poll.write, poll.end, number=next(self._numbers))
            self._polls[poll.secret] = poll
        else:
            found = self._polls.get(body.poll_session)
            if found is None:
                raise web.HTTPGone
            poll = found
        return _json(await poll.turn(self, body))

    async def _create(self, request: web.Request) -> web.Response:
        user = self._user(request)
        body = json_format.Parse(await request.text(), http_pb2.CreateChatRequest())
        room = self.log.group(body.name, user, list(body.member_ids))
        for session in self.sessions:
            if room.member(session.user_id):
                changed = pb.ConversationChanged(conversation=room.conversation)
                session.write(ServerFrame(conversation_changed=changed))
                session.write(ServerFrame(new_message=pb.NewMessage(entry=room.entries[1])))
        return _json(http_pb2.Chat(conversation=room.conversation))

    async def _list(self, request: web.Request) -> web.Response:
        user = self._user(request)
        mine = [room.conversation for room in self.log.rooms.values() if room.member(user)]
        start = int(request.query.get("page_token", "0"))
        token = str(start + 2) if start + 2 < len(mine) else ""
        return _json(http_pb2.ListChatsResponse(conversations=mine[start : start + 2], next_page_token=token))

    async def _chat(self, request: web.Request) -> web.Response:
        user = self._user(request)
        self.counts["chat"] += 1
        self.notify()
        if self.refuse_chats:
            return web.Response(status=503, text=json_format.MessageToJson(self.refuse_chats.pop()))
        room = self.log.rooms.get(request.match_info["name"])
        if room is None or room.member(user) is None:
            error = error_pb2.Error(code=error_pb2.ERROR_CODE_INVALID_CHAT_ID, message="no such conversation")
            return web.Response(status=404, text=json_format.MessageToJson(error))
        for member in room.conversation.members:
            member.delivered_seq, member.read_seq = self.marks[room.conversation.conversation_id][member.user_id]
        return _json(http_pb2.Chat(conversation=room.conversation))

    async def _put_member(self, request: web.Request) -> web.Response:
        owner, room, user = self._user(request), self.log.rooms[request.match_info["name"]], request.match_info["user"]
        event = conversation_pb2.MembershipEvent(change=conversation_pb2.MEMBERSHIP_CHANGE_ADDED, user_ids=[user])
        visible = room.conversation.last_seq + 1
        room.conversation.members.add(user_id=user, role=conversation_pb2.ROLE_MEMBER, visible_from_seq=visible)
        self._store(room, LogEntry(sender_id=owner, membership=event), None)
        return _json(http_pb2.Chat(conversation=room.conversation))


class Poll:
    """One long-poll session: what wasn't confirmed is given again; a newer turn ends the one that waits."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.session: Session = Session("", self.write, self.end)
        self._frames: list[ServerFrame] = []
        self._sequence = 0
        self._said = 0
        self._code = 0
        self._something = asyncio.Event()

    def write(self, frame: ServerFrame) -> None:
        self._frames.append(frame)
        self._sequence += 1
        self._something.set()

    def end(self, code: int) -> None:
        self._code = code or error_pb2.ERROR_CODE_SESSION_FAILED
        self._something.set()

    async def turn(self, server: FakeServer, body: http_pb2.PollRequest) -> http_pb2.PollResponse:
        self._something.set()
        first = self._sequence - len(self._frames) + 1
        self._frames = self._frames[max(0, body.received_sequence + 1 - first) :]
        if body.frames and body.send_sequence == self._said + 1:
            self._said += 1
            for frame in body.frames:
                server.on_frame(self.session, frame)
        if not self._frames and not self._code:
            self._something = asyncio.Event()
            await asyncio.wait_for(self._something.wait(), 25)
        if self._code:
            server.leave(self.session)
        return http_pb2.PollResponse(
            poll_session=self.secret, sequence=self._sequence, frames=self._frames, close_code=self._code, close_reason="told to"
        )


def refusal(code: error_pb2.ErrorCode.ValueType, retry_after: float | None = None) -> error_pb2.Error:
    """An error as a server sends it."""
    error = error_pb2.Error(code=code, message="refused by the test")
    if retry_after is not None:
        error.retry_after.FromMilliseconds(int(retry_after * 1000))
    return error


def _json(message: Message) -> web.Response:
    return web.Response(text=json_format.MessageToJson(message, preserving_proto_field_name=True), content_type="application/json")


def _status(status: int) -> web.HTTPException:
    class Refused(web.HTTPException):
        status_code = status

    return Refused(text="blocked")


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[FakeServer]:
    """A server that listens until the context ends."""
    server = FakeServer()
    for name, value in settings.items():
        setattr(server, name, value)
    runner = web.AppRunner(server.application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.cut()
        await asyncio.sleep(0)
        await runner.cleanup()

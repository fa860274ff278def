"""A router in memory for tests of the edge: it answers as the contract says, and a test can hold, drop or break what it does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pyroaring import BitMap

from mesh import errors, naming, rpc
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from tidings.client.v1 import frames_pb2
from tidings.common.v1 import conversation_pb2
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import conversation_pb2 as calls
from tidings.router.v1 import conversation_pb2_grpc, link_pb2, link_pb2_grpc

CHAT = link_pb2.TRAFFIC_CLASS_CHAT
NOTIFICATION = link_pb2.TRAFFIC_CLASS_NOTIFICATION


class World:
    """What the routers of one test share: users, members, logs; the store's place."""

    def __init__(self) -> None:
        self.ordinals: dict[str, int] = {}
        self.members: dict[str, set[str]] = {}
        self.logs: dict[str, list[conversation_pb2.LogEntry]] = {}
        self.cursors: dict[tuple[str, str, str], int] = {}
        self.read: dict[tuple[str, str], int] = {}
        self.routers: set[FakeRouter] = set()

    def ordinal(self, user_id: str) -> int:
        return self.ordinals.setdefault(user_id, len(self.ordinals) + 1)

    def append(self, user_id: str, append: link_pb2.AppendEntry) -> tuple[conversation_pb2.LogEntry, bool]:
        """The entry, and whether it is new."""
        conversation_id = append.conversation_id
        if append.recipient_id:
            self.members.setdefault(conversation_id, {user_id, append.recipient_id})
        if conversation_id not in self.members:
            raise errors.invalid_chat_id(conversation_id)
        if user_id not in self.members[conversation_id]:
            raise errors.not_a_member(conversation_id)
        log = self.logs.setdefault(conversation_id, [])
        for entry in log:
            if (entry.sender_id, entry.client_msg_id) == (user_id, append.client_msg_id):
                return entry, False
        entry = conversation_pb2.LogEntry(
            conversation_id=conversation_id,
            seq=len(log) + 1,
            message_id=naming.message_id(conversation_id, len(log) + 1),
            sender_id=user_id,
            client_msg_id=append.client_msg_id,
            content=append.content,
        )
        entry.store_time.GetCurrentTime()
        log.append(entry)
        return entry, True

    def missed(self, envelope: link_pb2.ClientEnvelope) -> link_pb2.SyncPage:
        """One page per conversation, in the order of ids; the token is the last id."""
        sync = envelope.sync_device
        given = {position.conversation_id: position.seq for position in sync.positions}
        page = link_pb2.SyncPage()
        for conversation_id in sorted(self.logs):
            if envelope.user_id not in self.members[conversation_id] or conversation_id <= sync.page_token:
                continue
            after = given.get(conversation_id, self.cursors.get((envelope.user_id, sync.device_id, conversation_id), 0))
            entries = self.logs[conversation_id][after:]
            if entries:
                frame = frames_pb2.MessagePage(conversation_id=conversation_id, entries=entries, last_seq=entries[-1].seq)
                page.frames.append(frames_pb2.ServerFrame(message_page=frame).SerializeToString())
                page.positions.add(conversation_id=conversation_id, seq=entries[-1].seq)
                page.next_page_token = conversation_id
                return page
        return page


class EdgeLink:
    """The router's side of one link."""

    def __init__(self, edge_id: str, online: set[int]) -> None:
        self.edge_id = edge_id
        self.online = online
        self.out: asyncio.Queue[link_pb2.LinkResponse | None] = asyncio.Queue()
        self.processed = 0
        self.sent = 0

    def send(self, response: link_pb2.LinkResponse) -> None:
        self.sent += 1
        response.sequence = self.sent
        response.processed_sequence = self.processed
        self.out.put_nowait(response)


class FakeRouter(link_pb2_grpc.LinkServiceServicer, conversation_pb2_grpc.ConversationServiceServicer):
    """One router.

    Attributes:
        requests: every LinkRequest seen, in order; `saw` waits for one.
        silent: arms of envelopes that are seen and neither acted on nor answered.
        refuse: given an envelope, a TidingsError to answer with, or None.
        credit: told in the welcome of further links; a router with credit also speaks every second, but this one does not.
        awake: cleared to freeze it, as SIGSTOP does: it reads and says nothing, and its connections stay open.
        traceparents: the trace context of calls to list conversations.
    """

    def __init__(self, world: World) -> None:
        self.router_id = naming.new_instance_id("router")
        self.world = world
        self.links: list[EdgeLink] = []
        self.requests: list[link_pb2.LinkRequest] = []
        self.silent: set[str] = set()
        self.refuse: Callable[[link_pb2.ClientEnvelope], errors.TidingsError | None] = lambda _: None
        self.deaf = False
        self.credit = 0
        self.awake = asyncio.Event()
        self.awake.set()
        self.traceparents: list[str] = []
        self._changed = asyncio.Condition()
        world.routers.add(self)

    @classmethod
    @asynccontextmanager
    async def serve(cls, world: World, registry: Registry, telemetry: Telemetry) -> AsyncIterator["FakeRouter"]:
        router = cls(world)
        servicers = {
            "tidings.router.v1.LinkService": lambda server: link_pb2_grpc.add_LinkServiceServicer_to_server(router, server),
            "tidings.router.v1.ConversationService": lambda server: conversation_pb2_grpc.add_ConversationServiceServicer_to_server(
                router, server
            ),
        }
        async with rpc.serve("127.0.0.1:0", servicers, telemetry, reflect=False, drain_seconds=0) as port:
            instance = Instance(service="router", instance_id=router.router_id, grpc_address=f"127.0.0.1:{port}")
            async with registry.register(instance):
                yield router
            world.routers.discard(router)

    # What a test does and waits for

    async def saw(self, found: Callable[["FakeRouter"], bool]) -> None:
        """Wait until something is true of this router."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: found(self)), 10)

    def envelopes(self, arm: str) -> list[link_pb2.ClientEnvelope]:
        return [envelope for request in self.requests for envelope in request.batch.envelopes if envelope.WhichOneof("body") == arm]

    def cut(self) -> None:
        """End every link."""
        for link in self.links:
            link.out.put_nowait(None)

    async def drain(self) -> None:
        """Say that this router leaves, and wait until the edge has acted on it."""
        for link in self.links:
            link.send(link_pb2.LinkResponse(drain=link_pb2.LinkDrain()))
        sent = self.links[0].sent
        await self.saw(lambda router: router.requests[-1].processed_sequence >= sent)

    def deliver(self, user_ids: list[str], frame: frames_pb2.ServerFrame, **fields: Any) -> None:
        ordinals = [self.world.ordinal(user_id) for user_id in user_ids]
        delivery = link_pb2.Delivery(user_ordinals=ordinals, frame=frame.SerializeToString(), **fields)
        for link in self.links:
            link.send(link_pb2.LinkResponse(batch=link_pb2.RouterBatch(deliveries=[delivery])))

    def broadcast(self, user_ids: list[str], frame: frames_pb2.ServerFrame, **fields: Any) -> None:
        users = BitMap([self.world.ordinal(user_id) for user_id in user_ids]).serialize()
        whole: dict[str, Any] = {
            "user_ordinals": users,
            "traffic_class": NOTIFICATION,
            "frame": frame.SerializeToString(),
            "notification_id": frame.notification.notification_id,
        }
        batch = link_pb2.RouterBatch(broadcasts=[link_pb2.Broadcast(**whole | fields)])
        for link in self.links:
            link.send(link_pb2.LinkResponse(batch=batch))

    def acknowledged(self, notification_id: str) -> list[set[str]]:
        """Who was said to have a notification, each time that somebody was."""
        users = {ordinal: user_id for user_id, ordinal in self.world.ordinals.items()}
        return [
            {users[ordinal] for ordinal in BitMap.deserialize(told.user_ordinals)}
            for request in self.requests
            for told in request.batch.notification_acknowledgements
            if told.notification_id == notification_id
        ]

    def answer(self, envelope: link_pb2.ClientEnvelope) -> None:
        """Act on an envelope that was kept silent."""
        batch = link_pb2.RouterBatch()
        self._act(envelope, batch)
        for link in self.links:
            link.send(link_pb2.LinkResponse(batch=batch))

    # The contract

    async def Link(self, requests: Any, context: Any) -> AsyncIterator[link_pb2.LinkResponse]:
        await self.awake.wait()
        hello = await anext(requests)
        snapshot = await anext(requests)
        link = EdgeLink(hello.hello.edge_id, set(BitMap.deserialize(snapshot.online_snapshot.user_ordinals)))
        link.processed = snapshot.sequence
        reader = asyncio.create_task(self._read(link, requests))
        welcome = link_pb2.LinkWelcome(router_id=self.router_id, protocol_version=1)
        link.send(link_pb2.LinkResponse(welcome=welcome, credit=self.credit))
        self.links.append(link)
        try:
            await self._note(hello, snapshot)
            while (response := await link.out.get()) is not None:
                await self.awake.wait()
                yield response
        finally:
            reader.cancel()
            self.links.remove(link)

    async def _read(self, link: EdgeLink, requests: Any) -> None:
        async for request in requests:
            await self.awake.wait()
            await self._note(request)
            if self.deaf:
                continue
            batch = link_pb2.RouterBatch()
            link.online |= set(request.batch.opened_user_ordinals)
            link.online -= set(request.batch.closed_user_ordinals)
            for envelope in request.batch.envelopes:
                if envelope.WhichOneof("body") not in self.silent:
                    self._act(envelope, batch)
            for delta in request.batch.receipts:
                key = (delta.user_id, delta.device_id, delta.conversation_id)
                self.world.cursors[key] = max(delta.delivered_seq, self.world.cursors.get(key, 0))
            link.processed = request.sequence
            if request.WhichOneof("body"):
                response = link_pb2.LinkResponse(batch=batch) if batch.ByteSize() else link_pb2.LinkResponse()
                link.send(response)

    async def _note(self, *requests: link_pb2.LinkRequest) -> None:
        async with self._changed:
            self.requests.extend(requests)
            self._changed.notify_all()

    def _act(self, envelope: link_pb2.ClientEnvelope, batch: link_pb2.RouterBatch) -> None:
        reply = link_pb2.Reply(envelope_id=envelope.envelope_id, session=envelope.session)
        arm = envelope.WhichOneof("body")
        try:
            if refusal := self.refuse(envelope):
                raise refusal
            if arm == "open_session":
                reply.session_opened.user_ordinal = self.world.ordinal(envelope.user_id)
            elif arm == "sync_device":
                reply.sync_page.CopyFrom(self.world.missed(envelope))
            elif arm == "append_entry":
                self._store(envelope, reply)
            elif arm == "fetch_entries":
                log = self.world.logs.get(envelope.fetch_entries.conversation_id, [])
                page = frames_pb2.MessagePage(conversation_id=envelope.fetch_entries.conversation_id, entries=log)
                reply.frame = frames_pb2.ServerFrame(request_id=envelope.request_id, message_page=page).SerializeToString()
            elif arm == "watch_users" and envelope.watch_users.watch_user_ids:
                reply.frame = self._presences(envelope).SerializeToString()
            else:
                return
        except errors.TidingsError as error:
            frame = error.to_frame(envelope.append_entry.client_msg_id)
            reply.frame = frames_pb2.ServerFrame(request_id=envelope.request_id, error=frame).SerializeToString()
        batch.replies.append(reply)

    def _presences(self, envelope: link_pb2.ClientEnvelope) -> frames_pb2.ServerFrame:
        update = frames_pb2.PresenceUpdate()
        for user_id in envelope.watch_users.watch_user_ids:
            online = any(self.world.ordinal(user_id) in link.online for link in self.links)
            update.presences.add(user_id=user_id, state=1 if online else 2)
        return frames_pb2.ServerFrame(request_id=envelope.request_id, presence_update=update)

    def _store(self, envelope: link_pb2.ClientEnvelope, reply: link_pb2.Reply) -> None:
        entry, new = self.world.append(envelope.user_id, envelope.append_entry)
        stored = frames_pb2.MessageStored(
            client_msg_id=entry.client_msg_id,
            message_id=entry.message_id,
            conversation_id=entry.conversation_id,
            seq=entry.seq,
            store_time=entry.store_time,
        )
        reply.frame = frames_pb2.ServerFrame(request_id=envelope.request_id, message_stored=stored).SerializeToString()
        if new:
            self.fan_out(entry, envelope.session)

    def fan_out(self, entry: conversation_pb2.LogEntry, except_session: int = 0) -> None:
        """Push an entry to every edge this router has a link to."""
        frame = frames_pb2.ServerFrame(new_message=frames_pb2.NewMessage(entry=entry)).SerializeToString()
        members = {self.world.ordinal(user_id) for user_id in self.world.members[entry.conversation_id]}
        for link in self.links:
            if here := members & link.online:
                delivery = link_pb2.Delivery(
                    user_ordinals=sorted(here),
                    except_session=except_session,
                    traffic_class=CHAT,
                    conversation_id=entry.conversation_id,
                    seq=entry.seq,
                    frame=frame,
                )
                link.send(link_pb2.LinkResponse(batch=link_pb2.RouterBatch(deliveries=[delivery])))

    async def CreateConversation(self, request: Any, context: Any) -> calls.CreateConversationResponse:
        conversation_id = (
            naming.new_group_id() if request.kind == 2 else naming.direct_conversation_id(request.user_id, request.member_ids[0])
        )
        self.world.members[conversation_id] = {request.user_id, *request.member_ids}
        return calls.CreateConversationResponse(conversation=self._conversation(conversation_id, request.user_id))

    async def GetConversation(self, request: Any, context: Any) -> calls.GetConversationResponse:
        await self.awake.wait()
        return calls.GetConversationResponse(conversation=self._conversation(request.conversation_id, request.user_id))

    async def ListConversations(self, request: Any, context: Any) -> calls.ListConversationsResponse:
        self.traceparents += [value for key, value in context.invocation_metadata() if key == "traceparent"]
        mine = [one for one, members in self.world.members.items() if request.user_id in members]
        return calls.ListConversationsResponse(conversations=[self._conversation(one, request.user_id) for one in mine])

    async def UpdateConversation(self, request: Any, context: Any) -> calls.UpdateConversationResponse:
        conversation = self._conversation(request.conversation_id, request.user_id)
        conversation.name = request.name
        return calls.UpdateConversationResponse(conversation=conversation)

    async def PutMember(self, request: Any, context: Any) -> calls.PutMemberResponse:
        self.world.members[request.conversation_id].add(request.member_id)
        return calls.PutMemberResponse(conversation=self._conversation(request.conversation_id, request.user_id))

    async def RemoveMember(self, request: Any, context: Any) -> calls.RemoveMemberResponse:
        self.world.members[request.conversation_id].discard(request.member_id)
        return calls.RemoveMemberResponse(conversation=self._conversation(request.conversation_id, request.user_id))

    async def ListMessages(self, request: Any, context: Any) -> calls.ListMessagesResponse:
        self._conversation(request.conversation_id, request.user_id)
        log = self.world.logs.get(request.conversation_id, [])
        return calls.ListMessagesResponse(entries=log[request.after_seq :], last_seq=len(log), first_available_seq=1)

    async def SendMessage(self, request: Any, context: Any) -> calls.SendMessageResponse:
        append = link_pb2.AppendEntry(
            conversation_id=request.conversation_id, client_msg_id=request.client_msg_id, content=request.content
        )
        entry, new = self.world.append(request.user_id, append)
        if new:
            self.fan_out(entry)
        return calls.SendMessageResponse(message_id=entry.message_id, seq=entry.seq, store_time=entry.store_time)

    def _conversation(self, conversation_id: str, user_id: str) -> conversation_pb2.Conversation:
        members = self.world.members.get(conversation_id)
        if members is None:
            raise errors.invalid_chat_id(conversation_id)
        if user_id not in members:
            raise errors.not_a_member(conversation_id)
        found = conversation_pb2.Conversation(conversation_id=conversation_id)
        for member in sorted(members):
            found.members.add(user_id=member, user_ordinal=self.world.ordinal(member))
        return found

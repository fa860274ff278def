"""The client: a thin face over the connection, the exchange, the state and the feeds. Use it in one event loop."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

import aiohttp

from tidings.client.v1 import frames_pb2 as pb
from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.common.v1.content_pb2 import Content
from tidings.common.v1.error_pb2 import Error
from tidings_client import naming
from tidings_client.background import Background
from tidings_client.callbacks import Callbacks
from tidings_client.connection import Connection, Place
from tidings_client.door import Balancers, Tokens, TokenSource, balancer_urls
from tidings_client.errors import ClientStopped, NotConnected, RequestFailed, TidingsClientError
from tidings_client.exchange import Exchange
from tidings_client.feed import EventQueue, Feed, MessageIterator
from tidings_client.groups import Groups
from tidings_client.history import History
from tidings_client.http_api import HttpApi
from tidings_client.identity import settle_device, settle_user
from tidings_client.model import (
    FINAL_STATES,
    ConnectionEvent,
    ConnectionState,
    Event,
    Kind,
    Message,
    PresenceEvent,
    Status,
    content_of,
    presence_event,
)
from tidings_client.notifications import NotificationInbox, ServerClock
from tidings_client.outgoing import Outgoing
from tidings_client.pacing import TypingThrottle
from tidings_client.requests import Requests
from tidings_client.sending import Sending
from tidings_client.showing import NotificationIterator, Showing
from tidings_client.state import State

_log = logging.getLogger(__name__)


class Client(Groups):
    """One device of one user.

    Args:
        url: the balancer's base URL, for example "http://127.0.0.1:8080"; of several balancers a list of them, or a text with
            commas between.
        token: the user's bearer token, or a coroutine function that gives one, called again when it was refused or runs out.
        device_id: names this installation; when not given, one is made and kept in the state file.
        state: path of the state file; None keeps everything in memory.
        user_id: who we are, where the state file or the token doesn't tell.
        zone: preferred zone.
        history_limit: how many of the newest entries of a conversation a new device is sent; 0 for the server's default.
        long_poll: "auto" polls when WebSockets won't open, "never", or "always".
        ssl_context: what to trust, where the system's certificates aren't enough.

    Raises:
        StateFileError: the state file can't be used.
        ValueError: there is no URL.
    """

    def __init__(  # noqa: PLR0913  (options of their own, by name)
        self,
        url: str | Iterable[str],
        token: TokenSource,
        *,
        device_id: str | None = None,
        state: str | Path | None = None,
        user_id: str | None = None,
        zone: str = "",
        history_limit: int = 0,
        long_poll: str = "auto",
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._tokens = Tokens(token)
        balancers = Balancers(balancer_urls(url))
        self._ssl_context = ssl_context
        self._state = State(Path(state) if state is not None else None)
        try:
            known_as = settle_user(self._state, user_id, token)
            self._place = Place(balancers, settle_device(self._state, device_id), zone, long_poll)
        except BaseException:
            self._state.close()
            raise
        self._requests = Requests()
        clock = ServerClock(self._state, time.time)
        self._showing = Showing(self._state, clock)
        notifications = NotificationInbox(self._state, clock, self._showing.on_arrival)
        told = (self._on_event, self._on_arrival, self._on_outcome, self._requests.on_answer)
        self._exchange = Exchange(self._state, history_limit, *told, notifications)
        if known_as:
            self._exchange.identify(known_as)
        self._sending = Sending(self._state, self._exchange, self._wake)
        self._feed = Feed(self._state, self._hold_back)
        self._history = History(self._state, self._ask, self._status_of, lambda: self._exchange.inbox.page_limit)
        self._events: WeakSet[EventQueue] = WeakSet()
        self._callbacks = Callbacks(self.messages, self.notifications, self.events)
        self._background = Background()
        self._changed = asyncio.Event()
        self._connection: Connection | None = None
        self._http: aiohttp.ClientSession | None = None
        self._closed = False
        self._typing = TypingThrottle()
        self._watched: set[str] = set()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._ssl_context or True)
        self._http = aiohttp.ClientSession(connector=connector)
        self._connect()
        self._callbacks.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close(in_order=kind is None or issubclass(kind, asyncio.CancelledError))

    # ---- the connection

    @property
    def state(self) -> ConnectionState:
        """Where the client stands."""
        if self._closed:
            return ConnectionState.CLOSED
        return self._connection.state if self._connection is not None else ConnectionState.CONNECTING

    @property
    def user_id(self) -> str:
        """Who we are; empty until it is known."""
        return self._exchange.user_id

    @property
    def device_id(self) -> str:
        """Which device we are."""
        return self._place.device_id

    async def caught_up(self, timeout: float | None = 30.0) -> None:
        """Wait until everything missed has come in.

        Raises:
            TimeoutError: not in time; the text says what hinders.
            ClientStopped: the client has stopped.
        """
        try:
            async with asyncio.timeout(timeout):
                while self.state is not ConnectionState.CAUGHT_UP:
                    if self.state in FINAL_STATES:
                        raise ClientStopped(self._reason())
                    changed = self._changed
                    await changed.wait()
        except TimeoutError:
            raise TimeoutError(f"not caught up within {timeout:g} s: {self._reason()}") from None

    def reconnect(self) -> None:
        """Try again after REPLACED or REFUSED."""
        if self.state in FINAL_STATES and not self._closed:
            self._sending.resume()
            self._connect()

    async def close(self, *, in_order: bool = True) -> None:
        """Leave. Messages not yet stored stay in the state file; without one they are gone: await `stored()` first.

        Args:
            in_order: whether the message given last counts as taken.
        """
        if self._closed:
            return
        await self._background.close()
        self._closed = True
        self._feed.close(in_order=in_order)
        self._showing.close()
        self._on_state(ConnectionState.CLOSED, "")
        for queue in list(self._events):
            queue.close()
        await self._callbacks.stop()
        if self._http is not None:
            await self._http.close()
        self._state.close()

    # ---- messages

    def send(self, to: str, text_or_content: str | Content, *, client_msg_id: str | None = None) -> Outgoing:
        """Send a message. It is in the outbox, on disk when there is a state file, when this returns.

        Args:
            to: a conversation's id, or another user's.
            client_msg_id: names the message; the same one again names the same message. Made when not given.

        Raises:
            ValueError: the target, the content or the id can't be right.
            OutboxFull: too many messages wait.
        """
        name = client_msg_id or naming.new_client_msg_id()
        send = pb.SendMessage(client_msg_id=name, content=content_of(text_or_content))
        if naming.is_conversation_id(to):
            send.conversation_id = to
        else:
            send.recipient_id = naming.checked_user_id(to)
        return self._submit(name, self._lane(to), ClientFrame(send_message=send))

    async def edit(self, to: str, seq: int, text_or_content: str | Content) -> Message:
        """Replace one's own message; gives the edit's own entry once it is stored.

        Raises:
            SendFailed: it was refused.
        """
        name, conversation_id = naming.new_client_msg_id(), self.conversation_id(to)
        edit = pb.EditMessage(client_msg_id=name, conversation_id=conversation_id, target_seq=seq)
        edit.content.CopyFrom(content_of(text_or_content))
        return await self._submit(name, conversation_id, ClientFrame(edit_message=edit)).stored()

    async def delete(self, to: str, seq: int) -> Message:
        """Withdraw one's own message, for everybody; gives the deletion's own entry once it is stored.

        Raises:
            SendFailed: it was refused.
        """
        name, conversation_id = naming.new_client_msg_id(), self.conversation_id(to)
        delete = pb.DeleteMessage(client_msg_id=name, conversation_id=conversation_id, target_seq=seq)
        return await self._submit(name, conversation_id, ClientFrame(delete_message=delete)).stored()

    def outgoing(self) -> list[Outgoing]:
        """What isn't stored yet, oldest first, and what was refused."""
        return self._sending.all()

    def discard(self, client_msg_id: str) -> None:
        """Give up a message; it may have been stored all the same if it was just on its way."""
        self._sending.discard(client_msg_id)

    def messages(self) -> MessageIterator:
        """Iterate over all conversations' entries as they come, one's own too: in seq order within a conversation, each once,
        none left out (a `HistoryGapEvent` tells of what the server wouldn't give). Goes on where the last iteration ended, also
        over a restart with the same state file. A consumer that falls far behind holds the server back."""
        return self._feed.messages()

    async def history(
        self, to: str, before: int | None = None, after: int | None = None, limit: int = 100, *, raw: bool = False
    ) -> list[Message]:
        """Part of a conversation, ascending by seq, edits and deletions applied. Offline it gives what is kept here.

        Args:
            to: a conversation's id, or another user's.
            before: only seqs below; the newest of them are given.
            after: only seqs above; without `before` the oldest of them are given.
            limit: at most so many.
            raw: entries as they were logged, edits and deletions among them.
        """
        return await self._history.read(self.conversation_id(to), before, after, limit, raw=raw)

    def conversation_id(self, to: str) -> str:
        """The conversation's id; of the direct conversation when a user is named.

        Raises:
            NotConnected: a user is named and who we are isn't known yet.
            ValueError: neither a conversation's nor a user's id.
        """
        if naming.is_conversation_id(to):
            return to
        if not self.user_id:
            raise NotConnected("who we are isn't known yet: give user_id, or wait for caught_up()")
        return naming.direct_conversation_id(self.user_id, naming.checked_user_id(to))

    def mark_read(self, to: str, seq: int) -> None:
        """The user has read everything up to `seq`. Goes out later when offline."""
        conversation_id = self.conversation_id(to)
        if self._exchange.reads.add(conversation_id, seq):
            self._state.mark_read(conversation_id, seq)
            self._wake()

    # ---- notifications and events

    def notifications(self) -> NotificationIterator:
        """Iterate over the business' messages, each once on this device, over restarts too with a state file: one counts as shown
        when it is given out. Several iterators share them. What has expired by the server's clock is left out."""
        return NotificationIterator(self._showing)

    def events(self) -> EventQueue:
        """Iterate over events from now on. A consumer that falls 1,000 behind loses the oldest; `dropped` counts them."""
        queue = EventQueue()
        self._events.add(queue)
        return queue

    def on(self, kind: type, callback: Callable[[Any], Any]) -> None:
        """Call back, one at a time, for each `Message`, each `Notification`, or each event of one type."""
        self._callbacks.add(kind, callback)

    def typing(self, to: str, typing: bool = True) -> None:
        """Say that the user types; call it as they do, it is sent every 3 seconds at most. Forgotten while offline."""
        conversation_id, now = self.conversation_id(to), asyncio.get_running_loop().time()
        caught_up = self.state is ConnectionState.CAUGHT_UP
        if caught_up and (frame := self._typing.frame(conversation_id, now, typing=typing)):
            self._say(frame)

    async def watch_presence(self, user_ids: Iterable[str]) -> list[PresenceEvent]:
        """Watch users from now on, over reconnects too; gives how they are now, or nothing while not connected: then it comes
        as events.

        Raises:
            RequestFailed: too many are watched.
        """
        users = [naming.checked_user_id(user_id) for user_id in user_ids]
        self._watched.update(users)
        try:
            answer = await self._ask(ClientFrame(watch_presence=pb.WatchPresence(user_ids=users)))
        except NotConnected:
            return []
        return [presence_event(presence) for presence in answer.presence_update.presences]

    def unwatch_presence(self, user_ids: Iterable[str]) -> None:
        """Watch them no more."""
        users = list(user_ids)
        self._watched.difference_update(users)
        if users:
            self._say(ClientFrame(unwatch_presence=pb.UnwatchPresence(user_ids=users)))

    # ---- what holds it together

    def _lane(self, to: str) -> str:
        """What messages to `to` are ordered by."""
        return self.conversation_id(to) if self.user_id else to

    def _api(self) -> HttpApi:
        if self._http is None or self._connection is None or self._closed:
            raise NotConnected("the client is not open: use it as `async with Client(...) as client`")
        return HttpApi(self._http, self._tokens, self._connection.api_url)

    def _connect(self) -> None:
        connection = Connection(self._place, self._tokens, self._exchange, self._requests, self._on_state, self._on_welcome)
        self._connection = connection
        if self._http is not None:
            self._background.start(connection.run(self._http))

    async def _ask(self, frame: ClientFrame) -> ServerFrame:
        if self._connection is None or self._closed:
            raise NotConnected("the client is not open: use it as `async with Client(...) as client`")
        return await self._connection.ask(frame)

    def _say(self, frame: ClientFrame) -> None:
        if self.state in (ConnectionState.CATCHING_UP, ConnectionState.CAUGHT_UP):
            self._exchange.say(frame)
            self._wake()

    def _wake(self) -> None:
        if self._connection is not None:
            self._connection.wake()

    def _submit(self, name: str, lane: str, frame: ClientFrame) -> Outgoing:
        if self._closed:
            raise ClientStopped("the client is closed: nothing was sent")
        return self._sending.submit(name, lane, frame)

    def _hold_back(self, held: bool) -> None:
        self._exchange.acknowledgements.held = held
        self._wake()

    def _on_event(self, event: Event) -> None:
        for queue in self._events:
            queue.put(event)

    def _on_arrival(self) -> None:
        self._feed.on_arrival()
        self._learn()

    def _on_outcome(self, name: str, outcome: Message | Error) -> None:
        self._sending.on_outcome(name, outcome)
        self._learn()

    def _on_welcome(self, welcome: pb.Welcome) -> bool:
        if self.user_id and welcome.user_id != self.user_id:
            return False
        if not self._state.identity("user_id"):
            self._state.set_identity("user_id", welcome.user_id)
        return True

    def _on_state(self, state: ConnectionState, reason: str) -> None:
        if state in FINAL_STATES:
            self._sending.stop(self._reason())
        if state is ConnectionState.CAUGHT_UP:
            self._learn()
            if self._watched:
                self._say(ClientFrame(watch_presence=pb.WatchPresence(user_ids=sorted(self._watched))))
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_event(ConnectionEvent(state, reason))

    def _reason(self) -> str:
        reason = self._connection.reason if self._connection is not None else ""
        return f"{self.state.value}: {reason}" if reason else self.state.value

    def _status_of(self, message: Message) -> Status | None:
        own = message.kind is Kind.MESSAGE and message.sender_id == self.user_id
        return self._exchange.progress.status(message.conversation_id, message.seq) if own else None

    def _learn(self) -> None:
        """Ask for the members and marks that statuses need, where the log doesn't tell."""
        if self.state is ConnectionState.CAUGHT_UP:
            for conversation_id in self._exchange.progress.take_wanted():
                self._background.start(self._learn_one(conversation_id))

    async def _learn_one(self, conversation_id: str) -> None:
        try:
            self._exchange.learn(await self._api().get(conversation_id))
        except TidingsClientError as error:
            _log.debug("the members of %s could not be asked for: %s", conversation_id, error)
            if not isinstance(error, RequestFailed) or error.retry_after is not None:
                self._exchange.progress.want(conversation_id)  # asked for again when the next message comes or is stored

"""One client's session: client frames and router answers in, frames and requests out. Pure: no await, no socket, time passed in.

All times are seconds of one monotonic clock; `wall` is what must be added to it to give Unix time. What the session has to say
goes through its two ports at once. It must not know who is in a conversation, nor how frames travel.
"""

import math
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from tidings.client.v1 import frames_pb2
from tidings.common.v1 import error_pb2
from tidings.router.v1 import link_pb2

from edge import requests, server_frames
from edge.admission import Admission, FloodingError
from edge.device_sync import DeviceSync
from edge.early import Early
from edge.outbox import CHAT
from edge.ports import ClientPort, Expects, MeshPort
from edge.rules import MAX_FETCHES, MAX_RESYNC_SECONDS, RETRY_SECONDS, TOKEN_WARNING_SECONDS, Rules
from edge.unacknowledged import Unacknowledged
from mesh import errors
from mesh.credentials import Identity


class State(Enum):
    """Where a session stands."""

    HANDSHAKE = auto()  # Hello has not come
    OPENING = auto()  # the user's ordinal is asked for
    ANNOUNCING = auto()  # the routers are being told that the user is here
    SYNCING = auto()  # what was missed is being sent; live entries are held back
    LIVE = auto()
    CLOSED = auto()


class Event(Enum):
    """What moves it on."""

    HELLO = auto()
    OPENED = auto()
    ANNOUNCED = auto()
    CAUGHT_UP = auto()
    MISSED = auto()


# Any state moves to CLOSED, from which nothing leads.
_MOVES = {
    (State.HANDSHAKE, Event.HELLO): State.OPENING,
    (State.OPENING, Event.OPENED): State.ANNOUNCING,
    (State.ANNOUNCING, Event.ANNOUNCED): State.SYNCING,
    (State.SYNCING, Event.CAUGHT_UP): State.LIVE,
    (State.LIVE, Event.MISSED): State.SYNCING,
}

_SENDS = frozenset({"send_message", "edit_message", "delete_message"})


class Session:
    """A client that has been authenticated, from its upgrade to its end."""

    __slots__ = (
        "_admission",
        "_caught_up",
        "_client",
        "_early",
        "_expires",
        "_fetches",
        "_fetching",
        "_heard",
        "_mesh",
        "_patience",
        "_resume",
        "_rules",
        "_sync",
        "_token_warned",
        "_unacknowledged",
        "_wall",
        "_watched",
        "deadline",
        "device_id",
        "number",
        "stalled",
        "state",
        "synced",
        "user_id",
        "user_ordinal",
    )

    def __init__(
        self, number: int, identity: Identity, rules: Rules, client: ClientPort, mesh: "MeshPort[Session]", now: float, wall: float
    ) -> None:
        self.number = number
        self.user_id = identity.user_id
        self.user_ordinal = 0
        self.device_id = ""
        self.state = State.HANDSHAKE
        self.deadline = now + rules.handshake
        self.stalled = False  # something waits for the outbox to drain
        self.synced = math.inf  # when the last sync began
        self._rules = rules
        self._client = client
        self._mesh = mesh
        self._wall = wall
        self._expires = identity.expires - wall
        self._token_warned = False
        self._heard = now
        self._admission = Admission(rules, now)
        self._resume: tuple[dict[str, int], int] = ({}, 0)
        self._sync: DeviceSync | None = None
        self._caught_up = False
        self._unacknowledged: Unacknowledged | None = None
        self._patience = rules.acknowledge
        self._early: Early | None = None
        self._fetches: deque[link_pb2.ClientEnvelope] | None = None
        self._fetching = False
        self._watched: set[str] | None = None

    @property
    def watches(self) -> bool:
        """Whether the session watches presences."""
        return bool(self._watched)

    @property
    def owes(self) -> bool:
        """Whether the client has entries to acknowledge."""
        return bool(self._unacknowledged)

    # What the client says

    def on_frame(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        """Act on one frame; whatever is wrong with it is answered, counted, and harms nobody else."""
        if self.state is State.CLOSED:
            return
        self._heard = now
        arm = frame.WhichOneof("body") or ""
        try:
            if self.state is State.HANDSHAKE:
                self._on_first_frame(frame, arm)
                return
            self._admission.on_frame(now)
            handler = _HANDLERS.get(arm)
            if handler is None:
                raise errors.unknown_request("this frame")
            handler(self, frame, now)
        except errors.TidingsError as error:
            self._refuse(error, frame.request_id, getattr(frame, arm).client_msg_id[:64] if arm in _SENDS else "")
        except FloodingError:
            self.close(error_pb2.ERROR_CODE_FLOODING)

    def on_undecodable(self) -> None:
        """What came is no frame of the subprotocol in use."""
        self.close(error_pb2.ERROR_CODE_PROTOCOL_ERROR)

    def on_token(self, identity: Identity, request_id: int) -> None:
        """A token from `refresh_token` is valid."""
        if self.state is State.CLOSED:
            return
        if identity.user_id != self.user_id:
            self.on_token_refused("it names another user", request_id)
            return
        self._expires = identity.expires - self._wall
        self._token_warned = False
        self._write(server_frames.token_refreshed(request_id, identity.expires))

    def on_token_refused(self, why: str, request_id: int) -> None:
        """A token from `refresh_token` is not valid; the session lasts as long as its old one."""
        if self.state is not State.CLOSED:
            self._refuse(errors.invalid_field("refresh_token.token", why), request_id)

    def on_lost(self) -> None:
        """The connection is gone."""
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._mesh.leave(self)

    def on_drained(self, now: float) -> None:
        """The outbox is empty: what waits to be asked for can be."""
        self._pull(now)

    def _on_first_frame(self, frame: frames_pb2.ClientFrame, arm: str) -> None:
        if arm != "hello":
            self.close(error_pb2.ERROR_CODE_HELLO_EXPECTED)
            return
        hello = frame.hello
        requests.check_hello(hello)
        self.device_id = hello.device_id
        self._resume = (requests.positions(hello.resume, "hello.resume"), hello.history_limit)
        self._move(Event.HELLO)
        now, expires = self._heard + self._wall, self._expires + self._wall
        self._write(server_frames.welcome(frame.request_id, self.number, self.user_id, self._rules, now, expires))
        self._mesh.enter(self)
        opening = link_pb2.ClientEnvelope(user_id=self.user_id, session=self.number)
        opening.open_session.device_id = self.device_id
        self._mesh.ask(self, self.user_id, opening, Expects.OPENED)

    def _on_hello(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self.close(error_pb2.ERROR_CODE_HELLO_REPEATED)

    def _on_heartbeat(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._write(server_frames.heartbeat(frame.request_id))

    def _on_refresh_token(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._admission.check_rate()
        self._client.verify_token(frame.refresh_token.token, frame.request_id)

    def _on_send_message(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._send(requests.send(frame.send_message, self.user_id, self._rules), frame.request_id, now)

    def _on_edit_message(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._send(requests.edit(frame.edit_message, self._rules), frame.request_id, now)

    def _on_delete_message(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._send(requests.delete(frame.delete_message), frame.request_id, now)

    def _on_acknowledge(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        # Never refused for its rate: it is cheap, and refusing it would cost a sync.
        for conversation_id, seq in requests.positions(frame.acknowledge.positions, "acknowledge.positions").items():
            self._acknowledge(conversation_id, seq, 0, now)
        self._pull(now)

    def _on_mark_read(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        conversation_id, seq = requests.mark_read(frame.mark_read)
        self._acknowledge(conversation_id, seq, seq, now)
        self._pull(now)

    def _on_start_typing(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._type(frame.start_typing.conversation_id, started=True)

    def _on_stop_typing(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._type(frame.stop_typing.conversation_id, started=False)

    def _on_watch_presence(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._admission.check_rate()
        new = requests.watched(frame.watch_presence.user_ids, "watch_presence.user_ids")
        together = (self._watched or set()).union(new)
        if len(together) > self._rules.max_watched:
            raise errors.too_many_watched(self._rules.max_watched)
        watch = link_pb2.ClientEnvelope(request_id=frame.request_id, watch_users=link_pb2.WatchUsers(watch_user_ids=new))
        self._ask(self.user_id, watch, Expects.PRESENCE)
        self._watched = together

    def _on_unwatch_presence(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._admission.check_rate()
        gone = requests.watched(frame.unwatch_presence.user_ids, "unwatch_presence.user_ids")
        self._watched = (self._watched or set()).difference(gone) if gone else None
        unwatch = link_pb2.WatchUsers(unwatch_user_ids=gone, clear=not gone)
        if self.user_ordinal:
            self._mesh.tell(self.user_id, self._signed(link_pb2.ClientEnvelope(watch_users=unwatch)))

    def _on_fetch_messages(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._admission.check_rate()
        envelope = requests.fetch(frame.fetch_messages, self._rules)
        envelope.request_id = frame.request_id
        self._fetches = self._fetches or deque()
        if len(self._fetches) >= MAX_FETCHES:
            raise errors.overloaded(RETRY_SECONDS, f"this session waits for {MAX_FETCHES} pages, and")
        self._fetches.append(envelope)
        self._pull(now)

    # What the routers say

    def on_opened(self, user_ordinal: int) -> None:
        """The user's ordinal is known: say what was held for it, and announce the session."""
        if self.state is not State.OPENING:
            return
        self.user_ordinal = user_ordinal
        self._move(Event.OPENED)
        for conversation_id, seq in self._resume[0].items():  # what the device has is as good as acknowledged
            self._mesh.mark(self, conversation_id, seq, 0)
        early, self._early = self._early or Early(0), None
        for key, envelope, expects in early.requests:
            self._mesh.ask(self, key, self._signed(envelope), expects)
        for conversation_id, (delivered, read) in early.marks.items():
            self._mesh.mark(self, conversation_id, delivered, read)
        self._mesh.announce(self)

    def on_announced(self, now: float) -> None:
        """Every router knows that the user is here: what is stored from now on comes live, what was before is in the log."""
        if self.state is State.ANNOUNCING:
            self._move(Event.ANNOUNCED)
            self._begin_sync(now)

    def on_reply(self, expects: Expects, frame: bytes, now: float) -> None:
        """An encoded frame answers a request."""
        if self.state is State.CLOSED:
            return
        if expects is Expects.STORED:
            self._admission.on_answered()
            self._client.write(frame, CHAT)
        elif expects is Expects.PAGE:
            self._fetching = False
            self._client.write(frame, CHAT, asked=True)
            self._pull(now)
        elif expects is Expects.PRESENCE:
            self._client.write(frame, CHAT)
        else:
            self._on_refused_by_router(expects, now)

    def on_sync_page(self, page: link_pb2.SyncPage, now: float) -> None:
        """A page of what was missed."""
        if self._sync is None or self.state is not State.SYNCING:
            return
        for frame in page.frames:
            self._client.write(frame, CHAT, asked=True)
        for position in page.positions:
            self._owe(position.conversation_id, position.seq, now)
        self._sync.on_page(page)
        self._pull(now)

    def on_delivery(self, traffic_class: int, conversation_id: str, seq: int, frame: bytes, now: float) -> None:
        """A live frame for the user."""
        if traffic_class == CHAT and seq:
            if self.state is State.LIVE:
                self._owe(conversation_id, seq, now)
            else:
                if self._sync is not None:
                    self._sync.hold(conversation_id, seq, frame)
                return  # before the sync begins, the log will bring it
        if self.state is not State.CLOSED:
            self._client.write(frame, traffic_class)

    def resync(self, now: float) -> None:
        """Something may have been missed: read it from the log."""
        if self.state is State.LIVE:
            self._move(Event.MISSED)
            self._begin_sync(now)
        elif self._sync is not None:
            self._sync.again()
            self._pull(now)

    def rewatch(self) -> None:
        """The routers forgot what the session watches: tell them again."""
        if self._watched and self.user_ordinal:
            watch = link_pb2.WatchUsers(watch_user_ids=sorted(self._watched), clear=True)
            self._ask(self.user_id, link_pb2.ClientEnvelope(watch_users=watch), Expects.PRESENCE)

    def _on_refused_by_router(self, expects: Expects, now: float) -> None:
        if expects is Expects.OPENED:
            self.close(error_pb2.ERROR_CODE_SESSION_FAILED)
        elif self._sync is not None:
            self._sync.on_failed()
            self.deadline = min(self.deadline, now + RETRY_SECONDS)

    # What the clock and the edge say

    def tick(self, now: float) -> None:
        """Look at the deadlines; called when `deadline` has passed."""
        if self.state is State.CLOSED:
            self.deadline = math.inf
        elif self.state is State.HANDSHAKE:
            self.close(error_pb2.ERROR_CODE_HANDSHAKE_TIMEOUT)
        elif now - self._heard >= self._rules.heartbeat_limit:
            self.close(error_pb2.ERROR_CODE_HEARTBEAT_TIMEOUT)
        elif now >= self._expires:
            self.close(error_pb2.ERROR_CODE_UNAUTHENTICATED)
        else:
            self._tick_open(now)

    def heard(self, now: float) -> None:
        """The client showed itself otherwise than by a frame."""
        self._heard = now

    def go_away(self, reconnect_after: float) -> None:
        """Ask the client to leave in so many seconds."""
        if self.state in (State.HANDSHAKE, State.CLOSED):
            return
        self._write(server_frames.go_away(reconnect_after))

    def close(self, code: int) -> None:
        """End the session with a close code of ErrorCode."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._mesh.refused(code)
        self._client.close(code, errors.reason(code))
        self._mesh.leave(self)

    def _tick_open(self, now: float) -> None:
        if now >= self._expires - TOKEN_WARNING_SECONDS and not self._token_warned:
            self._token_warned = True
            self._write(server_frames.token_expiring(self._expires + self._wall))
        if self._unacknowledged and self._unacknowledged.overdue(now - self._patience):
            self._send_again(now)
        self._pull(now)
        token = self._expires if self._token_warned else self._expires - TOKEN_WARNING_SECONDS
        checked = now + self._patience / 4 if self._unacknowledged or self._sync is not None else math.inf
        self.deadline = min(self._heard + self._rules.heartbeat_limit, token, checked)

    def _send_again(self, now: float) -> None:
        if self._unacknowledged is None:
            return
        self._unacknowledged.restart(now)
        self._patience = min(2 * self._patience, MAX_RESYNC_SECONDS)
        if self._sync is not None:
            self._sync.restart()
        self.resync(now)

    # Shared steps

    def _move(self, event: Event) -> None:
        self.state = _MOVES[self.state, event]
        self.deadline = -math.inf  # the next tick works out what the new state waits for

    def _begin_sync(self, now: float) -> None:
        self.synced = now
        rules, (positions, history_limit) = self._rules, self._resume
        self._sync = DeviceSync(self.device_id, positions, history_limit, rules.sync_window, rules.max_held, rules.max_held_bytes)
        self._pull(now)

    def _pull(self, now: float) -> None:
        """Ask for the next page of the sync and of history, once what was written has left."""
        if not self.user_ordinal or self.state is State.CLOSED:
            return
        sync = self._sync
        if sync is not None and sync.complete:
            self._finish_sync(sync, now)
        self.stalled = not self._client.drained
        if self.stalled:
            return
        if sync is not None and (request := sync.next_request()) is not None:
            self._ask(self.user_id, link_pb2.ClientEnvelope(sync_device=request), Expects.SYNC_PAGE)
        if self._fetches and not self._fetching:
            self._fetching = True
            envelope = self._fetches.popleft()
            self._ask(envelope.fetch_entries.conversation_id, envelope, Expects.PAGE)

    def _finish_sync(self, sync: DeviceSync, now: float) -> None:
        self._sync = None
        self._resume = ({}, 0)
        self._move(Event.CAUGHT_UP)
        for conversation_id, seq, frame in sync.release():
            self._owe(conversation_id, seq, now)
            self._client.write(frame, CHAT, asked=True)
        if not self._caught_up:
            self._caught_up = True
            self._write(server_frames.CAUGHT_UP)

    def _send(self, envelope: link_pb2.ClientEnvelope, request_id: int, now: float) -> None:
        append = envelope.append_entry
        self._admission.check_send(append.conversation_id, append.client_msg_id, self._mesh.has_room, now)
        envelope.request_id = request_id
        self._ask(append.conversation_id, envelope, Expects.STORED)

    def _ask(self, key: str, envelope: link_pb2.ClientEnvelope, expects: Expects) -> None:
        if self.user_ordinal:
            self._mesh.ask(self, key, self._signed(envelope), expects)
        else:
            self._before_opened().ask(key, envelope, expects)

    def _before_opened(self) -> Early:
        if self._early is None:
            self._early = Early(self._rules.max_sends_in_flight + MAX_FETCHES)
        return self._early

    def _signed(self, envelope: link_pb2.ClientEnvelope) -> link_pb2.ClientEnvelope:
        envelope.session = self.number
        envelope.user_ordinal = self.user_ordinal
        envelope.user_id = self.user_id
        return envelope

    def _acknowledge(self, conversation_id: str, delivered: int, read: int, now: float) -> None:
        if self._unacknowledged:
            self._unacknowledged.acknowledged(conversation_id, delivered, now)
            self._patience = self._rules.acknowledge
        if self._sync is not None:
            self._sync.on_acknowledged(conversation_id, delivered)
        if self.user_ordinal:
            self._mesh.mark(self, conversation_id, delivered, read)
        else:
            self._before_opened().mark(conversation_id, delivered, read)

    def _owe(self, conversation_id: str, seq: int, now: float) -> None:
        if self._unacknowledged is None:
            self._unacknowledged = Unacknowledged()
        self._unacknowledged.sent(conversation_id, seq, now)
        self.deadline = min(self.deadline, now + self._patience)

    def _type(self, conversation_id: str, *, started: bool) -> None:
        self._admission.check_rate()
        envelope = requests.typing(conversation_id, started=started)
        if self.user_ordinal:  # before that it is not worth keeping
            self._mesh.tell(conversation_id, self._signed(envelope))

    def _refuse(self, error: errors.TidingsError, request_id: int, client_msg_id: str = "") -> None:
        self._mesh.refused(error.code)
        self._write(server_frames.error(request_id, error, client_msg_id))

    def _write(self, frame: bytes) -> None:
        self._client.write(frame, CHAT)


Handler = Callable[[Session, frames_pb2.ClientFrame, float], None]
_HANDLERS: dict[str, Handler] = {
    "hello": Session._on_hello,
    "refresh_token": Session._on_refresh_token,
    "heartbeat": Session._on_heartbeat,
    "send_message": Session._on_send_message,
    "edit_message": Session._on_edit_message,
    "delete_message": Session._on_delete_message,
    "acknowledge": Session._on_acknowledge,
    "mark_read": Session._on_mark_read,
    "start_typing": Session._on_start_typing,
    "stop_typing": Session._on_stop_typing,
    "watch_presence": Session._on_watch_presence,
    "unwatch_presence": Session._on_unwatch_presence,
    "fetch_messages": Session._on_fetch_messages,
}

"""One client's session: client frames and router answers in, frames and requests out. Pure: no await, no socket, time passed in.

All times are seconds of one monotonic clock; `wall` is what must be added to it to give Unix time. What the session has to say
goes through its two ports at once. It must not know who is in a conversation, nor how frames travel.
"""

import math
from collections.abc import Callable

from edge import requests, server_frames
from edge.admission import Admission, FloodingError
from edge.catch_up import CatchUp
from edge.device_sync import DeviceSync
from edge.lifetime import Lifetime
from edge.no_client import NOBODY
from edge.outbox import CHAT, RECEIPT
from edge.packet import Packet
from edge.ports import ClientPort, EdgePort, Expects
from edge.rules import RETRY_SECONDS, Rules
from edge.states import MOVES, Event, State
from edge.voice import Voice
from edge.watches import Watches
from mesh import errors
from mesh.credentials import Identity
from tidings.client.v1 import frames_pb2
from tidings.common.v1 import error_pb2
from tidings.router.v1 import link_pb2

_SENDS: dict[str, Callable[[frames_pb2.ClientFrame, str, Rules], link_pb2.ClientEnvelope]] = {
    "send_message": lambda frame, user_id, rules: requests.send(frame.send_message, user_id, rules),
    "edit_message": lambda frame, _, rules: requests.edit(frame.edit_message, rules),
    "delete_message": lambda frame, _user_id, _rules: requests.delete(frame.delete_message),
}


class Session:
    """A client that has been authenticated, from its upgrade to its end."""

    __slots__ = (
        "_admission",
        "_catch_up",
        "_caught_up",
        "_client",
        "_edge",
        "_lifetime",
        "_rules",
        "_voice",
        "_wall",
        "_watches",
        "deadline",
        "number",
        "stalled",
        "state",
        "synced",
    )

    def __init__(
        self, number: int, identity: Identity, rules: Rules, client: ClientPort, edge: "EdgePort[Session]", now: float, wall: float
    ) -> None:
        self.number = number
        self.state = State.HANDSHAKE
        self.deadline = now + rules.handshake
        self.stalled = False  # something waits for the outbox to drain
        self.synced = math.inf  # when the last sync began
        self._rules = rules
        self._client: ClientPort = client
        self._edge = edge
        self._voice = Voice(number, identity.user_id, edge)
        self._wall = wall
        self._lifetime = Lifetime(rules, identity.expires - wall, now)
        self._admission = Admission(rules, now)
        self._catch_up = CatchUp(rules)
        self._caught_up = False
        self._watches = Watches(rules, self._voice)

    @property
    def user_id(self) -> str:
        """Whose session it is."""
        return self._voice.user_id

    @property
    def user_ordinal(self) -> int:
        """The user's dense number; 0 until known."""
        return self._voice.ordinal

    @property
    def device_id(self) -> str:
        """The device; empty before Hello."""
        return self._voice.device_id

    @property
    def is_open(self) -> bool:
        """Whether Hello came and the session lasts."""
        return self.state not in (State.HANDSHAKE, State.CLOSED)

    @property
    def expires(self) -> float:
        """When the token runs out, in Unix seconds."""
        return self._lifetime.expires + self._wall

    @property
    def watches(self) -> bool:
        """Whether the session watches presences."""
        return bool(self._watches)

    # What the client says

    def on_frame(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        """Act on one frame; whatever is wrong with it is answered, counted, and harms nobody else."""
        if self.state is State.CLOSED:
            return
        self._lifetime.heard = now
        arm = frame.WhichOneof("body") or ""
        try:
            self._admission.on_frame(frame, arm, now)
            self._act(frame, arm, now)
        except errors.TidingsError as error:
            self._refuse(error, frame.request_id, getattr(frame, arm).client_msg_id[:64] if arm in _SENDS else "")
        except FloodingError:
            self.close(error_pb2.ERROR_CODE_FLOODING)

    def _act(self, frame: frames_pb2.ClientFrame, arm: str, now: float) -> None:
        if self.state is State.HANDSHAKE:
            self._on_first_frame(frame, arm)
        elif arm in _SENDS:
            self._send(_SENDS[arm](frame, self.user_id, self._rules), frame.request_id, now)
        elif arm in _HANDLERS:
            _HANDLERS[arm](self, frame, now)
        else:
            raise errors.unknown_request("this frame")

    def on_token(self, identity: Identity, request_id: int) -> None:
        """A token from `refresh_token` is valid."""
        if self.state is State.CLOSED:
            return
        if identity.user_id != self.user_id:
            self.on_token_refused("it names another user", request_id)
            return
        self._lifetime.extend(identity.expires - self._wall)
        self._write(server_frames.token_refreshed(request_id, identity.expires))

    def on_token_refused(self, why: str, request_id: int) -> None:
        """A token from `refresh_token` is not valid; the session lasts as long as its old one."""
        if self.state is not State.CLOSED:
            self._refuse(errors.invalid_field("refresh_token.token", why), request_id)

    def on_lost(self) -> None:
        """The connection is gone."""
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._edge.leave(self)
        self._client = NOBODY

    def on_drained(self, now: float) -> None:
        """The outbox is empty: what waits to be asked for can be."""
        self._pull(now)

    def _on_first_frame(self, frame: frames_pb2.ClientFrame, arm: str) -> None:
        if arm != "hello":
            self.close(error_pb2.ERROR_CODE_HELLO_EXPECTED)
            return
        hello = frame.hello
        requests.check_hello(hello)
        self._catch_up.positions = requests.positions(hello.resume, "hello.resume")
        self._catch_up.history_limit = hello.history_limit
        self._move(Event.HELLO)
        now, expires = self._lifetime.heard + self._wall, self._lifetime.expires + self._wall
        self._write(server_frames.welcome(frame.request_id, self.number, self.user_id, self._rules, now, expires))
        self._voice.device_id = hello.device_id
        ordinal = self._edge.enter(self)
        if ordinal:
            self.on_opened(ordinal)
        else:
            self._voice.open()

    def _on_heartbeat(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._write(server_frames.heartbeat(frame.request_id))

    def _on_refresh_token(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._admission.check_rate()
        self._client.verify_token(frame.refresh_token.token, frame.request_id)

    def _on_acknowledge(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        # Never refused for its rate: it is cheap, and refusing it would cost a sync.
        for conversation_id, seq in requests.positions(frame.acknowledge.positions, "acknowledge.positions").items():
            self._acknowledge(conversation_id, seq, 0, now)
        self._pull(now)

    def _on_acknowledge_notification(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        # Never refused for its rate either: the notification would only be sent again.
        given = frame.acknowledge_notification.notification_ids
        self._voice.acknowledge_notifications(requests.notifications(given, "acknowledge_notification.notification_ids"))

    def _on_mark_read(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        conversation_id, seq = requests.mark_read(frame.mark_read)
        self._acknowledge(conversation_id, seq, seq, now)
        self._pull(now)

    def _on_typing(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._admission.check_rate()
        started = frame.HasField("start_typing")
        conversation_id = frame.start_typing.conversation_id if started else frame.stop_typing.conversation_id
        self._voice.tell(conversation_id, requests.typing(conversation_id, started=started))

    def _on_watch_presence(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._admission.check_rate()
        self._watches.watch(frame.watch_presence.user_ids, frame.request_id)

    def _on_unwatch_presence(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._admission.check_rate()
        self._watches.unwatch(frame.unwatch_presence.user_ids)

    def _on_fetch_messages(self, frame: frames_pb2.ClientFrame, now: float) -> None:
        self._admission.check_rate()
        envelope = requests.fetch(frame.fetch_messages, self._rules)
        envelope.request_id = frame.request_id
        self._catch_up.fetch(envelope)
        self._pull(now)

    # What the routers say

    def on_opened(self, user_ordinal: int) -> None:
        """The user's ordinal is known: say what was held for it, and announce the session."""
        if self.state is not State.OPENING:
            return
        self._move(Event.OPENED)
        self._voice.opened(user_ordinal)
        self._edge.announce(self)

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
            self._catch_up.on_fetched()
            self._client.write(frame, CHAT, asked=True)
            self._pull(now)
        elif expects is Expects.PRESENCE:
            self._watches.on_answered()
            self._client.write(frame, CHAT)
        else:
            self._on_refused_by_router(expects, now)

    def on_sync_page(self, page: link_pb2.SyncPage, now: float) -> None:
        """A page of what was missed."""
        sync = self._catch_up.sync
        if sync is None or self.state is not State.SYNCING:
            return
        for frame in page.frames:
            self._client.write(frame, CHAT, asked=True)
        for position in page.positions:
            self._owe(position.conversation_id, position.seq, now)
        for conversation_id, seq in sync.on_page(page).items():  # what the device has is as good as acknowledged
            self._voice.mark(conversation_id, seq, 0)
        self._pull(now)

    def on_delivery(self, traffic_class: int, conversation_id: str, seq: int, frame: bytes, now: float) -> None:
        """A live frame for the user."""
        if traffic_class == CHAT and seq:
            if self.state is State.LIVE:
                self._owe(conversation_id, seq, now)
            else:
                if self._catch_up.sync is not None:
                    self._catch_up.sync.hold(conversation_id, seq, frame)
                return  # before the sync begins, the log will bring it
        elif traffic_class == RECEIPT and not self._caught_up:
            return  # it may have waited for a frozen edge, while the client heard of newer ones; see Receipt in frames.proto
        if self.state is not State.CLOSED:
            self._client.write(frame, traffic_class)

    def on_packet(self, packet: Packet, now: float) -> None:
        """Live frames for the user, all of one conversation: as `on_delivery`, at less cost when nothing is special."""
        if self.state is State.LIVE and packet.whole(self.number):
            if packet.seq:
                self._owe(packet.conversation_id, packet.seq, now)
            self._client.write_packet(packet)
            return
        for one in packet.frames:
            if one.suits(self.number):
                self.on_delivery(packet.traffic_class, packet.conversation_id, one.seq, one.frame, now)

    def resync(self, now: float) -> None:
        """Something may have been missed: read it from the log."""
        if self.state is State.LIVE:
            self._move(Event.MISSED)
            self._begin_sync(now)
        elif self._catch_up.sync is not None:
            self._catch_up.sync.again()
            self._pull(now)

    def rewatch(self) -> None:
        """The routers forgot what the session watches: tell them again."""
        self._watches.renew()

    def _on_refused_by_router(self, expects: Expects, now: float) -> None:
        if expects is Expects.OPENED:
            self.close(error_pb2.ERROR_CODE_SESSION_FAILED)
        elif self._catch_up.sync is not None:
            self._catch_up.sync.on_failed()
            self.deadline = min(self.deadline, now + RETRY_SECONDS)

    # What the clock and the edge say

    def tick(self, now: float) -> None:
        """Look at the deadlines; called when `deadline` has passed."""
        if self.state is State.CLOSED:
            self.deadline = math.inf
        elif self.state is State.HANDSHAKE:
            self.close(error_pb2.ERROR_CODE_HANDSHAKE_TIMEOUT)
        elif (code := self._lifetime.over(now)) is not None:
            self.close(code)
        else:
            self._tick_open(now)

    def heard(self, now: float) -> None:
        """The client showed itself otherwise than by a frame."""
        self._lifetime.heard = now

    def go_away(self, reconnect_after: float, url: str = "", ticket: str = "") -> None:
        """Ask the client to leave in so many seconds, with that ticket for the edge at that base URL if there is one."""
        if self.is_open:
            self._write(server_frames.go_away(reconnect_after, url, ticket))

    def close(self, code: int) -> None:
        """End the session with a close code of ErrorCode."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._edge.refused(code)
        self._client.close(code, errors.reason(code))
        self._edge.leave(self)

    def _tick_open(self, now: float) -> None:
        if self._lifetime.warn(now):
            self._write(server_frames.token_expiring(self._lifetime.expires + self._wall))
        if self._catch_up.overdue(now):
            self.resync(now)
        self._pull(now)
        self.deadline = min(self._lifetime.deadline, self._catch_up.check_again(now))

    # Shared steps

    def _move(self, event: Event) -> None:
        self.state = MOVES[self.state, event]
        self.deadline = -math.inf  # the next tick works out what the new state waits for

    def _begin_sync(self, now: float) -> None:
        self.synced = now
        self._catch_up.begin(self.device_id)
        self._pull(now)

    def _pull(self, now: float) -> None:
        """Ask for the next page of the sync and of history, once what was written has left."""
        if not self.user_ordinal or self.state is State.CLOSED:
            return
        sync = self._catch_up.sync
        if sync is not None and sync.complete:
            self._finish_sync(sync, now)
        self.stalled = not self._client.drained
        if self.stalled:
            return
        for expects, envelope in self._catch_up.next_requests():
            key = envelope.fetch_entries.conversation_id if expects is Expects.PAGE else self.user_id
            self._voice.ask(key, envelope, expects)

    def _finish_sync(self, sync: DeviceSync, now: float) -> None:
        self._catch_up.end()
        self._move(Event.CAUGHT_UP)
        for conversation_id, seq, frame in sync.release():
            self._owe(conversation_id, seq, now)
            self._client.write(frame, CHAT, asked=True)
        if not self._caught_up:
            self._caught_up = True
            self._write(server_frames.CAUGHT_UP)

    def _send(self, envelope: link_pb2.ClientEnvelope, request_id: int, now: float) -> None:
        append = envelope.append_entry
        self._admission.check_send(append.conversation_id, append.client_msg_id, self._edge.has_room, now)
        envelope.request_id = request_id
        self._voice.ask(append.conversation_id, envelope, Expects.STORED)

    def _acknowledge(self, conversation_id: str, delivered: int, read: int, now: float) -> None:
        self._catch_up.acknowledged(conversation_id, delivered, now)
        self._voice.mark(conversation_id, delivered, read)

    def _owe(self, conversation_id: str, seq: int, now: float) -> None:
        self._catch_up.sent(conversation_id, seq, now)
        due = now + self._catch_up.patience
        if due < self.deadline:
            self.deadline = due

    def _refuse(self, error: errors.TidingsError, request_id: int, client_msg_id: str = "") -> None:
        self._edge.refused(error.code)
        self._write(server_frames.error(request_id, error, client_msg_id))

    def _write(self, frame: bytes) -> None:
        self._client.write(frame, CHAT)


Handler = Callable[[Session, frames_pb2.ClientFrame, float], None]
_HANDLERS: dict[str, Handler] = {
    "hello": lambda session, _frame, _now: session.close(error_pb2.ERROR_CODE_HELLO_REPEATED),
    "refresh_token": Session._on_refresh_token,
    "heartbeat": Session._on_heartbeat,
    "acknowledge": Session._on_acknowledge,
    "acknowledge_notification": Session._on_acknowledge_notification,
    "mark_read": Session._on_mark_read,
    "start_typing": Session._on_typing,
    "stop_typing": Session._on_typing,
    "watch_presence": Session._on_watch_presence,
    "unwatch_presence": Session._on_unwatch_presence,
    "fetch_messages": Session._on_fetch_messages,
}

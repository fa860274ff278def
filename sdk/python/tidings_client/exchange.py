"""What the client says and makes of what it hears, apart from how the bytes travel.

One batch of frames in: the cores (inbox, outbox, statuses) take each, then everything that changed is kept in one transaction, and
only then is anything acknowledged, resolved or told to the application. Frames out are asked for by `take_frames`, within the
server's rate. It does no IO but through the state, knows no clock but the `now` passed in, and lives as long as the client.
"""

from collections.abc import Callable, Iterable
from itertools import count

from tidings.client.v1 import frames_pb2 as pb
from tidings.client.v1.frames_pb2 import ClientFrame, ServerFrame
from tidings.common.v1 import error_pb2
from tidings.common.v1.conversation_pb2 import Conversation, LogEntry
from tidings_client import model
from tidings_client.acknowledgements import Acknowledgements, ReadMarks
from tidings_client.errors import retry_seconds
from tidings_client.inbox import DEFAULT_PAGE, Inbox
from tidings_client.model import Event, Message, Status, StatusEvent
from tidings_client.moving import Appointment
from tidings_client.notifications import NotificationInbox
from tidings_client.outbox import DEFAULT_WINDOW, Outbox, Record, entry_of
from tidings_client.pacing import Heartbeats, TokenBucket
from tidings_client.progress import ProgressBook
from tidings_client.resume import MAX_RESUME, Resume
from tidings_client.state import Changes, State
from tidings_client.watermarks import Watermarks

DEFAULT_HEARTBEAT = 20.0  # seconds, when Welcome names none


class Exchange:
    """See the top of this file.

    Args:
        state: what is kept.
        history_limit: passed on in Hello.
        on_event: gets each event, once what it tells is kept.
        on_arrival: called when new entries can be read from the state.
        on_outcome: gets (client_msg_id, the stored message or the error) when a send is settled.
        on_answer: gets answers to requests that aren't this class's own.
        notifications: takes in those.
    """

    def __init__(
        self,
        state: State,
        history_limit: int,
        on_event: Callable[[Event], None],
        on_arrival: Callable[[], None],
        on_outcome: Callable[[str, Message | error_pb2.Error], None],
        on_answer: Callable[[ServerFrame], bool],
        notifications: NotificationInbox,
    ) -> None:
        self._state = state
        self._history_limit = history_limit
        self._on_event, self._on_arrival = on_event, on_arrival
        self._on_outcome, self._on_answer = on_outcome, on_answer
        self._notifications = notifications
        self._numbers = count(1)
        self.inbox = Inbox(state.position, history_limit)
        self.outbox = Outbox(state.outgoing())
        self.acknowledgements = Acknowledgements()
        self.reads = ReadMarks(state.unconfirmed_reads())
        self.progress = ProgressBook(state)
        self._watermarks = Watermarks()
        self.user_id = state.identity("user_id")
        self._resume = Resume(state.newest_positions(MAX_RESUME))
        self._fetching: dict[int, str] = {}  # request id -> conversation
        self._confirming: dict[int, dict[str, int]] = {}  # heartbeat's request id -> read marks it confirms
        self._ready: list[ClientFrame] = []  # to be sent before all else
        self._limits = pb.Limits()
        self.caught_up = False
        self._bucket = TokenBucket(0, 0, 0.0)
        self._heartbeats = Heartbeats(DEFAULT_HEARTBEAT, 0.0)
        self._changes = Changes()
        self._events: list[Event] = []
        self._outcomes: list[tuple[str, Message | error_pb2.Error]] = []
        self.appointment: Appointment | None = None
        """When and where to GoAway asks us to leave."""
        self.token_wanted = False
        """Whether the server asked for a fresh token."""

    def identify(self, user_id: str) -> None:
        """Who we are."""
        self.user_id = user_id
        self.outbox.identify(user_id)
        self.progress.identify(user_id)

    def hello(self, device_id: str, client: str) -> ClientFrame:
        """The first frame of a connection."""
        resume, limit = self._resume.positions(), self._history_limit
        hello = pb.Hello(device_id=device_id, resume=resume, history_limit=limit, client=client)
        return ClientFrame(request_id=next(self._numbers), hello=hello)

    def on_welcome(self, welcome: pb.Welcome, now: float) -> None:
        """The session is open."""
        self.identify(welcome.user_id)
        self._resume.on_told()
        self._limits = limits = welcome.limits
        self.outbox.window = limits.max_sends_in_flight or DEFAULT_WINDOW
        self.inbox.page_limit = limits.max_page_entries or DEFAULT_PAGE
        self._bucket = TokenBucket(limits.frames_per_second, limits.frames_burst, now)
        interval = welcome.heartbeat_interval.ToTimedelta().total_seconds() or DEFAULT_HEARTBEAT
        self._heartbeats = Heartbeats(interval, now)
        self._notifications.on_welcome(welcome)

    def on_disconnected(self) -> None:
        """The connection ended; what it left open goes again on the next."""
        self.caught_up = self.token_wanted = False
        self.appointment = None
        self.outbox.on_disconnected()
        self.reads.on_disconnected()
        self.acknowledgements.reset()
        self.inbox.on_disconnected()
        self._notifications.on_disconnected()
        self._fetching, self._confirming, self._ready = {}, {}, []
        self._changes, self._events, self._outcomes = Changes(), [], []

    def reload(self) -> None:
        """What was to be kept couldn't be: take up again what the state holds."""
        self.on_disconnected()
        self.progress.forget()
        self.outbox = Outbox(self._state.outgoing())
        if self.user_id:
            self.outbox.identify(self.user_id)

    def on_frames(self, frames: Iterable[ServerFrame], now: float) -> None:
        """Take in a batch of frames.

        Raises:
            StateFileError: what came can't be kept; it wasn't acknowledged, and comes again after `on_disconnected`.
        """
        caught_up = self.caught_up
        for frame in frames:
            body = frame.WhichOneof("body")
            handler = _HANDLERS.get(body or "")
            if handler is not None:
                handler(self, frame, now)
        self._heartbeats.on_heard(now)
        self._settle()
        if self.caught_up and not caught_up:
            self.progress.on_caught_up()  # it looks at what is kept, this batch included

    def next_request_id(self) -> int:
        """An id for a request of the caller's."""
        return next(self._numbers)

    def say(self, frame: ClientFrame) -> None:
        """Send a frame as soon as the rate allows; forgotten if the connection ends before."""
        self._ready.append(frame)

    def take_frames(self, now: float) -> list[ClientFrame]:
        """Frames to send now."""
        room = self._bucket.room(now)
        frames, self._ready = self._ready[: max(room, 0)], self._ready[max(room, 0) :]
        frames += self._heartbeat(now)
        frames += self.acknowledgements.take(now) if room > len(frames) else []
        frames += self._notifications.acknowledgements.take(now) if room > len(frames) else []
        frames += self.reads.take(max(0, room - len(frames)))
        frames += self._fetch(now, room - len(frames))
        frames += self._send(now, room - len(frames))
        if frames:
            self._bucket.spend(len(frames))
            self._heartbeats.on_sent(now)
        return frames

    def last_frames(self, now: float) -> list[ClientFrame]:
        """What should still be said before leaving."""
        told = [*self.acknowledgements.take_all(now), *self._notifications.acknowledgements.take_all(now)]
        return [*told, *self.reads.take(self.inbox.page_limit)]

    def lost(self, now: float) -> bool:
        """Whether the server has been silent for too long."""
        return self._heartbeats.lost(now)

    def deadline(self) -> float:
        """When to call `take_frames` again if nothing else happens."""
        times = [self._heartbeats.deadline(), self.inbox.deadline(), self.outbox.deadline(), self.acknowledgements.deadline()]
        times.append(self._notifications.acknowledgements.deadline())
        if self._ready or self.outbox.ready or self.reads.waiting:
            times.append(self._bucket.deadline())
        if self.appointment is not None:
            times.append(self.appointment.at)
        return max(min(at for at in times if at is not None), self._bucket.deadline())

    # ---- frames out

    def _heartbeat(self, now: float) -> list[ClientFrame]:
        if not self._heartbeats.due(now):
            return []
        number = next(self._numbers)
        self._confirming = {number: self.reads.on_heartbeat_sent()}
        return [ClientFrame(request_id=number, heartbeat=pb.Heartbeat())]

    def _fetch(self, now: float, room: int) -> list[ClientFrame]:
        frames = []
        for name, fetch in self.inbox.fetches(now, max(room, 0)):
            number = next(self._numbers)
            self._fetching[number] = name
            ask = pb.FetchMessages(conversation_id=name, after_seq=fetch.after_seq, limit=fetch.limit)
            frames.append(ClientFrame(request_id=number, fetch_messages=ask))
        return frames

    def _send(self, now: float, room: int) -> list[ClientFrame]:
        self.outbox.on_time(now)
        frames = []
        for record in self.outbox.take(now, max(room, 0)):
            number = next(self._numbers)
            record.frame.request_id = number
            if self._limits.max_frame_bytes and record.frame.ByteSize() > self._limits.max_frame_bytes:
                self._refuse_locally(record)
                continue
            self.outbox.on_sent(record, number, now)
            frames.append(record.frame)
        if self._changes:
            self._settle()
        return frames

    def _refuse_locally(self, record: Record) -> None:
        """A frame too large would end the connection, again and again."""
        text = f"the frame has {record.frame.ByteSize()} bytes, at most {self._limits.max_frame_bytes} are allowed: send less"
        error = error_pb2.Error(code=error_pb2.ERROR_CODE_CONTENT_TOO_LARGE, message=text, field="content")
        self.outbox.discard(record.client_msg_id)
        self._fail(record, error)

    # ---- frames in

    def _on_new_message(self, frame: ServerFrame, now: float) -> None:
        message = frame.new_message
        if message.acknowledge_within_ms:
            self.acknowledgements.grant(message.entry.conversation_id, message.acknowledge_within_ms / 1e3, now)
        self.inbox.on_entry(message.entry)

    def _on_message_page(self, frame: ServerFrame, now: float) -> None:
        if frame.request_id in self._fetching:
            del self._fetching[frame.request_id]
            self.inbox.on_fetched(frame.message_page, now)
        elif frame.request_id:
            self._on_answer(frame)
        else:
            self.inbox.on_page(frame.message_page)

    def _on_message_stored(self, frame: ServerFrame, now: float) -> None:
        stored = frame.message_stored
        record = self.outbox.on_stored(stored.client_msg_id)
        if record is None:
            return
        entry = entry_of(record, stored, self.user_id)
        self._stored(record.client_msg_id, entry)
        self.inbox.on_entry(entry)

    def _on_receipt(self, frame: ServerFrame, now: float) -> None:
        receipt = frame.receipt
        for mark in receipt.watermarks:
            marks = self._watermarks.on_mark(receipt.conversation_id, mark.user_id, mark.delivered_seq, mark.read_seq)
            if marks is None:
                continue
            self._events.append(model.ReceiptEvent(receipt.conversation_id, mark.user_id, *marks))
            if mark.user_id != self.user_id:
                made = self.progress.on_marks(receipt.conversation_id, mark.user_id, *marks)
                self._tell_progress(receipt.conversation_id, made)

    def _on_typing(self, frame: ServerFrame, now: float) -> None:
        typing = frame.typing_indicator
        self._events.append(model.TypingEvent(typing.conversation_id, typing.user_id, typing.typing))

    def _on_presence(self, frame: ServerFrame, now: float) -> None:
        self._on_answer(frame)
        self._events += [model.presence_event(presence) for presence in frame.presence_update.presences]

    def _on_conversation(self, frame: ServerFrame, now: float) -> None:
        changed = frame.conversation_changed
        self._events.append(model.ConversationEvent(changed.conversation, changed.removed))
        if not changed.removed:
            self._describe(changed.conversation)

    def _on_notification(self, frame: ServerFrame, now: float) -> None:
        self._notifications.on_notification(frame.notification)

    def _on_caught_up(self, frame: ServerFrame, now: float) -> None:
        self.caught_up = True
        self.inbox.on_caught_up()

    def _on_token_expiring(self, frame: ServerFrame, now: float) -> None:
        self.token_wanted = True

    def _on_go_away(self, frame: ServerFrame, now: float) -> None:
        self.appointment = Appointment.of(frame.go_away, now)

    def _on_heartbeat(self, frame: ServerFrame, now: float) -> None:
        confirmed = self._confirming.pop(frame.request_id, None)
        if confirmed:
            self._changes.confirmed_reads += self.reads.on_confirmed(confirmed)

    def _on_error(self, frame: ServerFrame, now: float) -> None:
        name = self._fetching.pop(frame.request_id, None)
        if name is not None:
            self.inbox.on_fetch_failed(name, now, retry_seconds(frame.error))
        elif not self._on_answer(frame):
            record = self.outbox.on_refused(frame.request_id, frame.error, now)
            if record is not None:
                self._fail(record, frame.error)

    # ---- what follows

    def learn(self, conversation: Conversation) -> None:
        """A conversation's description came by another way."""
        self._describe(conversation)
        self._settle()

    def _describe(self, conversation: Conversation) -> None:
        self._changes.descriptions.append(conversation)
        self._tell_progress(conversation.conversation_id, self.progress.on_conversation(conversation))

    def _stored(self, client_msg_id: str, entry: LogEntry) -> None:
        self._changes.stored.append(client_msg_id)
        status = Status.SENT
        if entry.WhichOneof("body") == "content":
            status = self.progress.on_sent(entry.conversation_id, entry.seq, client_msg_id)
        self._events.append(StatusEvent(entry.conversation_id, client_msg_id, status, entry.seq))
        self._outcomes.append((client_msg_id, model.message_of(entry)))

    def _fail(self, record: Record, error: error_pb2.Error) -> None:
        self._changes.failed.append((record.client_msg_id, error))
        self._events.append(StatusEvent(record.target, record.client_msg_id, Status.FAILED, error=error.message))
        self._outcomes.append((record.client_msg_id, error))

    def _tell_progress(self, conversation_id: str, made: list[StatusEvent]) -> None:
        self._events += made
        if made:
            self._changes.progress[conversation_id] = self.progress.upto(conversation_id)

    def _settle(self) -> None:
        """Keep what changed, then tell."""
        arrivals = self.inbox.take()
        for entry in arrivals.entries:
            self._on_kept(entry)
        changes, self._changes = self._changes, Changes()
        changes.entries, changes.positions = arrivals.entries, arrivals.positions
        changes.notifications = self._notifications.take()
        if changes:
            self._state.apply(changes)
        self._notifications.on_kept()
        for name, seq in arrivals.positions.items():
            self._resume.on_kept(name, seq)
            self.acknowledgements.add(name, seq)
        self.acknowledgements.count(arrivals.entries)
        self._tell(arrivals.entries, [*arrivals.gaps])

    def _on_kept(self, entry: LogEntry) -> None:
        if entry.HasField("membership"):
            self._tell_progress(entry.conversation_id, self.progress.on_membership(entry))
        elif entry.sender_id == self.user_id:
            if self.outbox.on_stored(entry.client_msg_id) is not None:
                self._stored(entry.client_msg_id, entry)  # the log tells it before, or instead of, the answer
            if entry.HasField("content"):
                self._changes.own[entry.conversation_id] = entry.seq

    def _tell(self, entries: list[LogEntry], gaps: list[Event]) -> None:
        outcomes, self._outcomes = self._outcomes, []
        events, self._events = [*gaps, *self._events], []
        if entries:
            self._on_arrival()
        for client_msg_id, outcome in outcomes:
            self._on_outcome(client_msg_id, outcome)
        for event in events:
            self._on_event(event)


_HANDLERS: dict[str, Callable[[Exchange, ServerFrame, float], None]] = {
    "heartbeat": Exchange._on_heartbeat,
    "message_stored": Exchange._on_message_stored,
    "new_message": Exchange._on_new_message,
    "message_page": Exchange._on_message_page,
    "receipt": Exchange._on_receipt,
    "typing_indicator": Exchange._on_typing,
    "presence_update": Exchange._on_presence,
    "conversation_changed": Exchange._on_conversation,
    "notification": Exchange._on_notification,
    "caught_up": Exchange._on_caught_up,
    "token_expiring": Exchange._on_token_expiring,
    "token_refreshed": lambda exchange, frame, now: _answered(exchange, frame),
    "go_away": Exchange._on_go_away,
    "error": Exchange._on_error,
}


def _answered(exchange: Exchange, frame: ServerFrame) -> None:
    exchange._on_answer(frame)

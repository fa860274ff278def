"""A conversation on a screen: what has been said, how far one's own messages have come, who is typing, who is there.

Sans-IO. The last lines are *live*: they are drawn anew with each change, so a tick becomes two. A line that can't change any more,
or has no room among the live ones, is let go of by `settle` and stays on the screen as it was. This module must not know terminals.
"""

from dataclasses import dataclass, field
from datetime import datetime

from cli.lines import clock, plain, to_text
from tidings_client import ConnectionState, Kind, Message, PresenceEvent, Status

TICKS = {Status.SENDING: "·", Status.SENT: "✓", Status.DELIVERED: "✓✓", Status.READ: "✓✓", Status.FAILED: "✗"}
_SETTLED = {Status.READ, Status.FAILED}
_STATES = {
    ConnectionState.CONNECTING: "not connected, trying; what you type goes out later",
    ConnectionState.CATCHING_UP: "catching up",
    ConnectionState.CAUGHT_UP: "",
    ConnectionState.CLOSED: "closed",
    ConnectionState.REPLACED: "opened elsewhere",
    ConnectionState.REFUSED: "refused",
}


@dataclass(slots=True)
class Line:
    """One line. `key` is the client_msg_id of one's own message, else empty; `status` is None for what isn't one's own; `error`
    says why it failed."""

    who: str
    text: str
    when: str
    key: str = ""
    status: Status | None = None
    error: str = ""

    @property
    def settled(self) -> bool:
        """Whether it will never change."""
        return self.status is None or self.status in _SETTLED

    @property
    def tick(self) -> str:
        """How far it has come."""
        return TICKS[self.status] if self.status is not None else ""


@dataclass(slots=True)
class Talk:
    """One conversation, seen by `me`."""

    me: str
    label: str
    conversation_id: str
    live: list[Line] = field(default_factory=list)
    typing: set[str] = field(default_factory=set)
    presence: dict[str, PresenceEvent] = field(default_factory=dict)
    state: ConnectionState = ConnectionState.CONNECTING
    last_seq: int = 0
    last_own_seq: int = 0

    def on_typed(self, text: str, key: str, now: datetime) -> Line:
        """The user sent something; it is in the outbox."""
        line = Line(self.me, plain(text), clock(now, now), key, Status.SENDING)
        self.live.append(line)
        return line

    def on_message(self, message: Message, now: datetime) -> Line | None:
        """An entry of this conversation came; the new line, or None when it is on the screen already."""
        if message.conversation_id != self.conversation_id or message.seq <= self.last_seq:
            return None
        self.last_seq = message.seq
        self.typing.discard(message.sender_id)
        mine = message.sender_id == self.me and message.kind is Kind.MESSAGE
        if mine:
            self.last_own_seq = message.seq
            if self._find(message.client_msg_id):
                return None
        line = Line(message.sender_id, to_text(message), clock(message.time, now))
        if mine:  # from another device, or from before
            line.key, line.status = message.client_msg_id, message.status or Status.SENT
        self.live.append(line)
        return line

    def on_status(self, key: str, status: Status, seq: int = 0, error: str = "") -> Line | None:
        """One's own message came further; the line when it is still live."""
        line = self._find(key)
        if line is None or line.status is None or status <= line.status:
            return None
        line.status, line.error = status, error
        self.last_own_seq = max(self.last_own_seq, seq)
        return line

    def on_typing(self, user: str, typing: bool) -> bool:
        """Someone started or stopped typing; whether that is new."""
        known = user in self.typing
        (self.typing.add if typing else self.typing.discard)(user)
        return known != typing

    def on_presence(self, event: PresenceEvent) -> bool:
        """Someone came or went; whether that is new."""
        known = self.presence.get(event.user_id)
        self.presence[event.user_id] = event
        if not event.online:
            self.typing.discard(event.user_id)
        return known is None or known.online != event.online

    def settle(self, room: int) -> list[Line]:
        """Let go of the lines at the front that won't change, and of those for which there is no room."""
        count = 0
        while count < len(self.live) and (self.live[count].settled or len(self.live) - count > room):
            count += 1
        gone, self.live[:count] = self.live[:count], []
        return gone

    def waiting(self) -> int:
        """How many of one's messages aren't stored yet."""
        return sum(line.status is Status.SENDING for line in self.live)

    def describe(self, now: datetime) -> str:
        """One line: who is typing, or who is there, and how the connection stands."""
        parts = [self.label, _STATES[self.state] or self._company(now)]
        if waiting := self.waiting():
            parts.append(f"{waiting} not sent yet")
        return " · ".join(part for part in parts if part)

    def _company(self, now: datetime) -> str:
        if self.typing:
            return f"{', '.join(sorted(self.typing))} {'is' if len(self.typing) == 1 else 'are'} typing…"
        if len(self.presence) == 1:
            return presence_text(next(iter(self.presence.values())), now)
        online = sum(event.online for event in self.presence.values())
        return f"{online} of {len(self.presence)} others online" if self.presence else ""

    def _find(self, key: str) -> Line | None:
        return next((line for line in reversed(self.live) if key and line.key == key), None)


def presence_text(event: PresenceEvent, now: datetime) -> str:
    """Someone's presence in words."""
    if event.online:
        return "online"
    return f"last seen {clock(event.last_seen, now)}" if event.last_seen else "offline"

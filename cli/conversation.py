"""One conversation of a connected client, shown by a view: what the client tells goes into the `Talk`, what changed to the view."""

import asyncio
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from cli.lines import notification_line
from cli.talk import Line, Talk
from cli.where import Where
from tidings_client import (
    Client,
    ConnectionEvent,
    ConnectionState,
    Kind,
    Message,
    PresenceEvent,
    StatusEvent,
    TidingsClientError,
    TypingEvent,
)

HISTORY = 20  # messages shown at the start: what fits on a screen
MOST_MISSED = 100  # of those that came while away; `tidings history` has the rest
CATCH_UP_SECONDS = 3.0  # then the conversation opens with what this device knows
MOST_WATCHED = 50  # members of a group whose coming and going is shown
EARLY = 1_000  # messages held until the history is shown; the oldest are in the history anyway
TYPING_SECONDS = 3.0  # how often "is typing" is said again while it is true
IDLE_SECONDS = 5.0  # without a key after which one has stopped typing


class View(Protocol):
    """What shows a conversation."""

    def show(self, line: Line) -> None:
        """A new line."""

    def change(self, line: Line) -> None:
        """A line that was shown has another tick."""

    def notice(self, text: str) -> None:
        """Something passing happened, which `Talk.describe` tells too: who types, who is there, how the connection stands."""

    def tell(self, text: str) -> None:
        """An answer to what the user asked for, or a notification of the business."""


class Conversation:
    """See the module."""

    def __init__(self, client: Client, talk: Talk, target: Where, view: View) -> None:
        self._client = client
        self._talk = talk
        self._target = target
        self._view = view
        self._early: deque[Message] | None = deque(maxlen=EARLY)
        self._missed = 0
        self._typing_said = 0.0
        self._idle: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Show what was said, then what comes. Runs until cancelled, or until the client stops for good."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_messages())
            group.create_task(self._read_events())
            group.create_task(self._read_notifications())
            group.create_task(self._begin())

    def send(self, text: str) -> None:
        """Put a message into the outbox."""
        self.stop_typing()
        outgoing = self._client.send(self._address, text)
        self._view.show(self._talk.on_typed(text, outgoing.client_msg_id, _now()))

    async def edit_last(self, text: str) -> None:
        """Say something else instead of one's last message; withdraw it when `text` is empty."""
        seq = self._talk.last_own_seq
        if not seq:
            self._view.tell("you have said nothing here yet that could be changed")
        elif text:
            await self._client.edit(self._talk.conversation_id, seq, text)
        else:
            await self._client.delete(self._talk.conversation_id, seq)

    def keep_typing(self) -> None:
        """A key was pressed."""
        loop = asyncio.get_running_loop()
        if self._idle is not None:
            self._idle.cancel()
        self._idle = loop.call_later(IDLE_SECONDS, self.stop_typing)
        if time.monotonic() - self._typing_said >= TYPING_SECONDS:
            self._typing_said = time.monotonic()
            self._client.typing(self._talk.conversation_id, True)

    def stop_typing(self) -> None:
        """The line is empty, sent, or left alone."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._typing_said:
            self._typing_said = 0.0
            self._client.typing(self._talk.conversation_id, False)

    @property
    def _address(self) -> str:
        return self._target.other or self._target.conversation_id

    async def _begin(self) -> None:
        with suppress(TimeoutError, TidingsClientError):
            await self._client.caught_up(timeout=CATCH_UP_SECONDS)
        limit = max(HISTORY, min(self._missed, MOST_MISSED))
        history: list[Message] = []
        with suppress(TidingsClientError):  # nothing said yet, or not connected and nothing kept
            history = await self._client.history(self._address, limit=limit)
        early, self._early = self._early or deque(), None
        for message in (*history, *early):
            self._show(message)
        with suppress(TidingsClientError):
            await self._watch()

    async def _watch(self) -> None:
        for presence in await self._client.watch_presence(await self._others()):
            self._on_event(presence)

    async def _others(self) -> list[str]:
        if self._target.other:
            return [self._target.other]
        conversation = await self._client.conversation(self._talk.conversation_id)
        return [member.user_id for member in conversation.members if member.user_id != self._talk.me][:MOST_WATCHED]

    async def _read_messages(self) -> None:
        async for message in self._client.messages():
            if message.conversation_id != self._talk.conversation_id:
                continue
            if self._early is None:
                self._show(message)
            else:
                self._missed += 1
                self._early.append(message)

    def _show(self, message: Message) -> None:
        line = self._talk.on_message(message, _now())
        if line is not None:
            self._view.show(line)
        if message.sender_id != self._talk.me or message.kind is Kind.MEMBERSHIP:
            self._client.mark_read(message.conversation_id, message.seq)

    async def _read_notifications(self) -> None:
        async for shown in self._client.notifications():
            self._view.tell(notification_line(shown, _now()))

    async def _read_events(self) -> None:
        async for event in self._client.events():
            self._on_event(event)

    def _on_event(self, event: object) -> None:
        talk, here = self._talk, getattr(event, "conversation_id", "") == self._talk.conversation_id
        match event:
            case StatusEvent() if here:
                line = talk.on_status(event.client_msg_id, event.status, event.seq, event.error)
                if line is not None:
                    self._view.change(line)
            case TypingEvent() if here and talk.on_typing(event.user_id, event.typing):
                self._view.notice(f"{event.user_id} {'is typing…' if event.typing else 'stopped typing'}")
            case PresenceEvent() if talk.on_presence(event):
                self._view.notice(f"{event.user_id} is {'online' if event.online else 'offline'}")
            case ConnectionEvent():
                self._on_connection(event)

    def _on_connection(self, event: ConnectionEvent) -> None:
        self._talk.state = event.state
        if event.state is not ConnectionState.CATCHING_UP:
            self._view.notice(_CONNECTION.get(event.state) or f"{event.state.value}: {event.reason}".rstrip(": "))


_CONNECTION = {
    ConnectionState.CONNECTING: "not connected; what you type goes out later",
    ConnectionState.CAUGHT_UP: "connected",
}


def _now() -> datetime:
    return datetime.now(UTC)

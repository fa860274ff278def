"""A message on its way, as the application holds it."""

import asyncio
from typing import Protocol

from tidings.common.v1.error_pb2 import Error
from tidings_client.errors import ClientStopped, SendFailed
from tidings_client.model import Message, Status


class KnowsStatus(Protocol):
    """Who can tell how far a stored message has come."""

    def status(self, conversation_id: str, seq: int) -> Status:
        """Of a stored message of ours."""


class Outgoing:
    """One's own message, edit or deletion. Made by `Client.send`; kept in the outbox until the server has it.

    Attributes:
        client_msg_id: names it, before and after it is stored.
        target: the conversation's id, or the other user's while that isn't known.
    """

    def __init__(self, client_msg_id: str, target: str, book: KnowsStatus) -> None:
        self.client_msg_id = client_msg_id
        self.target = target
        self._book = book
        self._message: Message | None = None
        self._error: Error | None = None
        self._stopped: str | None = None
        self._settled = asyncio.Event()

    @property
    def status(self) -> Status:
        """How far it has come."""
        if self._error is not None:
            return Status.FAILED
        if self._message is None:
            return Status.SENDING
        return self._book.status(self._message.conversation_id, self._message.seq)

    @property
    def error(self) -> str:
        """Why it FAILED; empty otherwise."""
        return self._error.message if self._error is not None else ""

    async def stored(self) -> Message:
        """Wait until the server has it; gives the entry with its seq.

        Raises:
            SendFailed: it was refused for good.
            ClientStopped: the client stopped first; what has a state file goes out when it runs again.
        """
        await self._settled.wait()
        if self._error is not None:
            raise SendFailed(self.client_msg_id, self._error)
        if self._message is None:
            raise ClientStopped(self._stopped or "the client was closed before the message was stored")
        return self._message

    def on_outcome(self, outcome: Message | Error) -> None:
        """The server has it, or refused it."""
        if isinstance(outcome, Message):
            self._message = outcome
        else:
            self._error = outcome
        self._settled.set()

    def on_stopped(self, reason: str) -> None:
        """No answer will come from this client, for now."""
        self._stopped = reason
        self._settled.set()

    def on_resumed(self) -> None:
        """The client tries again."""
        if self._message is None and self._error is None:
            self._settled.clear()

"""The application's handles on what it sent, over the outbox and the state that keep it."""

from collections.abc import Callable

from tidings.client.v1.frames_pb2 import ClientFrame
from tidings.common.v1.error_pb2 import Error
from tidings_client import naming
from tidings_client.exchange import Exchange
from tidings_client.model import Message
from tidings_client.outbox import Record
from tidings_client.outgoing import Outgoing
from tidings_client.state import KEPT_FAILED, State


class Sending:
    """Hands messages to the outbox once they are kept, and outcomes to those who wait for them.

    Args:
        wake: called when there is something to send.
    """

    def __init__(self, state: State, exchange: Exchange, wake: Callable[[], None]) -> None:
        self._state = state
        self._exchange = exchange
        self._wake = wake
        self._stopped: str | None = None
        self._unsettled: dict[str, Outgoing] = {}
        self._refused: dict[str, Outgoing] = {}  # until discarded, tried again, or pushed out by newer ones
        for failed in state.failed():
            self._hold(failed.client_msg_id, failed.target)
            self.on_outcome(failed.client_msg_id, failed.error)
        for record in state.outgoing():
            self._hold(record.client_msg_id, record.target)

    def submit(self, name: str, lane: str, frame: ClientFrame) -> Outgoing:
        """Keep a message, then send it as soon as it can go.

        Raises:
            ValueError: the id can't be one, or names another message.
            OutboxFull: too many messages wait.
        """
        if naming.CLIENT_MSG_ID.fullmatch(name) is None:
            raise ValueError(f"client_msg_id {name!r}: 1-64 printable ASCII characters without spaces are allowed")
        known = self._exchange.outbox.get(name)
        if known is not None:
            return self._same(known, frame)
        self._exchange.outbox.check_room()
        number = self._state.insert_outgoing(name, lane, frame)
        self._exchange.outbox.add(Record(number, name, lane, frame))
        outgoing = self._hold(name, lane)
        if self._stopped is not None:
            outgoing.on_stopped(self._stopped)
        self._wake()
        return outgoing

    def all(self) -> list[Outgoing]:
        """What isn't stored yet, and what was refused."""
        return [*self._unsettled.values(), *self._refused.values()]

    def discard(self, name: str) -> None:
        """Give one up."""
        self._state.delete_outgoing(name)
        self._exchange.outbox.discard(name)
        refused = self._refused.pop(name, None)
        outgoing = self._unsettled.pop(name, refused)
        if outgoing is not None:
            outgoing.on_stopped("the message was discarded")

    def on_outcome(self, name: str, outcome: Message | Error) -> None:
        """The server has it, or refused it."""
        outgoing = self._unsettled.pop(name, None)
        if outgoing is None:
            return
        outgoing.on_outcome(outcome)
        if isinstance(outcome, Error):
            self._refused[name] = outgoing
            if len(self._refused) > KEPT_FAILED:
                del self._refused[next(iter(self._refused))]

    def stop(self, reason: str) -> None:
        """No answers will come."""
        self._stopped = reason
        for outgoing in self._unsettled.values():
            outgoing.on_stopped(reason)

    def resume(self) -> None:
        """Answers may come again."""
        self._stopped = None
        for outgoing in self._unsettled.values():
            outgoing.on_resumed()

    def _hold(self, name: str, lane: str) -> Outgoing:
        self._refused.pop(name, None)
        outgoing = self._unsettled[name] = Outgoing(name, lane, self._exchange.progress)
        return outgoing

    def _same(self, known: Record, frame: ClientFrame) -> Outgoing:
        again = ClientFrame()
        again.CopyFrom(frame)
        again.request_id = known.frame.request_id
        if again != known.frame:
            raise ValueError(f"client_msg_id {known.client_msg_id!r} names another message that is on its way: use a new one")
        return self._unsettled[known.client_msg_id]

"""What a session has still to send from the log, and what its client owes for what it was sent. Pure.

Log entries are pulled, never pushed: the sync's pages and the client's own fetches are each asked for one at a time, and only once
what was written before has left. So a slow client holds at most one page beside its outbox.
"""

import math
from collections import deque

from edge.device_sync import DeviceSync
from edge.ports import Expects
from edge.rules import MAX_FETCHES, MAX_RESYNC_SECONDS, RETRY_SECONDS, Rules
from edge.unacknowledged import Unacknowledged
from mesh import errors
from tidings.router.v1 import link_pb2


class CatchUp:
    """One device's log entries on their way.

    Attributes:
        sync: the sync in progress, or None.
        positions, history_limit: what Hello said; forgotten once the first sync is through.
    """

    __slots__ = ("_fetches", "_fetching", "_owed", "_patience", "_rules", "history_limit", "positions", "sync")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._fetches: deque[link_pb2.ClientEnvelope] | None = None
        self._fetching = False
        self._owed: Unacknowledged | None = None
        self._patience = rules.acknowledge
        self.positions: dict[str, int] = {}
        self.history_limit = 0
        self.sync: DeviceSync | None = None

    @property
    def patience(self) -> float:
        """Seconds the client has to acknowledge; it doubles each time it doesn't."""
        return self._patience

    def begin(self, device_id: str) -> None:
        """Read the log from the device's cursors."""
        rules = self._rules
        self.sync = DeviceSync(
            device_id, self.positions, self.history_limit, rules.sync_window, rules.max_held, rules.max_held_bytes
        )

    def end(self) -> None:
        """The sync is through."""
        self.sync = None
        self.positions, self.history_limit = {}, 0

    def fetch(self, envelope: link_pb2.ClientEnvelope) -> None:
        """The client asks for a page of history.

        Raises:
            TidingsError: OVERLOADED.
        """
        self._fetches = self._fetches or deque()
        if len(self._fetches) >= MAX_FETCHES:
            raise errors.overloaded(RETRY_SECONDS, f"this session waits for {MAX_FETCHES} pages, and")
        self._fetches.append(envelope)

    def on_fetched(self) -> None:
        """A page of history came."""
        self._fetching = False

    def next_requests(self) -> list[tuple[Expects, link_pb2.ClientEnvelope]]:
        """What to ask the routers for now that the outbox is empty."""
        found = []
        if self.sync is not None and (request := self.sync.next_request()) is not None:
            found.append((Expects.SYNC_PAGE, link_pb2.ClientEnvelope(sync_device=request)))
        if self._fetches and not self._fetching:
            self._fetching = True
            found.append((Expects.PAGE, self._fetches.popleft()))
        return found

    def sent(self, conversation_id: str, seq: int, now: float) -> None:
        """An entry was written: the client owes an acknowledgement."""
        if self._owed is None:
            self._owed = Unacknowledged()
        self._owed.sent(conversation_id, seq, now)

    def acknowledged(self, conversation_id: str, seq: int, now: float) -> None:
        """The client has everything up to `seq`."""
        if self._owed:
            self._owed.acknowledged(conversation_id, seq, now)
            self._patience = self._rules.acknowledge
        if self.sync is not None:
            self.sync.on_acknowledged(conversation_id, seq)

    def overdue(self, now: float) -> bool:
        """Whether the client has owed something for too long; then its clock starts again, twice as patient."""
        if not self._owed or not self._owed.overdue(now - self._patience):
            return False
        self._owed.restart(now)
        self._patience = min(2 * self._patience, MAX_RESYNC_SECONDS)
        if self.sync is not None:
            self.sync.restart()
        return True

    def check_again(self, now: float) -> float:
        """When to look again; never when nothing is under way."""
        return now + self._patience / 4 if self._owed or self.sync is not None else math.inf

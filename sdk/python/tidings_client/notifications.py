"""Notifications as they come in: which are new, which are acknowledged, and by which clock they expire. Pure but for the state that
says what is kept.

Each is kept once, whatever is repeated, and acknowledged once it is kept and whenever it comes again. One that has expired by the
server's clock is neither. What is kept waits in the state until the application takes it (see `showing`).
"""

import logging
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from tidings.client.v1 import frames_pb2 as pb
from tidings_client.acknowledgements import NotificationAcknowledgements
from tidings_client.model import notification_of
from tidings_client.naming import NOTIFICATION_ID
from tidings_client.state import ReceivedNotification, State

MAX_WAITING = 10_000  # not yet shown; past it new ones are left to the server, which sends them again later
LONGEST_LIFE = 30 * 24 * 3_600_000  # milliseconds, by the contract; for one that names no expiry
CLOCK_OFFSET = "clock_offset"  # its name in the state
_log = logging.getLogger(__name__)


class ServerClock:
    """The server's time of day: ours, put right by what the last Welcome said, over restarts too.

    Args:
        state: where the difference is kept.
        wall: our own time of day, in seconds since 1970.
    """

    def __init__(self, state: State, wall: Callable[[], float]) -> None:
        self._state, self._wall = state, wall
        self._offset = int(state.identity(CLOCK_OFFSET) or 0)

    def on_welcome(self, server_time: Timestamp) -> None:
        """The server's clock shows this now."""
        offset = _milliseconds(server_time) - int(self._wall() * 1000)
        if offset != self._offset:
            self._offset = offset
            self._state.set_identity(CLOCK_OFFSET, str(offset), durable=False)

    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self._wall() * 1000) + self._offset


class NotificationInbox:
    """See the top of this file.

    Args:
        on_arrival: called when the state has new ones to show, or others may be shown because the clock was put right.
    """

    def __init__(self, state: State, clock: ServerClock, on_arrival: Callable[[], None]) -> None:
        self._state, self._clock, self._on_arrival = state, clock, on_arrival
        self._new: dict[str, ReceivedNotification] = {}
        self._waiting: int | None = None  # in the state, as of this batch
        self._full = False
        self.acknowledgements = NotificationAcknowledgements()

    def on_welcome(self, welcome: pb.Welcome) -> None:
        """A connection began."""
        if welcome.HasField("server_time"):
            self._clock.on_welcome(welcome.server_time)
            self._on_arrival()

    def on_notification(self, notification: pb.Notification) -> None:
        """One came, or came again."""
        name, now = notification.notification_id, self._clock.now()
        if fault := _fault(notification):
            _log.warning("a notification was ignored: %s", fault)
            return
        kept = self._state.notification(name)
        expires, shown = kept or (expiry(notification, now), False)
        if now >= expires and not shown:
            _log.debug("notification %s came after its expiry", name)
        elif kept is not None:
            self.acknowledgements.add(name)
        elif name not in self._new and self._has_room(now):
            self._new[name] = ReceivedNotification(notification, now, expires)

    def take(self) -> list[ReceivedNotification]:
        """Those to keep now. When they are, call `on_kept`."""
        return list(self._new.values())

    def on_kept(self) -> None:
        """What `take` gave is durable: now the server may hear of it, and the application get it."""
        arrived, self._new, self._waiting = self._new, {}, None
        for name in arrived:
            self.acknowledgements.add(name)
        if arrived:
            self._on_arrival()

    def on_disconnected(self) -> None:
        """What isn't kept comes again."""
        self._new, self._waiting = {}, None
        self.acknowledgements.reset()

    def _has_room(self, now: int) -> bool:
        if self._waiting is None:
            self._waiting = self._state.waiting_notifications(now)
        full = self._waiting + len(self._new) >= MAX_WAITING
        if full and not self._full:
            _log.warning("%d notifications wait to be shown: more are left to the server until some are taken", MAX_WAITING)
        self._full = full
        return not full


def _fault(notification: pb.Notification) -> str:
    """What is wrong with it; empty when nothing is."""
    if NOTIFICATION_ID.fullmatch(notification.notification_id) is None:
        return f"{notification.notification_id[:64]!r} is no notification's id"
    try:
        notification_of(notification)
    except ValueError as error:
        return f"{notification.notification_id}: {error}"
    return ""


def expiry(notification: pb.Notification, now: int) -> int:
    """From when it is void, in milliseconds as `now`; one that names no time lives as long as any."""
    return _milliseconds(notification.expire_time) if notification.HasField("expire_time") else now + LONGEST_LIFE


def _milliseconds(timestamp: Timestamp) -> int:
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000

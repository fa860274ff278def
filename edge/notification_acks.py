"""Who has which notification, gathered for one router until it has acted on it. Pure."""

from collections import deque
from collections.abc import Mapping

from pyroaring import BitMap

from tidings.router.v1 import link_pb2

MAX_NOTIFICATIONS = 10_000  # a few MB; a notification takes 300 bytes beside its users
MAX_USERS = 1_000_000  # 2-10 bytes each; also keeps what one batch carries far below gRPC's limit


class NotificationAcks:
    """Bitmaps of user ordinals by notification.

    Args:
        max_notifications, max_users: bounds over what waits and what is under way, a user counted for each notification; past them
            acknowledgements are dropped. The router then sends those notifications again, and the devices acknowledge again.
            Strays may take half of the places, so that a client that makes up ids keeps nobody's from coming through.
    """

    def __init__(self, max_notifications: int = MAX_NOTIFICATIONS, max_users: int = MAX_USERS) -> None:
        self._max_notifications = max_notifications
        self._max_users = max_users
        self._waiting: dict[str, BitMap] = {}
        self._kept: deque[tuple[int, dict[str, BitMap]]] = deque()
        self._notifications = 0
        self._users = 0
        self._released = False

    @property
    def due(self) -> bool:
        """Whether something is to go with the next request."""
        return self._released

    def add(self, notification_id: str, users: BitMap, stray: bool) -> int:
        """These users have it; it is a stray when it was not sent here lately. Gives how many acknowledgements found no room."""
        waiting = self._waiting.get(notification_id)
        if waiting is None:
            places = self._max_notifications // 2 if stray else self._max_notifications
            if self._notifications >= places or self._users >= self._max_users:
                return len(users)
            waiting = self._waiting[notification_id] = BitMap()
            self._notifications += 1
        before, room, dropped = len(waiting), self._max_users - self._users, 0
        if len(users) > room:
            new = users - waiting
            users = new[:room]
            dropped = len(new) - len(users)
        waiting |= users
        self._users += len(waiting) - before
        return dropped

    def release(self) -> None:
        """Let what waits go with the next request."""
        self._released = bool(self._waiting)

    def take(self, sequence: int, max_bytes: int) -> list[link_pb2.NotificationAcknowledgement]:
        """About `max_bytes` of what was released; kept until the router has acted on the request of this sequence."""
        if not self._released:
            return []
        taken: dict[str, BitMap] = {}
        found: list[link_pb2.NotificationAcknowledgement] = []
        while self._waiting and max_bytes > 0:
            notification_id = next(iter(self._waiting))
            users = taken[notification_id] = self._waiting.pop(notification_id)
            found.append(link_pb2.NotificationAcknowledgement(notification_id=notification_id, user_ordinals=users.serialize()))
            max_bytes -= found[-1].ByteSize()
        self._kept.append((sequence, taken))
        self._released = bool(self._waiting)
        return found

    def on_processed(self, sequence: int) -> None:
        """The router has acted on our requests up to this one."""
        while self._kept and self._kept[0][0] <= sequence:
            taken = self._kept.popleft()[1]
            self._notifications -= len(taken)
            self._users -= sum(map(len, taken.values()))

    def abandon(self) -> Mapping[str, BitMap]:
        """Give up what the router may not have acted on, and forget it here."""
        together: dict[str, BitMap] = {}
        for taken in [*(taken for _, taken in self._kept), self._waiting]:
            for notification_id, users in taken.items():
                together[notification_id] = together.get(notification_id, BitMap()) | users
        self._kept.clear()
        self._waiting = {}
        self._notifications = self._users = 0
        self._released = False
        return together

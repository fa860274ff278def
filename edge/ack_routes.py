"""Which router is told who has a notification: the one that sent it here last, else the one that owns its id. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from pyroaring import BitMap

from edge.notification_acks import NotificationAcks
from mesh import naming

MAX_SENDERS = 10_000  # notifications whose sender is remembered, the latest; of others the owner is told, which serves as well


class AckLink(Protocol):
    """A link, as far as it carries acknowledgements."""

    def acknowledge(self, notification_id: str, users: BitMap, stray: bool) -> int:
        """Tell the router that these users have it; see NotificationAcks.add."""


class AckRoutes:
    """Acknowledgements on their way to routers; kept here, within the bounds of NotificationAcks, while no router is there.

    Args:
        links: those that take what is new, by router id; the dict is watched.
        dropped: told how many acknowledgements found no room.
    """

    def __init__(self, links: Mapping[str, AckLink], dropped: Callable[[int], None]) -> None:
        self._links = links
        self._dropped = dropped
        self._senders: dict[str, str] = {}
        self._homeless = NotificationAcks()

    def sent_by(self, notification_id: str, router_id: str) -> None:
        """A router sent a notification."""
        self._senders.pop(notification_id, None)
        self._senders[notification_id] = router_id
        if len(self._senders) > MAX_SENDERS:
            del self._senders[next(iter(self._senders))]

    def acknowledge(self, notification_ids: Iterable[str], user_ordinal: int) -> None:
        """A device of the user has these."""
        user = BitMap((user_ordinal,))
        for notification_id in notification_ids:
            self._put(notification_id, user)

    def on_lost(self, unheard: Mapping[str, BitMap]) -> None:
        """A link is gone: what its router may not have acted on goes to others. The links are up to date."""
        for notification_id, users in unheard.items():
            self._put(notification_id, users)

    def on_live(self) -> None:
        """A router is there: it is told what was kept."""
        self.on_lost(self._homeless.abandon())

    def _put(self, notification_id: str, users: BitMap) -> None:
        sender = self._senders.get(notification_id)
        router = sender if sender in self._links else naming.owner(notification_id, self._links)
        add = self._homeless.add if router is None else self._links[router].acknowledge
        if dropped := add(notification_id, users, sender is None):
            self._dropped(dropped)

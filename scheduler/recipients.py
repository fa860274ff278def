"""Who has one outcome, by id, page by page in the order of their ordinals."""

import base64
import binascii
import itertools
from dataclasses import dataclass, replace

from mesh import errors
from scheduler.ports import NotificationStore, Users
from tidings.common.v1.notification_pb2 import Outcome

_SEPARATOR = "/"
_HIGHEST_ORDINAL = 2**32 - 1  # of a bitmap; after it comes none


@dataclass(frozen=True, slots=True)
class Page:
    """Some of them, and the token of the next page; empty on the last."""

    user_ids: list[str]
    next_token: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a listing goes on: after this ordinal."""

    notification_id: str
    outcome: int
    after: int

    def __str__(self) -> str:
        text = _SEPARATOR.join((self.notification_id, str(self.outcome), str(self.after)))
        return base64.urlsafe_b64encode(text.encode()).decode()

    def moved_by(self, token: str) -> "Place":
        """The same listing where a token says.

        Raises:
            TidingsError: INVALID_FIELD when the token isn't of this listing.
        """
        try:
            notification_id, outcome, after = base64.urlsafe_b64decode(token).decode().split(_SEPARATOR)
            place = Place(notification_id, int(outcome), int(after))
        except (ValueError, binascii.Error):
            place = None
        if place is None or place != replace(self, after=place.after) or not 0 <= place.after < _HIGHEST_ORDINAL:
            raise errors.invalid_field("page_token", "the token of the last page of this listing, as it was given")
        return place


class Recipients:
    """Lists recipients."""

    def __init__(self, store: NotificationStore, users: Users) -> None:
        self._store = store
        self._users = users

    async def page(self, notification_id: str, outcome: Outcome.ValueType, size: int, token: str) -> Page:
        """A page of those with this outcome now.

        Raises:
            TidingsError: NOTIFICATION_NOT_FOUND; REPORT_GONE; INVALID_FIELD for the token.
        """
        start = Place(notification_id, outcome, 0)
        place = start.moved_by(token) if token else start
        ordinals = await self._ordinals(place, outcome, size + 1)
        page = ordinals[:size]
        more = len(ordinals) > size
        next_token = str(Place(notification_id, outcome, page[-1])) if more else ""
        return Page(list(await self._users.ids(page)), next_token)

    async def _ordinals(self, place: Place, outcome: Outcome.ValueType, count: int) -> list[int]:
        """The first so many after a place."""
        found: list[int] = []
        chunks = self._store.recipients(place.notification_id, outcome)
        async for chunk in chunks:
            found.extend(itertools.islice(chunk.iter_equal_or_larger(place.after + 1), count - len(found)))
            if len(found) == count:
                break
        return found

"""Making the next occurrence of a series, in time: before the one before it is sent, paused or cancelled."""

from collections.abc import Callable

from pyroaring import BitMap

from mesh import errors
from mesh.errors import TidingsError
from scheduler.ports import NotificationStore
from scheduler.recurrence import Calendar
from scheduler.succession import successor
from tidings.common.v1 import error_pb2
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as store

_ATTEMPTS = 5  # an occurrence claimed, paused or cancelled at the same moment is looked at again


class Series:
    """Makes next occurrences, each once, whoever makes it and however often.

    Args:
        clock: microseconds since 1970.
    """

    def __init__(self, store: NotificationStore, calendar: Calendar, clock: Callable[[], int]) -> None:
        self._store = store
        self._calendar = calendar
        self._clock = clock

    async def follow_claimed(self, claimed: store.StoredNotification) -> bool:
        """Make the occurrence after one that was just claimed.

        Returns:
            Whether the claim still holds: else it was cancelled, paused or claimed again meanwhile.
        """
        current = await self._read(claimed.notification_id)
        return current is not None and current.fence == claimed.fence and await self._follow(current)

    async def go_on(self, notification_id: str) -> None:
        """Make the occurrence after this one, as it may not be claimed any more. Does nothing for what is over or doesn't recur.

        Raises:
            TidingsError: UNAVAILABLE when somebody else changes it all the time.
        """
        for _ in range(_ATTEMPTS):
            current = await self._read(notification_id)
            if current is None or not current.occurrence or current.report.state >= common.NOTIFICATION_STATE_COMPLETED:
                return
            if await self._follow(current):
                return
        raise errors.unavailable(f"{notification_id} is being changed by others; send it again")

    async def _follow(self, current: store.StoredNotification) -> bool:
        """Make the next one if there is to be one; False when something happened to this one since it was read."""
        request = successor(current, self._clock(), self._calendar)
        if request is None:
            return True
        if current.spec.expand_at == common.EXPAND_AT_UPLOAD:
            request.expansion.CopyFrom(await self._expansion(current))
        try:
            await self._store.create(request)
        except TidingsError as error:
            if error.code != error_pb2.ERROR_CODE_FENCED:
                raise
            return False
        return True

    async def _read(self, notification_id: str) -> store.StoredNotification | None:
        found = (await self._store.get(store.GetNotificationsRequest(notification_ids=[notification_id]))).notifications
        return found[0] if found else None

    async def _expansion(self, current: store.StoredNotification) -> store.Expansion:
        """Whom the series was settled for at upload."""
        members = BitMap()
        async for chunk in self._store.recipients(current.notification_id, common.OUTCOME_EXPANSION):
            members |= chunk
        members.run_optimize()
        data = members.serialize() if members else b""
        return store.Expansion(user_ordinals=data, snapshot_version=current.report.snapshot_version)

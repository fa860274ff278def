"""Runs of notifications that can't go on at this router, for a reason nobody foresaw: told to the store, which has them tried again
for a while and then puts them aside as dead letters."""

import structlog

from mesh import batching, errors, patience
from router.dead_letters import told
from router.ports import NotificationStore
from tidings.store.v1.notification_pb2 import Claim, FailedRun, ReleaseNotificationsRequest

_BATCH = 100  # in one call
_WITHIN_SECONDS = 10.0  # by then the lease has run out anyway
_log = structlog.get_logger(__name__)


class FailedRuns:
    """See above.

    Args:
        capacity: failures waiting to be told. When full, further ones aren't: their leases run out, and they are claimed again.
    """

    def __init__(self, store: NotificationStore, capacity: int) -> None:
        self._store = store
        self._queue: batching.Batcher[FailedRun] = batching.Batcher(capacity, _BATCH)

    def add(self, notification_id: str, fence: int, error: Exception) -> None:
        """This one can't go on."""
        reason, detail = told(error)
        claim = Claim(notification_id=notification_id, fence=fence)
        self._queue.offer(FailedRun(claim=claim, reason=reason, detail=detail))

    async def tell(self) -> None:
        """Tell the store until cancelled."""
        await patience.drain(self._queue, self._tell)

    async def _tell(self, batch: list[FailedRun]) -> None:
        request = ReleaseNotificationsRequest(failed_runs=batch)
        try:
            await patience.until_done(lambda: self._store.release_notifications(request), _WITHIN_SECONDS)
        except errors.TidingsError as error:
            _log.warning("failed runs not told; their leases run out", count=len(batch), reason=error.reason, error=error.message)

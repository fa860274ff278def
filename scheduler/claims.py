"""The store as one who claims notifications sees it."""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from mesh.errors import TidingsError
from scheduler.ports import NotificationStore
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as store

_NANOSECONDS = 1_000_000_000  # in a second


class Claims:
    """Takes, gives up, ends.

    Args:
        claimer_id: this scheduler's instance id, for the store's logs.
        lease: how long a claim lasts unless its router renews it, in seconds.
        ahead: seconds before its time that a notification is taken, for its router to wait with it; less than the lease.
    """

    def __init__(self, store: NotificationStore, claimer_id: str, lease: float, ahead: float) -> None:
        self._store = store
        self._claimer_id = claimer_id
        self._lease, self._ahead = _duration(lease), _duration(ahead)

    async def take(self, limit: int) -> store.ClaimNotificationsResponse:
        """What is due, or soon will be, and has no owner, in the order in which it is to begin; at most so many."""
        request = store.ClaimNotificationsRequest(claimer_id=self._claimer_id, limit=limit, lease=self._lease, ahead=self._ahead)
        return await self._store.claim(request)

    async def release(self, claims: Sequence[store.Claim]) -> None:
        """Give these up; what isn't over is due again."""
        await self._store.release(store.ReleaseNotificationsRequest(claims=claims))

    async def fail(self, claim: store.Claim, error: Exception) -> None:
        """Give one up that can't be worked on for a reason nobody foresaw; it is due again after a while, or put aside."""
        failed = store.FailedRun(claim=claim, reason="INTERNAL", detail=f"an unforeseen fault: {error!r}")
        if isinstance(error, TidingsError):
            failed.reason, failed.detail = error.reason, error.message
        await self._store.release(store.ReleaseNotificationsRequest(failed_runs=[failed]))

    async def expire(self, claimed: store.StoredNotification) -> None:
        """End one whose time is over."""
        state = common.NOTIFICATION_STATE_COMPLETED if claimed.report.sent else common.NOTIFICATION_STATE_EXPIRED
        progress = store.Progress(claim=claim_of(claimed), finish_state=state)
        await self._store.save_progress(store.SaveProgressRequest(progress=[progress], lease=self._lease))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * _NANOSECONDS))
    return duration


def claim_of(notification: store.StoredNotification) -> store.Claim:
    """A notification and the fence under which it was seen."""
    return store.Claim(notification_id=notification.notification_id, fence=notification.fence)

"""A notification as a value, and what can happen to it: each method gives the notification after. Pure; times are passed in.

Which states allow what is in `store.notification_life`. Times are microseconds since 1970.
"""

from dataclasses import dataclass, replace

from store.notification_life import Action, State, after
from store.recipient_blocks import Counts

GRACE = 5_000_000  # an owner may go on so long past the expiry, to write what it did: then it is ended without it
RETRY = 1_000_000  # microseconds before it is due again after its owner failed; twice as long after each further failure


class ActionRefusedError(Exception):
    """Its state doesn't allow this."""


@dataclass(frozen=True, slots=True)
class Notification:
    """All of a notification that changes, or that it is found by.

    Attributes:
        expire_at: from then on nobody is sent it.
        type: never empty.
        series_id: empty when it doesn't recur.
        request_digest: tells a repeated upload from another one under the same request_id.
        lease_owner: who claimed it, for logs; None without an owner.
        lease_until: up to then it has an owner; a time in the past without one.
        counts: totals of its bitmaps.
        reason: why it FAILED, or why it is held back.
        started_at: when the first recipient was sent it.
        status_report: the contract's number.
        estimated_audience: how many its audience had at upload.
        failures: how often its owners failed since anybody was last sent it.
        recipients_kept: whether its bitmaps are there; its totals always are.
        settled: whether it is known whom it is for, were it nobody.
        awaits_next: whether the next occurrence of its series may yet be made.
    """

    notification_id: str
    state: State
    priority: int
    send_at: int
    expire_at: int
    type: str
    series_id: str
    occurrence: int
    request_id: str
    request_digest: bytes
    created_at: int
    fence: int
    lease_owner: str | None
    lease_until: int
    snapshot_version: int
    counts: Counts
    reason: str
    started_at: int | None
    finished_at: int | None
    status_report: int
    estimated_audience: int
    failures: int
    recipients_kept: bool
    settled: bool
    awaits_next: bool

    @property
    def names_matter(self) -> bool:
        """Whether it uses what it names: while it isn't over, and till the next occurrence has taken its names from it."""
        return not self.state.over or self.awaits_next

    @property
    def awaited(self) -> bool:
        """Whether somebody may still get it, or it isn't known who might."""
        return not self.settled or self.counts.delivered + self.counts.failed < self.counts.expansion

    @property
    def held_back(self) -> bool:
        """Whether it is paused because its owners failed, not because a business wants it."""
        return self.state is State.PAUSED and bool(self.reason)

    def claimed(self, claimer_id: str, until: int) -> "Notification":
        """Given to an owner under a new fence. What is paused goes only when it has expired, and only to make the next one."""
        if self.state is State.PAUSED:
            return self.resumed(until).claimed(claimer_id, until)
        action = Action.CLAIM_EXPANDED if self.counts.expansion else Action.CLAIM
        return replace(self, state=self._after(action), fence=self.fence + 1, lease_owner=claimer_id, lease_until=until)

    def renewed(self, until: int) -> "Notification":
        """With a lease to then."""
        return replace(self, lease_until=until)

    def released(self, now: int) -> "Notification":
        """Without an owner, and due."""
        return replace(self, lease_owner=None, lease_until=now)

    def expanded(self, number: int, snapshot_version: int, now: int) -> "Notification":
        """Its audience is settled: so many."""
        settled = replace(self, snapshot_version=snapshot_version, settled=True)
        if number:
            return replace(settled, state=self._after(Action.EXPAND), counts=Counts(expansion=number))
        if self.awaits_next and self.state is State.SCHEDULED:
            return replace(settled, state=self._after(Action.EXPAND_TO_NOBODY_YET))
        return settled._over(Action.EXPAND_TO_NOBODY, now)

    def progressed(self, more: Counts, now: int) -> "Notification":
        """Its parts have grown; that may end it. Late acknowledgements come here too, when it is over."""
        counts = self.counts.plus(more)
        started_at = now if counts.sent and self.started_at is None else self.started_at
        failures = 0 if more.sent else self.failures
        grown = replace(self, counts=counts, started_at=started_at, failures=failures)
        settled = counts.delivered + counts.failed == counts.expansion > 0
        return grown._over(Action.SETTLE, now) if settled and not self.state.over else grown

    def expired(self, now: int) -> "Notification":
        """Over because of its time."""
        return self._over(Action.EXPIRE_SENT if self.counts.sent else Action.EXPIRE_UNSENT, now)

    def failed(self, reason: str, now: int) -> "Notification":
        """Over because it can't be sent."""
        return replace(self._over(Action.FAIL, now), reason=reason)

    def failed_run(self, reason: str, most: int, now: int) -> "Notification":
        """Its owner failed: due again after a while; held back after every `most` failures, or over for good when it has expired
        by then. No next occurrence is made of what is over so."""
        tried = replace(self, failures=self.failures + 1)
        turn = tried.failures % most
        if turn:
            return tried.released(now + RETRY * 2 ** (turn - 1))
        if self.expire_at <= now:
            return replace(tried, awaits_next=False).failed(reason, now)
        return replace(tried.paused(), reason=reason)

    def given_up(self, now: int) -> "Notification":
        """What was held back has failed for good."""
        return replace(self, awaits_next=False).failed(self.reason, now)

    def cancelled(self, now: int) -> "Notification":
        """Over because somebody said so."""
        return replace(self, fence=self.fence + 1)._over(Action.CANCEL, now)

    def paused(self) -> "Notification":
        """Nobody is sent it: its owner is out. What is paused already stays as it is, but is not only held back any more."""
        state = self._after(Action.PAUSE)
        if self.state is State.PAUSED:
            return replace(self, reason="")
        return replace(self, state=state, fence=self.fence + 1, lease_owner=None, lease_until=0)

    def resumed(self, now: int) -> "Notification":
        """Let go on: what was being sent is due now, the rest when its send time has passed."""
        state = self._after(Action.RESUME_SENT if self.counts.sent else Action.RESUME_UNSENT)
        return replace(self, state=state, lease_until=now, reason="")

    def prioritized(self, priority: int) -> "Notification":
        """With another priority."""
        return replace(self, state=self._after(Action.PRIORITIZE), priority=priority)

    def early(self, now: int) -> bool:
        """Whether nobody may be sent it yet. What has begun has begun, whatever becomes of the clock."""
        return now < self.send_at and not self.counts.sent

    def rescheduled(self, send_at: int, expire_at: int | None, now: int) -> "Notification":
        """At another time; without an expiry that moves along. Who was waiting for its time is out."""
        if self.counts.sent or (self.state.running and not self.early(now)):
            raise ActionRefusedError
        moved = self.expire_at + send_at - self.send_at if expire_at is None else expire_at
        free = replace(self, fence=self.fence + 1, lease_owner=None, lease_until=0) if self.state.running else self
        return replace(free, state=self._after(Action.RESCHEDULE), send_at=send_at, expire_at=moved)

    def succeeded(self) -> "Notification":
        """The next occurrence of its series is made."""
        return replace(self, awaits_next=False)

    def _over(self, action: Action, now: int) -> "Notification":
        return replace(self, state=self._after(action), lease_owner=None, lease_until=0, finished_at=now, reason="")

    def _after(self, action: Action) -> State:
        state = after(self.state, action)
        if state is None:
            raise ActionRefusedError(f"{self.notification_id} can't be {action.value} while {self.state.name}")
        return state

"""Notifications as simply as can be: sets of ordinals, a clock that is passed in, a list for a database.

What the store answers must be what this answers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

GRACE = 5
OVER = ("COMPLETED", "CANCELLED", "EXPIRED", "FAILED")
REMAINDER = {"COMPLETED": "expired", "EXPIRED": "expired", "CANCELLED": "cancelled", "FAILED": "failed"}


class RefusedError(Exception):
    """The reason of an error."""


@dataclass
class SimpleNotification:
    """One of them; times in seconds."""

    name: str
    priority: int
    send_at: int
    expire_at: int
    series: str = ""
    awaits_next: bool = False
    settled: bool = False
    state: str = "SCHEDULED"
    fence: int = 0
    lease_until: int = 0
    expansion: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)
    delivered: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        """Whether it is."""
        return self.state in OVER

    @property
    def running(self) -> bool:
        """Whether it has an owner, or waits for the next one."""
        return self.state in ("EXPANDING", "SENDING")

    def parts(self) -> dict[str, set[int]]:
        """Everybody it is for, by what became of it."""
        parts = {part: set[int]() for part in ("pending", "expired", "cancelled")}
        parts |= {"delivered": set(self.delivered), "failed": set(self.failed)}
        parts[REMAINDER.get(self.state, "pending")] |= self.expansion - self.delivered - self.failed
        return parts

    def expand(self, audience: Iterable[int]) -> None:
        """Settle whom it is for."""
        self.expansion = set() if self.settled else set(audience)
        self.settled = True
        if self.expansion:
            self.state = "SENDING" if self.state == "EXPANDING" else self.state
        elif self.state == "EXPANDING" or not self.awaits_next:
            self.state = "COMPLETED"

    def settle(self) -> None:
        """Over once nobody is left."""
        if not self.over and self.expansion and self.expansion == self.delivered | self.failed:
            self.state = "COMPLETED"

    def expire(self) -> None:
        """Over because of its time."""
        self.state = "COMPLETED" if self.sent else "EXPIRED"

    def early(self, now: int) -> bool:
        """Whether nobody may be sent it yet."""
        return now < self.send_at and not self.sent

    def soon(self, now: int, ahead: int) -> bool:
        """Whether it may be claimed ahead of its time."""
        return self.state == "SCHEDULED" and now < self.send_at <= now + ahead and (self.expire_at > now or self.awaits_next)

    def due(self, now: int) -> bool:
        """Whether it may be claimed."""
        if self.expire_at <= now and not self.awaits_next:
            return False
        if self.state == "PAUSED":
            return self.expire_at <= now
        return (self.running and self.lease_until <= now) or (self.state == "SCHEDULED" and self.send_at <= now)

    def waits_for(self, ahead: int) -> list[int]:
        """When something happens to it by itself."""
        grace = GRACE if self.running else 0
        ends = [self.expire_at + grace] if not self.awaits_next or self.state == "PAUSED" else []
        begins = {"SCHEDULED": [self.send_at - ahead], "EXPANDING": [self.lease_until], "SENDING": [self.lease_until]}
        return [] if self.over else ends + begins.get(self.state, [])


@dataclass
class SimpleNotifications:
    """All of them."""

    all: dict[str, SimpleNotification] = field(default_factory=dict)

    def claim(self, now: int, limit: int, lease: int, ahead: int = 0) -> list[str]:
        """Who is given away."""
        for one in self.all.values():
            late = one.lease_until <= now or one.expire_at + GRACE <= now
            if not one.over and one.expire_at <= now and not one.awaits_next and late:
                one.expire()
        ranked = sorted(self.all.values(), key=lambda one: (-one.priority, one.send_at, one.name))
        due = [one for one in ranked if one.due(now)] + [one for one in ranked if one.soon(now, ahead)]
        for one in due[:limit]:
            one.state = "SENDING" if one.expansion else "EXPANDING"
            one.fence += 1
            one.lease_until = now + lease
        return [one.name for one in due[:limit]]

    def next_due(self, ahead: int = 0) -> int | None:
        """When the next claim has something to do."""
        return min((time for one in self.all.values() for time in one.waits_for(ahead)), default=None)

    def expand(self, name: str, fence: int, audience: Iterable[int], sent: set[int], now: int, lease: int) -> bool:
        """An owner settles whom it is for, and who is sent it first; gives whether that was taken."""
        one = self.all[name]
        if one.fence != fence or one.state in ("SCHEDULED", "PAUSED"):
            raise RefusedError("FENCED")
        taken = set[int]()
        if one.state == "EXPANDING":
            one.expand(audience)
            taken = sent & one.expansion if not one.early(now) and now < one.expire_at else taken
            one.sent |= taken
        if one.running:
            one.lease_until = now + lease
        return bool(taken)

    def progress(self, name: str, fence: int, sent: set[int], failed: set[int], finish: str, now: int, lease: int) -> bool:
        """What an owner did; gives whether it was fenced."""
        one = self.all[name]
        if one.fence != fence or not one.running:
            return True
        if sent and one.expire_at <= now:
            if not one.awaits_next:
                one.expire()
            return True
        one.lease_until = now + lease
        if sent and one.early(now):
            return False
        one.sent |= sent & one.expansion
        one.failed |= failed & one.expansion - one.delivered
        one.settle()
        if finish and not one.over:
            if finish == "FAILED":
                one.state = "FAILED"
            elif one.expire_at - 1 <= now or (one.settled and not one.parts()["pending"]):
                one.expire()  # an owner's clock may be a second ahead
        return False

    def deliver(self, name: str, ordinals: set[int]) -> None:
        """What recipients said."""
        one = self.all[name]
        one.delivered |= ordinals & one.sent
        one.failed -= one.delivered
        one.settle()

    def release(self, name: str, fence: int, now: int) -> None:
        """An owner gives up."""
        one = self.all[name]
        if one.fence == fence and one.running:
            one.lease_until = now

    def control(self, name: str, action: str, now: int, argument: int) -> None:
        """What a business changes."""
        one = self.all[name]
        if action == "cancel_series" and one.series:
            self._cancel_series(one.series)
            return
        if one.over or one.expire_at <= now:
            raise RefusedError("NOTIFICATION_STATE_CONFLICT")
        getattr(self, f"_{action.removesuffix('_series')}")(one, argument, now)

    def make_next(self, name: str, fence: int, following: SimpleNotification) -> None:
        """The next occurrence of a series."""
        one = self.all[name]
        if one.fence != fence or not one.awaits_next:
            raise RefusedError("FENCED")
        one.awaits_next = False
        self.all[following.name] = following

    def _cancel(self, one: SimpleNotification, argument: int, now: int) -> None:
        one.state = "CANCELLED"
        one.fence += 1

    def _cancel_series(self, series: str) -> None:
        concerned = [one for one in self.all.values() if one.series == series and (one.awaits_next or not one.over)]
        if not concerned:
            raise RefusedError("NOTIFICATION_STATE_CONFLICT")
        for one in concerned:
            one.state = one.state if one.over else "CANCELLED"
            one.fence += 1
            one.awaits_next = False

    def _pause(self, one: SimpleNotification, argument: int, now: int) -> None:
        if one.state != "PAUSED":
            one.state = "PAUSED"
            one.fence += 1
            one.lease_until = 0

    def _resume(self, one: SimpleNotification, argument: int, now: int) -> None:
        if one.state != "PAUSED":
            raise RefusedError("NOTIFICATION_STATE_CONFLICT")
        one.state = "SENDING" if one.sent else "SCHEDULED"
        one.lease_until = now

    def _prioritize(self, one: SimpleNotification, argument: int, now: int) -> None:
        one.priority = argument % 10

    def _reschedule(self, one: SimpleNotification, argument: int, now: int) -> None:
        if one.over or one.sent or (one.running and not one.early(now)):
            raise RefusedError("NOTIFICATION_STATE_CONFLICT")
        if one.expire_at - one.send_at + argument <= 0:
            raise RefusedError("INVALID_FIELD")
        if one.running:
            one.state = "SCHEDULED"
            one.fence += 1
        one.expire_at += now + argument - one.send_at
        one.send_at = now + argument

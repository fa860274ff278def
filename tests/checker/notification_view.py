"""A history of notifications, arranged for the checks.

Whom a notification is for is worked out anew: from what was mapped, up to the snapshot that its report names, by sets. Where a
mapping was never answered its effect is unsure, and so is every audience: then it is not judged.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

from tests.checker.audience import members
from tests.checker.history import (
    Closed,
    Controlled,
    Disturbed,
    History,
    Kept,
    Mapped,
    Opened,
    Recipients,
    Reported,
    Settled,
    Shown,
    Uploaded,
)

OVER = {"COMPLETED", "CANCELLED", "EXPIRED", "FAILED"}


class NotificationView:
    """Everything the checks ask of a history; computed once, when first asked for."""

    def __init__(self, history: History) -> None:
        self.shown = [one for one in history if isinstance(one, Shown)]
        self.uploads = {one.notification: one for one in history if isinstance(one, Uploaded) and one.notification}
        self.controls = [one for one in history if isinstance(one, Controlled)]
        self.mapped = [one for one in history if isinstance(one, Mapped)]
        self.devices = {one.client: one.user for one in history if isinstance(one, Opened)}
        self.gone = {one.client for one in history if isinstance(one, Closed)}
        self.disturbances = [one for one in history if isinstance(one, Disturbed)]
        self.settled = next((one for one in history if isinstance(one, Settled)), None)
        self._history = history

    @cached_property
    def readings(self) -> dict[str, list[Reported]]:
        """The reports of each notification, in the order in which they were asked for by one reader."""
        found: dict[str, list[Reported]] = defaultdict(list)
        for one in self._history:
            if isinstance(one, Reported):
                found[one.notification].append(one)
        return found

    @cached_property
    def read_back(self) -> dict[tuple[str, str], set[str]]:
        """(notification, outcome) -> users, as read at the end."""
        return {(one.notification, one.outcome): set(one.users) for one in self._history if isinstance(one, Recipients)}

    @cached_property
    def users_shown(self) -> dict[str, set[str]]:
        """Notification -> users of whom some device showed it."""
        found: dict[str, set[str]] = defaultdict(set)
        for one in self.shown:
            found[one.notification].add(one.user)
        return found

    @cached_property
    def users_kept(self) -> dict[str, set[str]]:
        """Notification -> users of whom some device has it, or showed it."""
        found: dict[str, set[str]] = defaultdict(set)
        for one in self._history:
            if isinstance(one, Shown | Kept):
                found[one.notification].add(one.user)
        return found

    @cached_property
    def last_shown(self) -> dict[tuple[str, str], float]:
        """(notification, user) -> when it was shown last."""
        return {(one.notification, one.user): one.time for one in self.shown}

    def last(self, notification: str) -> Reported | None:
        """The last reading."""
        readings = self.readings.get(notification, [])
        return readings[-1] if readings else None

    def audience(self, notification: str) -> set[str] | None:
        """Whom it is for: nobody as long as it isn't expanded; None when that is not sure."""
        upload, last = self.uploads[notification], self.last(notification)
        if last is None:
            return None
        if not last.expansion and last.state != "COMPLETED":  # one for nobody is over as soon as it is expanded
            return set()
        found = set(upload.recipients)
        if upload.tree is not None:
            tags = self._tags_at(last.snapshot) if last.snapshot else None
            if tags is None:
                return None
            found |= members(upload.tree, tags, self._everybody)
        return found - set(upload.excluded)

    def reachable(self) -> Iterator[tuple[str, list[str]]]:
        """Users with devices that were there at the end, and these."""
        found: dict[str, list[str]] = defaultdict(list)
        for client, user in self.devices.items():
            if client not in self.gone:
                found[user].append(client)
        yield from found.items()

    @cached_property
    def _everybody(self) -> set[str]:
        """All users of the run: every one of them was given a tag first."""
        return {user for one in self.mapped for user in one.added}

    def _tags_at(self, version: int) -> dict[str, set[str]] | None:
        if any(not one.version or one.earliest <= version < one.version for one in self.mapped):
            return None
        tags: dict[str, set[str]] = defaultdict(set)
        for one in sorted(self.mapped, key=lambda one: one.version):
            if one.version <= version:
                tags[one.tag] = (tags[one.tag] - set(one.removed)) | set(one.added)
        return tags

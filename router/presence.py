"""Presence: who watches whom, and when a change is told: the core.

Rules: several devices count once, for the changes come from the roster. Leaving is told only after a grace, so that a reconnect
does not flicker; coming back within it is told to nobody. A session's watches end with it.
It must not know links beyond a key, frames, or stores; time is passed in, in unix seconds.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from pyroaring import BitMap

GROUP_SECONDS = 0.1  # leavings within this time share one bitmap, so that coming back touches few of them
K = TypeVar("K", bound=Hashable)


class Change(NamedTuple, Generic[K]):
    """A watched user's presence changed.

    Attributes:
        left: unix seconds at which they left; None when they are online.
        watchers: (link, session, user ordinal) of who watches.
    """

    user_id: str
    left: float | None
    watchers: list[tuple[K, int, int]]


class Departure(NamedTuple):
    """Users who left and did not come back within the grace."""

    ordinals: BitMap
    left: float


class TooManyWatchedError(Exception):
    """A session would watch more users than it may; nothing was changed."""


class _Watcher:
    __slots__ = ("ordinal", "watched")

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self.watched: set[int] = set()


class PresenceBoard(Generic[K]):
    """Watches and pending departures.

    Args:
        limit: users one session may watch.
        grace: seconds between leaving and being told offline.
    """

    def __init__(self, limit: int, grace: float) -> None:
        self._limit = limit
        self._grace = grace
        self._watchers: dict[tuple[K, int], _Watcher] = {}
        self._by_user: dict[int, set[tuple[K, int]]] = {}
        self._names: dict[int, str] = {}
        self._leaving: deque[tuple[float, BitMap]] = deque()

    def __len__(self) -> int:
        """How many sessions watch somebody."""
        return len(self._watchers)

    def watch(self, link: K, session: int, watcher: int, users: Mapping[int, str]) -> None:
        """Add users, ordinal -> id, to those a session watches.

        Raises:
            TooManyWatchedError: they would be more than allowed.
        """
        known = self._watchers.get((link, session))
        watched = known.watched if known else set()
        if len(watched | users.keys()) > self._limit:
            raise TooManyWatchedError
        entry = self._watchers.setdefault((link, session), known or _Watcher(watcher))
        entry.watched.update(users)
        for ordinal, user_id in users.items():
            self._by_user.setdefault(ordinal, set()).add((link, session))
            self._names[ordinal] = user_id

    def unwatch(self, link: K, session: int, user_ids: Iterable[str]) -> None:
        """Take users from those a session watches."""
        watcher = self._watchers.get((link, session))
        if watcher is not None:
            named = set(user_ids)
            self._remove(link, session, [ordinal for ordinal in watcher.watched if self._names[ordinal] in named])

    def forget(self, link: K, session: int) -> None:
        """The session ended, or watches nobody from before."""
        watcher = self._watchers.get((link, session))
        if watcher is not None:
            self._remove(link, session, list(watcher.watched))

    def forget_link(self, link: K) -> None:
        """The link ended and all its sessions' watches with it."""
        for of, session in [key for key in self._watchers if key[0] == link]:
            self.forget(of, session)

    def came(self, ordinals: BitMap) -> list[Change[K]]:
        """Users who came online."""
        fresh = ordinals
        for _, leaving in self._leaving:
            fresh = fresh - leaving
            leaving.difference_update(ordinals)
        return [self._change(ordinal, None) for ordinal in self._watched(fresh)]

    def went(self, ordinals: BitMap, now: float) -> None:
        """Users who went offline: nothing is told yet."""
        if not ordinals:
            return
        if self._leaving and now - self._leaving[-1][0] < GROUP_SECONDS:
            self._leaving[-1][1].update(ordinals)
        else:
            self._leaving.append((now, BitMap(ordinals)))

    def due(self, now: float) -> tuple[list[Departure], list[Change[K]]]:
        """Those whose grace is over, and whom it concerns. Each leaving is given once."""
        departures: list[Departure] = []
        changes: list[Change[K]] = []
        while self._leaving and self._leaving[0][0] + self._grace <= now:
            left, ordinals = self._leaving.popleft()
            if ordinals:
                departures.append(Departure(ordinals, left))
                changes.extend(self._change(ordinal, left) for ordinal in self._watched(ordinals))
        return departures, changes

    def in_grace(self, ordinal: int) -> bool:
        """Whether a user just left and still counts as online."""
        return any(ordinal in leaving for _, leaving in self._leaving)

    def _watched(self, ordinals: BitMap) -> list[int]:
        if len(ordinals) <= len(self._by_user):
            return [ordinal for ordinal in ordinals if ordinal in self._by_user]
        return [ordinal for ordinal in self._by_user if ordinal in ordinals]

    def _change(self, ordinal: int, left: float | None) -> Change[K]:
        watchers = [(link, session, self._watchers[link, session].ordinal) for link, session in self._by_user[ordinal]]
        return Change(self._names[ordinal], left, watchers)

    def _remove(self, link: K, session: int, ordinals: Iterable[int]) -> None:
        watcher = self._watchers[link, session]
        for ordinal in ordinals:
            watcher.watched.discard(ordinal)
            watching = self._by_user[ordinal]
            watching.discard((link, session))
            if not watching:
                del self._by_user[ordinal], self._names[ordinal]
        if not watcher.watched:
            del self._watchers[link, session]

"""What processes share and may lose: the ports of the cache, by what they are for.

Rules: nothing that is only here may be needed for a message; whoever asks can do without an answer. So no call raises or waits
long: it answers None, or False, when the cache can't be asked (away, frozen, full of work), within `QUICK_SECONDS` where somebody
waits for it. `MemoryCache` and `RedisCache` implement the ports; one contract test runs against both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

QUICK_SECONDS = 0.1  # longest wait for an answer that somebody waits for
EDGE_SECONDS = 20.0  # an edge that has not beaten for so long is gone, and its sessions with it
SESSION_SECONDS = 3600.0  # an entry that nobody wrote again for so long is forgotten


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session; `number` is the edge's own for it, `connected_ms` the time in milliseconds since 1970."""

    user_id: str
    edge_id: str
    number: int
    device_id: str
    connected_ms: int


class RateLimits(Protocol):
    """Token buckets that several processes share."""

    async def take(self, key: str, per_second: float, burst: int) -> float | None:
        """Take one token: 0 when there was one, else the seconds until there will be (and none is taken). None: can't say.

        Args:
            key: whose bucket.
            per_second: lasting rate, above 0.
            burst: how many may come at once, at least 1.
        """


class SessionDirectory(Protocol):
    """Which sessions a user has. An edge's entries are valid while it beats."""

    async def beat(self, edge_id: str) -> bool | None:
        """Say that the edge lives; whether the directory had it alive already. False: it knows nothing of the edge, or knows it no
        more, so all of the edge's sessions are to be put again. None: can't say."""

    async def put(self, sessions: Sequence[SessionRecord]) -> bool:
        """Write entries; writing one again keeps it for longer. False: some were not written, which ones is not known."""

    async def remove(self, sessions: Sequence[SessionRecord]) -> bool:
        """Remove entries; those that aren't there do no harm. False: as `put`."""

    async def leave(self, edge_id: str) -> None:
        """The edge is gone: its entries are valid no more."""

    async def sessions_of(self, user_id: str) -> list[SessionRecord] | None:
        """The user's sessions at edges that beat, in no order. None: can't say."""


class RecentBytes(Protocol):
    """Small byte strings in the slots of keys: whatever is read may be missing or old, and the reader has to see which."""

    async def get(self, wanted: Sequence[tuple[str, Sequence[int]]]) -> list[list[bytes | None]] | None:
        """What is in these slots, key by key. None: can't say."""

    def put(self, values: Mapping[str, Mapping[int, bytes]], keep_seconds: float) -> None:
        """Have slots written by and by, the key kept for so many seconds from then. When too much waits to be written, the oldest
        is dropped and counted."""


class Cache(Protocol):
    """All of them, in one place."""

    @property
    def up(self) -> bool:
        """Whether it answered when last asked."""

    @property
    def limits(self) -> RateLimits:
        """The token buckets."""

    @property
    def directory(self) -> SessionDirectory:
        """The session directory."""

    @property
    def recent(self) -> RecentBytes:
        """The recent bytes."""


def by_user(sessions: Iterable[SessionRecord]) -> dict[str, list[SessionRecord]]:
    """Sessions by user, in order."""
    users: dict[str, list[SessionRecord]] = {}
    for session in sessions:
        users.setdefault(session.user_id, []).append(session)
    return users

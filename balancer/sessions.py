"""Where a user is connected. How many connections at which edge: from what the edges report here. Which devices they are: from the
session directory.

So an entry that outlived its session, or its edge, is not shown; and without the directory the edges are known all the same.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from balancer.fleet import Fleet
from mesh.cache import SessionDirectory, SessionRecord

LOOKUPS = 1_000  # that the hit ratio is of


class Sessions:
    """Looks users up.

    Args:
        fleet: what edges report.
        directory: a hint.
    """

    def __init__(self, fleet: Fleet, directory: SessionDirectory) -> None:
        self._fleet = fleet
        self._directory = directory
        self._hits: deque[bool] = deque(maxlen=LOOKUPS)

    @property
    def hit_ratio(self) -> float:
        """Share of the latest lookups that the directory answered in full; 1 before the first."""
        return sum(self._hits) / len(self._hits) if self._hits else 1.0

    async def of_user(self, user_id: str) -> list[SessionRecord]:
        """The user's sessions, by edge, then device; what isn't known of one is empty, or 0."""
        found = await self._directory.sessions_of(user_id)
        listed = reconciled(user_id, found or [], self._fleet.connections_of(user_id))
        self._hits.append(found is not None and all(session.device_id for session in listed))
        return listed


def reconciled(user_id: str, found: Iterable[SessionRecord], reported: Mapping[str, int]) -> list[SessionRecord]:
    """As many sessions of each edge as it reported: the newest that the directory has, and nameless ones for those it hasn't."""
    unknown = [SessionRecord(user_id, edge_id, 0, "", 0) for edge_id, count in reported.items() for _ in range(count)]
    listed: list[SessionRecord] = []
    left = dict(reported)
    for session in sorted([*found, *unknown], key=lambda one: -one.connected_ms):
        if left.get(session.edge_id, 0) > 0:
            left[session.edge_id] -= 1
            listed.append(session)
    return sorted(listed, key=lambda one: (one.edge_id, one.device_id, one.number))

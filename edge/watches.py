"""Whose presences one session watches. Pure."""

from collections.abc import Sequence

from edge import requests
from edge.ports import Expects
from edge.rules import MAX_FETCHES, RETRY_SECONDS, Rules
from edge.voice import Voice
from mesh import errors
from tidings.router.v1 import link_pb2

_NOBODY: frozenset[str] = frozenset()  # one for all sessions: an empty set of its own is 216 bytes


class Watches:
    """The users watched, at most `Rules.max_watched`, and the answers still to come, at most MAX_FETCHES; more is refused, and so
    is whatever comes while the edge has no room."""

    __slots__ = ("_asked", "_max", "_users", "_voice")

    def __init__(self, rules: Rules, voice: Voice) -> None:
        self._max = rules.max_watched
        self._voice = voice
        self._users = _NOBODY
        self._asked = 0

    def __bool__(self) -> bool:
        return bool(self._users)

    def watch(self, user_ids: Sequence[str], request_id: int) -> None:
        """Watch these as well.

        Raises:
            TidingsError: TOO_MANY_WATCHED, INVALID_FIELD or OVERLOADED.
        """
        if len(user_ids) > self._max:
            raise errors.too_many_watched(self._max)  # however often it names the same one
        if not user_ids:
            raise errors.invalid_field("watch_presence.user_ids", "name somebody to watch")  # routers don't answer to nobody
        new = requests.watched(user_ids, "watch_presence.user_ids")
        together = self._users.union(new)
        if len(together) > self._max:
            raise errors.too_many_watched(self._max)
        if not self._voice.has_room:
            raise errors.overloaded(RETRY_SECONDS)
        if self._asked >= MAX_FETCHES:
            raise errors.overloaded(RETRY_SECONDS, f"this session waits for {MAX_FETCHES} presences, and")
        self._ask(link_pb2.ClientEnvelope(request_id=request_id, watch_users=link_pb2.WatchUsers(watch_user_ids=new)))
        self._users = together

    def unwatch(self, user_ids: Sequence[str]) -> None:
        """Watch these no more; with none named, nobody.

        Raises:
            TidingsError: INVALID_FIELD.
        """
        if len(user_ids) > self._max:
            raise errors.invalid_field("unwatch_presence.user_ids", f"name at most {self._max} users")
        gone = requests.watched(user_ids, "unwatch_presence.user_ids")
        self._users = self._users.difference(gone) if gone else _NOBODY
        unwatch = link_pb2.WatchUsers(unwatch_user_ids=gone, clear=not gone)
        self._voice.tell(self._voice.user_id, link_pb2.ClientEnvelope(watch_users=unwatch))

    def on_answered(self) -> None:
        """Presences came."""
        self._asked -= 1

    def renew(self) -> None:
        """The routers forgot what is watched: tell them again."""
        if self._users and self._voice.ordinal:
            watch = link_pb2.WatchUsers(watch_user_ids=sorted(self._users), clear=True)
            self._ask(link_pb2.ClientEnvelope(watch_users=watch))

    def _ask(self, watch: link_pb2.ClientEnvelope) -> None:
        self._voice.ask(self._voice.user_id, watch, Expects.PRESENCE)
        self._asked += 1

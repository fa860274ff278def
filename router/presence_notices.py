"""Presence over the wire: watch requests in, presence frames out, last-seen times to the store.

Requests and session endings go through one queue, so that a watch never outlives the session that asked for it.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap

from mesh import batching, errors, patience
from mesh.naming import USER_ID
from router import frames
from router.directory import STORE_BATCH, chunks
from router.link import EdgeLink
from router.peers import Peers
from router.ports import UserStore
from router.presence import Change, Departure, PresenceBoard, TooManyWatchedError
from router.roster import Roster
from tidings.client.v1.frames_pb2 import PRESENCE_STATE_OFFLINE, PRESENCE_STATE_ONLINE, Presence
from tidings.router.v1.link_pb2 import TRAFFIC_CLASS_PRESENCE, ClientEnvelope
from tidings.store.v1.user_pb2 import EnsureUsersRequest, GetUsersRequest, LastSeen, RecordLastSeenRequest, User

_TICK_SECONDS = 0.25
_QUEUE = 50_000
_BATCH = 200  # requests resolved together: at 200 users each, some calls' worth
_DEPARTURES = 10_000


class _Request(NamedTuple):
    """A watch request, or (without envelope) the end of a session."""

    link: EdgeLink
    session: int
    envelope: ClientEnvelope | None


class PresenceNotices:
    """From roster changes and watch requests to presence frames.

    Args:
        limit: users one session may watch.
        within: seconds a watch request may wait for a store.
    """

    def __init__(
        self, board: PresenceBoard[EdgeLink], roster: Roster[EdgeLink], users: UserStore, peers: Peers, limit: int, within: float
    ) -> None:
        self._board = board
        self._roster = roster
        self._users = users
        self._peers = peers
        self._limit = limit
        self._within = within
        self._stopping = False
        self._requests: batching.Batcher[_Request] = batching.Batcher(_QUEUE, _BATCH)
        self._departures: batching.Batcher[Departure] = batching.Batcher(_DEPARTURES, 1)

    def came(self, ordinals: BitMap) -> None:
        """The roster says: these came online."""
        self._tell(self._board.came(ordinals))

    def went(self, ordinals: BitMap) -> None:
        """The roster says: these went offline."""
        if self._stopping:
            return  # our links end because we leave; the users stay where they are
        self._board.went(ordinals, time.time())

    def forget_link(self, link: EdgeLink) -> None:
        """The link ended."""
        self._board.forget_link(link)

    async def closed(self, link: EdgeLink, sessions: Iterable[int]) -> None:
        """Sessions ended, after all that they asked."""
        for session in sessions:
            await self._requests.put(_Request(link, session, None))

    async def accept(self, link: EdgeLink, envelope: ClientEnvelope) -> None:
        """Take a watch request; refused with OVERLOADED without room."""
        if not self._requests.offer(_Request(link, envelope.session, envelope)):
            link.refuse(envelope, errors.overloaded(1.0, "presence"))

    async def run(self) -> None:
        """Handle requests until cancelled."""
        await patience.drain(self._requests, self._handle)

    async def tick(self) -> None:
        """Tell whose grace is over, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._settle(time.time())

    async def record(self) -> None:
        """Note last-seen times until cancelled."""
        await patience.drain(self._departures, self._record)

    async def stop(self, within: float) -> None:
        """This router stops: note at once whoever is within their grace, and take nobody for gone from here on."""
        self._stopping = True
        departures, _ = self._board.due(float("inf"))
        with contextlib.suppress(TimeoutError, errors.TidingsError):
            await asyncio.wait_for(self._record(departures), within)

    def _settle(self, now: float) -> None:
        departures, changes = self._board.due(now)
        for departure in departures:
            self._departures.offer(departure)  # full: the store is long away, and last-seen is worth less than memory
        self._tell(changes)

    async def _record(self, departures: list[Departure]) -> None:
        """One router of all those that saw a user leave notes it: the user's owner."""
        mine = ((one, d.left) for d in departures for one in d.ordinals if self._peers.owns(str(one)))
        for part in chunks(mine):
            seen = [LastSeen(user_ordinal=ordinal, time=_timestamp(left)) for ordinal, left in part]
            request = RecordLastSeenRequest(last_seen=seen)
            await patience.until_done(lambda request=request: self._users.record_last_seen(request))  # type: ignore[misc]

    def _tell(self, changes: list[Change[EdgeLink]]) -> None:
        for change in changes:
            left = change.left
            frame = frames.presences(0, [_online(change.user_id) if left is None else _presence(change.user_id, _timestamp(left))])
            by_link: dict[EdgeLink, list[tuple[int, int]]] = defaultdict(list)
            for link, session, ordinal in change.watchers:
                by_link[link].append((ordinal, session))
            for link, watchers in by_link.items():
                ordinals = list(dict.fromkeys(ordinal for ordinal, _ in watchers))
                link.deliver(ordinals, frame, TRAFFIC_CLASS_PRESENCE, only_sessions=[session for _, session in watchers])

    async def _handle(self, batch: list[_Request]) -> None:
        known: dict[str, User] = {}
        failure: errors.TidingsError | None = None
        try:
            known = await self._resolve(batch)
        except errors.TidingsError as error:
            failure = error
        for request in batch:
            if request.envelope is None:
                self._board.forget(request.link, request.session)
            elif not request.link.gone:
                self._serve(request.link, request.envelope, known, failure)

    async def _resolve(self, batch: list[_Request]) -> dict[str, User]:
        """All users whom the batch wants to watch. Those never seen come into being, so that their first coming is told."""
        wanted: set[str] = set()
        for request in batch:
            if request.envelope is not None:
                wanted.update(one for one in request.envelope.watch_users.watch_user_ids if USER_ID.fullmatch(one))
        known: dict[str, User] = {}
        for part in chunks(sorted(wanted), STORE_BATCH):
            question = GetUsersRequest(user_ids=part)
            found = await patience.until_done(lambda question=question: self._users.get_users(question), self._within)  # type: ignore[misc]
            known.update((user.user_id, user) for user in found.users)
            new = EnsureUsersRequest(user_ids=[one for one in part if one not in known])
            if new.user_ids:
                made = await patience.until_done(lambda new=new: self._users.ensure_users(new), self._within)  # type: ignore[misc]
                known.update(zip(new.user_ids, made.users, strict=True))
        return known

    def _serve(self, link: EdgeLink, envelope: ClientEnvelope, known: dict[str, User], failure: errors.TidingsError | None) -> None:
        asked = envelope.watch_users
        if asked.clear:
            self._board.forget(link, envelope.session)
        if asked.unwatch_user_ids:
            self._board.unwatch(link, envelope.session, asked.unwatch_user_ids)
        if not asked.watch_user_ids:
            return
        unknown = [one for one in asked.watch_user_ids if one not in known]
        if unknown and failure is not None:
            link.refuse(envelope, failure)
        elif unknown:
            link.refuse(envelope, errors.invalid_field("watch_presence.user_ids", f"{unknown[0]!r} is not a user id"))
        else:
            self._watch(link, envelope, [known[one] for one in dict.fromkeys(asked.watch_user_ids)])

    def _watch(self, link: EdgeLink, envelope: ClientEnvelope, users: list[User]) -> None:
        try:
            named = {user.user_ordinal: user.user_id for user in users}
            self._board.watch(link, envelope.session, envelope.user_ordinal, named)
        except TooManyWatchedError:
            link.refuse(envelope, errors.too_many_watched(self._limit))
            return
        link.answer(envelope, frames.presences(envelope.request_id, map(self._now, users)))

    def _now(self, user: User) -> Presence:
        if user.user_ordinal in self._roster or self._board.in_grace(user.user_ordinal):
            return _online(user.user_id)
        return _presence(user.user_id, user.last_seen_time if user.HasField("last_seen_time") else None)


def _online(user_id: str) -> Presence:
    return Presence(user_id=user_id, state=PRESENCE_STATE_ONLINE)


def _presence(user_id: str, last_seen: Timestamp | None) -> Presence:
    return Presence(user_id=user_id, state=PRESENCE_STATE_OFFLINE, last_seen_time=last_seen)


def _timestamp(seconds: float) -> Timestamp:
    whole = int(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))

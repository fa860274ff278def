"""The presence board against a plain model."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pyroaring import BitMap

from router.presence import Change, PresenceBoard, TooManyWatchedError

LIMIT, GRACE = 3, 2.0
_LINKS = st.sampled_from("ab")
_SESSIONS = st.integers(1, 3)
_USERS = st.sets(st.integers(1, 5), min_size=1, max_size=4)


def _name(ordinal: int) -> str:
    return f"u{ordinal}"


class PresenceMachine(RuleBasedStateMachine):
    """Watchers are told each change once, and nothing of those who come back within the grace."""

    def __init__(self) -> None:
        super().__init__()
        self.board: PresenceBoard[str] = PresenceBoard(LIMIT, GRACE)
        self.now = 1000.0
        self.watches: dict[tuple[str, int], set[int]] = {}
        self.told_online: set[int] = set()
        self.left: dict[int, float] = {}

    @rule(link=_LINKS, session=_SESSIONS, users=_USERS)
    def watch(self, link: str, session: int, users: set[int]) -> None:
        watched = self.watches.get((link, session), set())
        try:
            self.board.watch(link, session, 100 + session, {one: _name(one) for one in users})
            self.watches[link, session] = watched | users
            assert len(watched | users) <= LIMIT
        except TooManyWatchedError:
            assert len(watched | users) > LIMIT

    @rule(link=_LINKS, session=_SESSIONS, users=_USERS)
    def unwatch(self, link: str, session: int, users: set[int]) -> None:
        self.board.unwatch(link, session, map(_name, users))
        self._leave(link, session, users)

    @rule(link=_LINKS, session=_SESSIONS)
    def forget(self, link: str, session: int) -> None:
        self.board.forget(link, session)
        self._leave(link, session, set(range(10)))

    @rule(link=_LINKS)
    def forget_link(self, link: str) -> None:
        self.board.forget_link(link)
        self.watches = {key: users for key, users in self.watches.items() if key[0] != link}

    def _leave(self, link: str, session: int, users: set[int]) -> None:
        rest = self.watches.pop((link, session), set()) - users
        if rest:
            self.watches[link, session] = rest

    @rule(users=_USERS)
    def came(self, users: set[int]) -> None:
        users -= self.told_online - self.left.keys()
        changes = self.board.came(BitMap(users))
        self._check(changes, users - self.left.keys(), online=True)
        self.told_online |= users
        for one in users:
            self.left.pop(one, None)

    @rule(users=_USERS)
    def went(self, users: set[int]) -> None:
        users &= self.told_online - self.left.keys()
        self.board.went(BitMap(users), self.now)
        self.left.update(dict.fromkeys(users, self.now))

    @rule(seconds=st.sampled_from([0.05, 0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        departures, changes = self.board.due(self.now)
        gone = {one for departure in departures for one in departure.ordinals}
        self._check(changes, gone, online=False)
        for departure in departures:
            for one in departure.ordinals:
                assert abs(departure.left - self.left.pop(one)) <= 0.1
        assert all(self.now - left < GRACE + 0.1 for left in self.left.values())
        self.told_online -= gone

    def _check(self, changes: list[Change[str]], users: set[int], *, online: bool) -> None:
        expected = {
            (_name(user), link, session, 100 + session)
            for (link, session), watched in self.watches.items()
            for user in watched & users
        }
        assert {(change.user_id, *watcher) for change in changes for watcher in change.watchers} == expected
        assert all((change.left is None) is online for change in changes)
        assert len({change.user_id for change in changes}) == len(changes)

    @invariant()
    def knows_who_is_in_grace_and_who_watches(self) -> None:
        assert {one for one in range(8) if self.board.in_grace(one)} == self.left.keys()
        assert len(self.board) == len(self.watches)


TestPresence = PresenceMachine.TestCase
TestPresence.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)

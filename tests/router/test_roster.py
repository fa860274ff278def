"""The roster against plain sets."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pyroaring import BitMap

from router.roster import Roster

_LINKS = st.sampled_from("abc")
_USERS = st.lists(st.integers(1, 12), max_size=6, unique=True)


class RosterMachine(RuleBasedStateMachine):
    """Every change gives exactly the difference of the union over all links."""

    def __init__(self) -> None:
        super().__init__()
        self.roster: Roster[str] = Roster()
        self.model: dict[str, set[int]] = {}

    def _online(self) -> set[int]:
        return set().union(*self.model.values())

    @rule(link=_LINKS, users=_USERS)
    def snapshot(self, link: str, users: list[int]) -> None:
        before = self._online()
        transition = self.roster.snapshot(link, BitMap(users))
        self.model[link] = set(users)
        assert set(transition.came) == self._online() - before
        assert set(transition.went) == before - self._online()

    @rule(link=_LINKS, users=_USERS)
    def opened(self, link: str, users: list[int]) -> None:
        if link in self.model:
            before = self._online()
            came = self.roster.opened(link, users)
            self.model[link] |= set(users)
            assert set(came) == self._online() - before

    @rule(link=_LINKS, users=_USERS)
    def closed(self, link: str, users: list[int]) -> None:
        if link in self.model:
            before = self._online()
            went = self.roster.closed(link, users)
            self.model[link] -= set(users)
            assert set(went) == before - self._online()

    @rule(link=_LINKS)
    def gone(self, link: str) -> None:
        before = self._online()
        went = self.roster.gone(link)
        self.model.pop(link, None)
        assert set(went) == before - self._online()

    @rule(users=_USERS)
    def where(self, users: list[int]) -> None:
        expected = {link: online & set(users) for link, online in self.model.items() if online & set(users)}
        assert {link: set(here) for link, here in self.roster.where(users)} == expected
        assert {link: set(here) for link, here in self.roster.where_of(BitMap(users))} == expected

    @invariant()
    def knows_who_is_online(self) -> None:
        assert {user for user in range(14) if user in self.roster} == self._online()
        assert len(self.roster) == len(self._online())


TestRoster = RosterMachine.TestCase
TestRoster.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

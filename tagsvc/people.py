"""Lists of people, in pages: bitmaps in, ids out. And the tags of one of them."""

from dataclasses import dataclass

from pyroaring import AbstractBitMap

from mesh import errors
from tagset.snapshot import Snapshot
from tagsvc import catalogue, fields, pages
from tagsvc.journal import Journal
from tagsvc.ordinals import Ordinals
from tagsvc.pages import PeopleToken

PAGE_SIZE = 1000  # when a caller asks for none; both as the contract says
MAX_PAGE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """A page of people.

    Attributes:
        user_ids: in order of their ordinals.
        next_page_token: empty on the last page.
        version: the snapshot's.
        count: how many in all.
    """

    user_ids: list[str]
    next_page_token: str
    version: int
    count: int


class People:
    """Reads lists of people."""

    def __init__(self, journal: Journal, ordinals: Ordinals) -> None:
        self._journal = journal
        self._ordinals = ordinals

    async def page(self, members: AbstractBitMap, snapshot: Snapshot, listed: str, token: PeopleToken, size: int) -> PeoplePage:
        """The page after `token`, of the list that `listed` names, whose `members` are as of a snapshot.

        The snapshot is kept for the next page.
        """
        begin, following = members.rank(token.after), ""
        ordinals = list(members[begin : begin + size])
        if begin + size < len(members):
            following = pages.people_token(PeopleToken(token.version, token.known, ordinals[-1]), listed)
            self._journal.history.pin(snapshot)
        return PeoplePage(await self._ordinals.user_ids(ordinals), following, token.version, len(members))

    async def members(self, tag: str, page_size: int, page_token: str) -> PeoplePage:
        """A page of those who have a tag.

        Raises:
            TidingsError: UNKNOWN_TAG, INVALID_FIELD, SNAPSHOT_GONE, UNAVAILABLE.
        """
        listed = f"members {tag}"
        size = pages.page_size(page_size, PAGE_SIZE, MAX_PAGE_SIZE)
        token = pages.read_people_token(page_token, listed) if page_token else PeopleToken(0, 0, 0)
        snapshot = self._journal.at(token.version)
        entry = catalogue.find_tag(snapshot, tag)
        return await self.page(entry.members, snapshot, listed, PeopleToken(snapshot.version, 0, token.after), size)

    async def ordinal(self, user_id: str) -> int:
        """A user's ordinal.

        Raises:
            TidingsError: UNKNOWN_USER, INVALID_FIELD, UNAVAILABLE.
        """
        found = await self._ordinals.find([fields.user_id(user_id)])
        if user_id not in found:
            raise errors.unknown_user(user_id, field="user_id")
        return found[user_id]

    async def tags_of(self, user_id: str) -> tuple[list[str], int]:
        """Which tags a user has, sorted, and the snapshot's version. Raises as `ordinal`."""
        ordinal, snapshot = await self.ordinal(user_id), self._journal.newest()
        return sorted(name for name, entry in snapshot.tags.items() if ordinal in entry.members), snapshot.version

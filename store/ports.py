"""What the store's services need from a database. `PostgresDatabase` and `SqliteDatabase`, `PostgresMessageLog` and
`SqliteMessageLog` implement it; one contract test runs against both."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from store import entries, sync
from store.model import Advance, Draft, Moved, Outcome

T = TypeVar("T")


class Database(Protocol):
    """Runs plain functions over a SQLAlchemy connection, each in one transaction.

    A function may run more than once (a deadlock, a connection lost on the way), so it must not change anything but the database.
    """

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run it on one snapshot.

        Raises:
            TidingsError: UNAVAILABLE when the database stays away.
        """

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run it and commit.

        Raises:
            TidingsError: UNAVAILABLE when the database stays away; whatever `work` raises, after rolling back.
        """


class MessageLog(Protocol):
    """The hot path: entries and marks, in batches."""

    async def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Store a batch in one transaction; what is returned is durable, in the order given.

        Raises:
            PassingError: the database is away, or asks to try again; the whole batch may be given again.
            Exception: something in the batch can't be stored; nothing of it was.
        """

    async def advance(self, advances: Sequence[Advance]) -> list[Moved]:
        """Move marks and cursors forward in one transaction; gives what moved, in order.

        Raises:
            TidingsError: UNAVAILABLE when the database stays away.
        """


class History(Protocol):
    """Reads entries. `DatabaseHistory` and `RecentHistory` implement it, with equal answers."""

    async def list_entries(self, question: entries.Question) -> entries.Page:
        """A page of one log.

        Raises:
            TidingsError: INVALID_CHAT_ID, NOT_A_MEMBER; UNAVAILABLE when the database stays away.
        """

    async def sync_devices(self, questions: Sequence[sync.Question]) -> list[sync.SyncPage]:
        """What devices missed, one page per question, in order.

        Raises:
            TidingsError: UNAVAILABLE when the database stays away.
        """


class PassingError(Exception):
    """The database couldn't do it now; nothing says that it won't on the next attempt."""

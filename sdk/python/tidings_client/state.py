"""What a device keeps: its identity, positions, received entries, notifications, and messages not yet sent, in one SQLite file.

Rules: whatever the server is told we have, and whatever `send` took, is on disk first (WAL, synchronous=FULL). Everything is done
in the caller's thread: a batch of received entries is one transaction, measured at 0.3 ms on an ordinary SSD, less than handing it
to another thread and waking up again. One process uses a file at a time. In memory (`path=None`) the same tables live as long as
the client, and only the newest entries are kept.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tidings.client.v1.frames_pb2 import ClientFrame, Notification
from tidings.common.v1.content_pb2 import Content
from tidings.common.v1.conversation_pb2 import Conversation, LogEntry
from tidings.common.v1.error_pb2 import Error
from tidings_client import state_schema as sql
from tidings_client.errors import StateFileError
from tidings_client.outbox import Record

KEPT_IN_MEMORY = 10_000  # entries of a client without a file: a few megabytes
KEPT_FAILED = 1_000  # refused messages kept for the application to look at
KEPT_AFTER_EXPIRY = 24 * 3_600_000  # milliseconds that a notification's id outlives it: more than a clock is ever put right by
KEPT_NOTIFICATIONS = 100_000  # the newest of those shown, however long they live: some 10 MB


@dataclass(frozen=True, slots=True)
class ReceivedNotification:
    """A notification to keep.

    Attributes:
        received: when it came, in milliseconds since 1970 by the server's clock.
        expires: from then on it is void; likewise.
    """

    notification: Notification
    received: int
    expires: int


@dataclass(slots=True)
class Changes:
    """What one batch of frames changed; kept in one transaction.

    Attributes:
        entries: emitted by the logs, in order.
        positions: up to where each conversation is kept now.
        own: highest message of one's own, by conversation.
        stored: client_msg_ids the server has.
        failed: messages refused for good.
        progress: conversation -> own messages declared delivered and read up to.
        descriptions: conversations as last heard.
        confirmed_reads: read marks the server has.
        notifications: new ones, in the order in which they came.
    """

    entries: list[LogEntry] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    failed: list[tuple[str, Error]] = field(default_factory=list)
    progress: dict[str, tuple[int, int]] = field(default_factory=dict)
    descriptions: list[Conversation] = field(default_factory=list)
    confirmed_reads: list[tuple[str, int]] = field(default_factory=list)
    notifications: list[ReceivedNotification] = field(default_factory=list)

    @property
    def must_last(self) -> bool:
        """Whether it must survive a power failure before anyone hears of it; the rest can be learnt again."""
        return bool(self.entries or self.positions or self.stored or self.failed or self.notifications)

    def __bool__(self) -> bool:
        return self.must_last or bool(self.progress or self.descriptions or self.confirmed_reads)


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry as kept, with what became of it.

    Attributes:
        shown: whether history shows it.
        amended_by: seq of its newest edit or deletion; 0 for none.
        content: the content since its newest edit; None when not edited, or deleted.
    """

    entry: LogEntry
    shown: bool
    amended_by: int
    content: Content | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A message refused for good."""

    client_msg_id: str
    target: str
    frame: ClientFrame
    error: Error


class State:
    """The open state file.

    Args:
        path: the file, made when missing; None keeps everything in memory.

    Raises:
        StateFileError: the file is someone else's, damaged, in use, or from a newer version.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._database = _open(path)
        with self._explained():
            self._prepare()
            self._arrival: int = self._database.execute(sql.HIGHEST_ARRIVAL).fetchone()[0]

    @property
    def arrival(self) -> int:
        """The arrival number given last."""
        return self._arrival

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def identity(self, name: str) -> str:
        """A value kept under a name; empty when there is none."""
        with self._explained():
            row = self._database.execute(sql.GET_IDENTITY, (name,)).fetchone()
        return row[0] if row else ""

    def set_identity(self, name: str, value: str, *, durable: bool = True) -> None:
        """Keep a value under a name."""
        with self._transaction(durable=durable):
            self._database.execute(sql.PUT_IDENTITY, (name, value))

    def set_taken(self, arrival: int) -> None:
        """The application has taken everything up to this arrival; only worth keeping where something outlives the client."""
        if self._path is not None:
            self.set_identity("taken", str(arrival), durable=False)

    def position(self, conversation_id: str) -> int | None:
        """Up to where a conversation is kept; None when nothing of it is."""
        with self._explained():
            row = self._database.execute(sql.GET_POSITION, (conversation_id,)).fetchone()
        return row[0] if row else None

    def newest_positions(self, limit: int) -> list[tuple[str, int]]:
        """Positions of the conversations that changed last."""
        with self._explained():
            return self._database.execute(sql.NEWEST_POSITIONS, (limit,)).fetchall()

    def apply(self, changes: Changes) -> None:
        """Keep what a batch of frames changed; it is durable when this returns."""
        with self._transaction(durable=changes.must_last):
            self._put_entries(changes.entries)
            self._put_positions(changes.positions)
            run = self._database.executemany
            run(sql.PUT_OWN, [(seq, name, seq) for name, seq in changes.own.items()])
            run(sql.DELETE_OUTGOING, [(name,) for name in changes.stored])
            run(sql.FAIL_OUTGOING, [(error.SerializeToString(), name) for name, error in changes.failed])
            run(sql.PUT_PROGRESS, [(name, *upto) for name, upto in changes.progress.items()])
            described = [(one.conversation_id, one.SerializeToString()) for one in changes.descriptions]
            run(sql.PUT_DESCRIPTION, described)
            run(sql.CONFIRM_READ_MARK, changes.confirmed_reads)
            if changes.failed:
                self._database.execute(sql.FORGET_FAILED, (KEPT_FAILED,))
            if changes.notifications:
                self._put_notifications(changes.notifications)

    def keep_history(self, entries: Iterable[LogEntry]) -> None:
        """Keep entries read from history; they don't go through `arrived_after`."""
        with self._transaction(durable=False):
            self._insert(entries, arriving=False)

    def arrived_after(self, arrival: int, limit: int) -> list[tuple[int, LogEntry]]:
        """Entries in the order in which they came, with their arrival numbers."""
        with self._explained():
            rows = self._database.execute(sql.ARRIVED_AFTER, (arrival, limit)).fetchall()
        return [(number, LogEntry.FromString(entry)) for number, entry in rows]

    def forget_taken(self, taken: int) -> None:
        """In memory: drop entries that the application has taken, but for the newest. A file keeps all."""
        upto = min(taken, self._arrival - KEPT_IN_MEMORY)
        if self._path is None and upto > 0:
            with self._transaction(durable=False):
                self._database.execute(sql.FORGET_ARRIVED, (upto,))

    def before(self, conversation_id: str, seq: int, limit: int) -> list[Kept]:
        """Entries below a seq, from there downwards."""
        return self._select(sql.ENTRIES_BEFORE, conversation_id, seq, limit)

    def after(self, conversation_id: str, seq: int, limit: int) -> list[Kept]:
        """Entries above a seq, from there upwards."""
        return self._select(sql.ENTRIES_AFTER, conversation_id, seq, limit)

    def progress(self, conversation_id: str) -> tuple[int, int, Conversation | None]:
        """Own messages declared delivered and read up to, and the conversation as last heard."""
        with self._explained():
            row = self._database.execute(sql.GET_PROGRESS, (conversation_id,)).fetchone()
        if row is None:
            return 0, 0, None
        return row[0], row[1], Conversation.FromString(row[2]) if row[2] is not None else None

    def own_after(self, conversation_id: str, seq: int, user_id: str, limit: int) -> list[tuple[int, str]]:
        """(seq, client_msg_id) of a sender's newest messages above a seq, ascending."""
        with self._explained():
            rows = self._database.execute(sql.OWN_UNREAD, (conversation_id, seq, user_id, limit)).fetchall()
        return rows[::-1]

    def unread_by_others(self, limit: int) -> list[str]:
        """Conversations that hold messages of ours not read by all, those that changed last first."""
        with self._explained():
            rows = self._database.execute(sql.UNREAD_BY_OTHERS, (limit,)).fetchall()
        return [row[0] for row in rows]

    def mark_read(self, conversation_id: str, seq: int) -> None:
        """Keep a read mark until the server has it."""
        with self._transaction(durable=False):
            self._database.execute(sql.PUT_READ_MARK, (conversation_id, seq))

    def unconfirmed_reads(self) -> list[tuple[str, int]]:
        """Read marks the server may not have."""
        with self._explained():
            return self._database.execute(sql.UNCONFIRMED_READ_MARKS).fetchall()

    def notification(self, notification_id: str) -> tuple[int, bool] | None:
        """(when it is void, whether it was shown) of one that is kept; None for others."""
        with self._explained():
            row = self._database.execute(sql.GET_NOTIFICATION, (notification_id,)).fetchone()
        return (row[0], row[1] is not None) if row else None

    def waiting_notifications(self, now: int) -> int:
        """How many could be shown."""
        with self._explained():
            count: int = self._database.execute(sql.COUNT_WAITING_NOTIFICATIONS, (now,)).fetchone()[0]
        return count

    def show_notification(self, now: int) -> Notification | None:
        """The next one to show, which counts as shown, durably, when this returns; None when there is none.

        Args:
            now: milliseconds since 1970 by the server's clock.
        """
        with self._explained():
            row = self._database.execute(sql.NEXT_NOTIFICATION, (now,)).fetchone()
        if row is None:
            return None
        with self._transaction(durable=True):
            self._database.execute(sql.SHOW_NOTIFICATION, (now, row[0]))
        return Notification.FromString(row[1])

    def insert_outgoing(self, client_msg_id: str, target: str, frame: ClientFrame) -> int:
        """See `KeepsOutgoing`."""
        with self._transaction(durable=True):
            # One that had failed and is tried again is replaced, and gets a new number.
            cursor = self._database.execute(sql.INSERT_OUTGOING, (client_msg_id, target, frame.SerializeToString()))
        return cursor.lastrowid or 0

    def delete_outgoing(self, client_msg_id: str) -> None:
        """Forget one."""
        with self._transaction(durable=True):
            self._database.execute(sql.DELETE_OUTGOING, (client_msg_id,))

    def outgoing(self) -> list[Record]:
        """See `KeepsOutgoing`."""
        with self._explained():
            rows = self._database.execute(sql.UNSENT_OUTGOING).fetchall()
        return [Record(number, name, target, ClientFrame.FromString(frame)) for number, name, target, frame in rows]

    def failed(self) -> list[Failed]:
        """Messages refused for good, oldest first."""
        with self._explained():
            rows = self._database.execute(sql.FAILED_OUTGOING).fetchall()
        return [Failed(name, target, ClientFrame.FromString(frame), Error.FromString(error)) for name, target, frame, error in rows]

    def _put_notifications(self, received: list[ReceivedNotification]) -> None:
        rows = [
            (one.notification.notification_id, one.received, one.expires, one.notification.SerializeToString()) for one in received
        ]
        self._database.executemany(sql.PUT_NOTIFICATION, rows)
        self._database.execute(sql.FORGET_EXPIRED_NOTIFICATIONS, (received[-1].received - KEPT_AFTER_EXPIRY,))
        self._database.execute(sql.FORGET_OLD_NOTIFICATIONS, (KEPT_NOTIFICATIONS,))

    def _put_positions(self, positions: dict[str, int]) -> None:
        rows = [(name, seq, self._arrival) for name, seq in positions.items()]
        self._database.executemany(sql.PUT_POSITION, rows)

    def _put_entries(self, entries: list[LogEntry]) -> None:
        self._insert(entries, arriving=True)

    def _insert(self, entries: Iterable[LogEntry], *, arriving: bool) -> None:
        rows: list[tuple[str, int, int | None, str, str, int, bytes]] = []
        amendments: list[LogEntry] = []
        for entry in entries:
            self._arrival += arriving
            shown = entry.WhichOneof("body") in ("content", "membership")
            if entry.WhichOneof("body") in ("edit", "deletion"):
                amendments.append(entry)
            number = self._arrival if arriving else None
            text = entry.SerializeToString()
            rows.append((entry.conversation_id, entry.seq, number, entry.sender_id, entry.client_msg_id, shown, text))
        self._database.executemany(sql.PUT_ENTRY, rows)
        for entry in amendments:
            self._amend(entry)

    def _amend(self, entry: LogEntry) -> None:
        if entry.HasField("edit"):
            row = (entry.conversation_id, entry.edit.target_seq, entry.seq, entry.edit.content.SerializeToString())
            self._database.execute(sql.PUT_AMENDMENT, row)
            return
        target = entry.deletion.target_seq
        self._database.execute(sql.PUT_AMENDMENT, (entry.conversation_id, target, entry.seq, None))
        self._erase(entry.conversation_id, target)

    def _erase(self, conversation_id: str, seq: int) -> None:
        """A deleted message's text goes from this device too."""
        row = self._database.execute(sql.GET_ENTRY, (conversation_id, seq)).fetchone()
        if row is None:
            return
        entry = LogEntry.FromString(row[0])
        if entry.WhichOneof("body") == "content":
            entry.content.Clear()
            self._database.execute(sql.REPLACE_ENTRY, (entry.SerializeToString(), conversation_id, seq))

    def _select(self, statement: str, conversation_id: str, seq: int, limit: int) -> list[Kept]:
        with self._explained():
            rows = self._database.execute(statement, (conversation_id, seq, limit)).fetchall()
        return [
            Kept(LogEntry.FromString(entry), bool(shown), by or 0, None if content is None else Content.FromString(content))
            for _, shown, entry, by, content in rows
        ]

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[None]:
        with self._explained():
            if self._path is not None:
                self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            arrival = self._arrival
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                self._arrival = arrival
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateFileError(_explain(self._path, error)) from error

    def _prepare(self) -> None:
        """Take the file into use: check whose it is and bring its tables up to date."""
        application = self._database.execute("PRAGMA application_id").fetchone()[0]
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != sql.APPLICATION_ID and (tables or application):
            raise StateFileError(f"{self._path} is a database of another program: name another file as state")
        if version > len(sql.MIGRATIONS):
            raise StateFileError(f"{self._path} was written by a newer version of tidings_client: upgrade, or name another file")
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        for number in range(version, len(sql.MIGRATIONS)):
            script = f"BEGIN IMMEDIATE; {sql.MIGRATIONS[number]} PRAGMA application_id = {sql.APPLICATION_ID}; "
            self._database.executescript(script + f"PRAGMA user_version = {number + 1}; COMMIT")
        self._database.execute("BEGIN IMMEDIATE")  # takes the exclusive lock now, not at the first message
        self._database.execute("COMMIT")


def _open(path: Path | None) -> sqlite3.Connection:
    try:
        return sqlite3.connect(":memory:" if path is None else path, timeout=0.5, isolation_level=None)
    except sqlite3.Error as error:
        raise StateFileError(_explain(path, error)) from error


def _explain(path: Path | None, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{path} is in use by another client: give each client a state file of its own"
    if name.startswith("SQLITE_NOTADB"):
        return f"{path} is not a state file: name another file as state"
    if name.startswith("SQLITE_CORRUPT"):
        return f"{path} is damaged ({error}): move it away; the server sends again what it holds"
    if name.startswith("SQLITE_FULL"):
        return f"{path} can't grow, the disk is full: make room; nothing that was acknowledged is lost"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"{path} can't be opened: does its folder exist, and may we write there?"
    return f"{path}: {error}"

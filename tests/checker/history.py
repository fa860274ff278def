"""The history of a run: what each client asked, was told, and was shown, with the times at which it happened.

Operations follow Jepsen: `invoked` is when the client asked, `completed` when it was answered; `completed` None means that no
answer ever came, so the operation is indeterminate: it may have taken effect once, or not at all. Times are seconds of one clock.
The list is in the order of recording, which per client is the order in which things happened to it.

A history is written as JSON lines, one operation a line, so that a failing run is kept with its seed and judged again later.
Nothing here judges, and nothing here knows the SDK.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, get_args


@dataclass(frozen=True, slots=True)
class Entry:
    """One log entry as one reader saw it."""

    seq: int
    message_id: str
    sender: str
    client_msg_id: str
    content: str = ""
    kind: str = "message"  # message, edit, deletion, membership
    target_seq: int = 0  # of an edit or deletion
    change: str = ""  # of a membership event: created, added, removed, left, renamed, role_changed
    users: tuple[str, ...] = ()  # whom a membership event concerns

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What must be the same for every reader, whatever happened to the content since."""
        return self.message_id, self.sender, self.client_msg_id, self.kind


@dataclass(frozen=True, slots=True)
class Run:
    """What this history is of; the first line."""

    kind: ClassVar[str] = "run"
    seed: int
    url: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A device (`client`) of a user takes part from now on. One that never receives anything is known by this alone."""

    kind: ClassVar[str] = "opened"
    client: str
    user: str
    time: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The device left for good before the end, so it need not have everything."""

    kind: ClassVar[str] = "closed"
    client: str
    time: float


@dataclass(frozen=True, slots=True)
class Send:
    """A message, edit or deletion. `number` counts this client's sends in the order in which the application made them."""

    kind: ClassVar[str] = "send"
    client: str
    user: str
    number: int
    conversation: str
    client_msg_id: str
    content: str
    invoked: float
    completed: float | None = None
    outcome: str = "indeterminate"  # stored, refused, indeterminate
    seq: int = 0
    message_id: str = ""
    error: str = ""  # the named error of a refusal
    target_seq: int = 0


@dataclass(frozen=True, slots=True)
class Receive:
    """The application of one device was given one entry."""

    kind: ClassVar[str] = "receive"
    client: str
    user: str
    conversation: str
    entry: Entry
    time: float
    via: str = ""  # live, sync, or empty when the client doesn't tell


@dataclass(frozen=True, slots=True)
class Page:
    """One page of history, as answered; entries ascending by seq."""

    kind: ClassVar[str] = "page"
    client: str
    user: str
    conversation: str
    direction: str  # after, before
    position: int | None  # None with before: from the newest
    entries: tuple[Entry, ...]
    more: bool  # further entries lie in this direction
    invoked: float
    completed: float
    sweep: str = ""  # pages of one final reading from end to end share a name; empty for a page asked for along the way
    first_available: int = 1  # retention, or the user's joining, leaves out what is below


@dataclass(frozen=True, slots=True)
class Receipt:
    """A client was told a member's marks."""

    kind: ClassVar[str] = "receipt"
    client: str
    user: str
    conversation: str
    member: str
    delivered_seq: int
    read_seq: int
    time: float


@dataclass(frozen=True, slots=True)
class Membership:
    """A client asked for a change of members: direct (both users, for ever), created, added, removed, left, blocked, unblocked.

    blocked, unblocked: `client`'s user is `users[0]`, who no longer wants to hear `users[1]`.
    """

    kind: ClassVar[str] = "membership"
    client: str
    conversation: str
    change: str
    users: tuple[str, ...]
    invoked: float
    completed: float | None = None
    outcome: str = "indeterminate"  # done, refused, indeterminate


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The client, which (re)connected at `invoked`, was told at `completed` that it has everything it missed.

    `truncated`: conversation -> first seq it was given, where it was told that older ones are left out.
    """

    kind: ClassVar[str] = "caught_up"
    client: str
    user: str
    invoked: float
    completed: float
    truncated: dict[str, int]


@dataclass(frozen=True, slots=True)
class Failure:
    """Something was refused or failed: what, and the named error with its advice."""

    kind: ClassVar[str] = "failure"
    client: str
    action: str
    reason: str  # RATE_LIMITED …; empty when the error had no name
    retry_after: float | None
    message: str
    time: float


@dataclass(frozen=True, slots=True)
class Call:
    """A mutating call with a request_id, and a digest of its body and of its answer ("" when none came)."""

    kind: ClassVar[str] = "call"
    client: str
    user: str
    method: str
    request_id: str
    body: str
    answer: str
    invoked: float
    completed: float | None = None


@dataclass(frozen=True, slots=True)
class Mapped:
    """Users got or lost a tag. `version` is that of the snapshot which has it; 0 while no answer came. `earliest` is the first in
    which it may have been in force already, because it took several attempts."""

    kind: ClassVar[str] = "mapped"
    client: str
    tag: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    invoked: float
    completed: float | None = None
    version: int = 0
    earliest: int = 0


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A notification for an audience: (recipients + tree) - excluded. `due` and `expires` are seconds of the history's clock."""

    kind: ClassVar[str] = "uploaded"
    client: str
    request_id: str
    tree: Any  # see tests.checker.audience; None without an expression
    recipients: tuple[str, ...]
    excluded: tuple[str, ...]
    rate: int
    due: float
    expires: float
    invoked: float
    completed: float | None = None
    outcome: str = "indeterminate"  # taken, refused, indeterminate
    notification: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """The application of one device was given a notification."""

    kind: ClassVar[str] = "shown"
    client: str
    user: str
    notification: str
    time: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A device has a notification on its disk, shown or not: that is what it acknowledges."""

    kind: ClassVar[str] = "kept"
    client: str
    user: str
    notification: str


@dataclass(frozen=True, slots=True)
class Reported:
    """A reading of a report, asked for at `invoked`."""

    kind: ClassVar[str] = "reported"
    client: str
    notification: str
    state: str
    expansion: int
    sent: int
    delivered: int
    pending: int
    failed: int
    expired: int
    cancelled: int
    snapshot: int
    invoked: float
    completed: float
    fence: int = 0  # 0 where the reader isn't told


@dataclass(frozen=True, slots=True)
class Controlled:
    """A notification was cancelled, paused or resumed; `sent` is what the answer to a cancel said."""

    kind: ClassVar[str] = "controlled"
    client: str
    notification: str
    action: str  # cancel, pause, resume
    request_id: str
    invoked: float
    completed: float | None = None
    outcome: str = "indeterminate"  # done, refused, indeterminate
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Recipients:
    """Who had an outcome of a notification, read back after everything was over."""

    kind: ClassVar[str] = "recipients"
    client: str
    notification: str
    outcome: str  # expansion, sent, delivered, pending, failed, expired, cancelled
    users: tuple[str, ...]
    time: float


@dataclass(frozen=True, slots=True)
class Disturbed:
    """From `start` to `end` connections were cut or processes killed: what was said at that time may not have been heard."""

    kind: ClassVar[str] = "disturbed"
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Settled:
    """From `since` on nothing failed any more, and by `time` everything had had the time to arrive."""

    kind: ClassVar[str] = "settled"
    since: float
    time: float


Operation = (
    Run
    | Opened
    | Closed
    | Send
    | Receive
    | Page
    | Receipt
    | Membership
    | CaughtUp
    | Failure
    | Call
    | Mapped
    | Uploaded
    | Shown
    | Kept
    | Reported
    | Controlled
    | Recipients
    | Disturbed
    | Settled
)
History = Sequence[Operation]
_KINDS: dict[str, type[Operation]] = {cls.kind: cls for cls in get_args(Operation)}
_TUPLES = {"users", "added", "removed", "recipients", "excluded"}


def to_json(operation: Operation) -> str:
    """One line, without its end."""
    return json.dumps({"kind": operation.kind, **asdict(operation)}, ensure_ascii=False, separators=(",", ":"))


def from_json(line: str) -> Operation:
    """Read one line.

    Raises:
        ValueError: not an operation.
    """
    values: dict[str, Any] = json.loads(line)
    cls = _KINDS.get(values.pop("kind", ""))
    if cls is None:
        raise ValueError(f"not an operation of a history: {line[:80]!r}")
    known = {field.name for field in fields(cls)}
    return cls(**{name: _decode(name, value) for name, value in values.items() if name in known})


def _decode(name: str, value: Any) -> Any:
    if name == "entry":
        return _entry(value)
    if name == "entries":
        return tuple(_entry(one) for one in value)
    return tuple(value) if name in _TUPLES else value


def _entry(values: dict[str, Any]) -> Entry:
    return Entry(**{**values, "users": tuple(values["users"])})


def save(history: Iterable[Operation], path: Path) -> None:
    """Write a history."""
    path.write_text("".join(to_json(operation) + "\n" for operation in history))


def load(path: Path) -> list[Operation]:
    """Read a history.

    Raises:
        ValueError: some line is not an operation.
    """
    return [from_json(line) for line in path.read_text().splitlines() if line]

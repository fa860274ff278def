"""What owners and recipients do: expansions, progress, acknowledgements. Each reads the blocks concerned, adds to them, and writes
them with the totals in one transaction, under the lock of the notification's row."""

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pyroaring import BitMap
from sqlalchemy import Connection

from mesh import errors
from store import notification_block_rows, notification_rows
from store.notification import Notification
from store.notification_block_rows import Place
from store.notification_creation import Expansion
from store.notification_life import Part, State
from store.recipient_blocks import Blocks, Counts, RecipientBlock, touched

# Blocks that one transaction may touch, unless a single notification touches more: about 30 ms of SQLite's event loop.
MAX_BLOCKS = 64
_CLOCKS_APART = 1_000_000  # microseconds an owner's clock may be ahead of ours
_SENDING = (Part.EXPANSION, Part.SENT)
_FAILING = (Part.EXPANSION, Part.DELIVERED, Part.FAILED)
_DELIVERING = (Part.SENT, Part.DELIVERED, Part.FAILED)
Books = MutableMapping[Place, RecipientBlock]
Rows = MutableMapping[str, Notification]


@dataclass(frozen=True, slots=True)
class Step:
    """What the owner of one notification did. `finish` is None while it goes on."""

    notification_id: str
    fence: int
    sent: Blocks
    failed: Blocks
    finish: State | None
    reason: str

    @property
    def size(self) -> int:
        """How many blocks it touches."""
        return len(touched(self.sent, self.failed))


@dataclass(frozen=True, slots=True)
class Delivery:
    """Who has one notification."""

    notification_id: str
    delivered: Blocks

    @property
    def size(self) -> int:
        """How many blocks it touches."""
        return len(self.delivered)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step: the notification as it is now, None when there is none. Fenced: nothing of the step was written; early:
    nothing but the lease."""

    fenced: bool
    notification: Notification | None
    early: bool = False


S = TypeVar("S", Step, Delivery)


def in_pieces(steps: Iterable[S]) -> Iterator[list[S]]:
    """Steps for one transaction after the other, in order."""
    piece: list[S] = []
    size = 0
    for step in steps:
        if piece and size + step.size > MAX_BLOCKS:
            yield piece
            piece, size = [], 0
        piece.append(step)
        size += step.size
    if piece:
        yield piece


def save_expansion(
    connection: Connection, notification_id: str, fence: int, expansion: Expansion, sent: Blocks, lease: int, now: int
) -> tuple[Notification, bool]:
    """Settle whom a notification is for, and who is sent it first. When that is done already, or it is over, it stays as it is.

    Returns:
        The notification after, and whether `sent` was written.

    Raises:
        TidingsError: NOTIFICATION_NOT_FOUND, FENCED.
    """
    before = notification_rows.lock(connection, [notification_id])
    if notification_id not in before:
        raise errors.notification_not_found(notification_id)
    one = before[notification_id]
    if one.fence != fence or one.state in {State.SCHEDULED, State.PAUSED}:
        raise errors.fenced(notification_id)
    after, more = one, Counts()
    if one.state is State.EXPANDING and one.settled:
        after = one.expanded(0, one.snapshot_version, now)  # at upload, and for nobody
    elif one.state is State.EXPANDING:
        notification_block_rows.write_expansion(connection, notification_id, expansion.blocks)
        after = one.expanded(expansion.number, expansion.snapshot_version, now)
        more = _send_first(connection, after, expansion.blocks, sent, now)
        after = after.progressed(more, now)
    if after.state.running:
        after = after.renewed(now + lease)
    notification_rows.save(connection, before, {notification_id: after})
    return after, more.sent > 0


def _send_first(connection: Connection, one: Notification, expansion: Blocks, sent: Blocks, now: int) -> Counts:
    """Write who is sent one first, whose expansion was written just now; gives how many."""
    if one.early(now) or one.expire_at <= now:
        return Counts()
    parts = {block: {Part.EXPANSION: expansion[block], Part.SENT: BitMap()} for block in sent if block in expansion}
    books = {(one.notification_id, block): RecipientBlock(bitmaps) for block, bitmaps in parts.items()}
    counts = _sum(recipients.send(sent[block]) for (_, block), recipients in books.items())
    notification_block_rows.write(connection, books)
    return counts


def save_progress(connection: Connection, steps: Sequence[Step], lease: int, now: int) -> list[StepResult]:
    """Add what owners did, each for itself; renew their leases for `lease` microseconds."""
    before = notification_rows.lock(connection, (step.notification_id for step in steps))
    accepted = [step for step in steps if _owns(step, before)]
    wanted = [(step.notification_id, block, part) for step in accepted for block, part in _parts(step)]
    books = notification_block_rows.read(connection, wanted)
    rows = dict(before)
    results = [_take(step, rows, books, lease, now) for step in steps]
    notification_rows.save(connection, before, rows)
    notification_block_rows.write(connection, books)
    return results


def record_delivered(connection: Connection, deliveries: Sequence[Delivery], now: int) -> list[Notification | None]:
    """Add who has what, whoever brings it and however late, as long as recipients are kept; None for what isn't there."""
    before = notification_rows.lock(connection, (delivery.notification_id for delivery in deliveries))
    kept = [delivery for delivery in deliveries if _keeps(before.get(delivery.notification_id))]
    wanted = [(one.notification_id, block, part) for one in kept for block in one.delivered for part in _DELIVERING]
    books = notification_block_rows.read(connection, wanted)
    rows = dict(before)
    for delivery in kept:
        gained = [books[delivery.notification_id, block].deliver(ordinals) for block, ordinals in delivery.delivered.items()]
        rows[delivery.notification_id] = rows[delivery.notification_id].progressed(_sum(gained), now)
    notification_rows.save(connection, before, rows)
    notification_block_rows.write(connection, books)
    return [rows.get(delivery.notification_id) for delivery in deliveries]


def _owns(step: Step, rows: Rows) -> bool:
    one = rows.get(step.notification_id)
    return one is not None and one.fence == step.fence and one.state.running


def _keeps(one: Notification | None) -> bool:
    return one is not None and one.recipients_kept


def _parts(step: Step) -> Iterator[tuple[int, Part]]:
    yield from ((block, part) for block in step.sent for part in _SENDING)
    yield from ((block, part) for block in step.failed for part in _FAILING)


def _take(step: Step, rows: Rows, books: Books, lease: int, now: int) -> StepResult:
    """Add one step to what the transaction will write."""
    one = rows.get(step.notification_id)
    if one is None or not _owns(step, rows):
        return StepResult(True, one)
    if step.sent and one.expire_at <= now:
        # Nobody is sent it from then on, also where the owner's clock is behind. An occurrence whose next one isn't made yet is
        # left to whoever makes that.
        rows[step.notification_id] = one if one.awaits_next else one.expired(now)
        return StepResult(True, rows[step.notification_id])
    if step.sent and one.early(now):
        rows[step.notification_id] = one.renewed(now + lease)
        return StepResult(True, rows[step.notification_id], early=True)  # fenced, too: an owner that doesn't know `early` stops
    rows[step.notification_id] = _finished(_progressed(one.renewed(now + lease), step, books, now), step, now)
    return StepResult(False, rows[step.notification_id])


def _progressed(one: Notification, step: Step, books: Books, now: int) -> Notification:
    if not step.sent and not step.failed:
        return one
    gained = [books[step.notification_id, block].send(ordinals) for block, ordinals in step.sent.items()]
    gained += [books[step.notification_id, block].fail(ordinals) for block, ordinals in step.failed.items()]
    return one.progressed(_sum(gained), now)


def _finished(one: Notification, step: Step, now: int) -> Notification:
    """Ended, where its owner says so. That its time is up must hold by our clock too: an owner's that is fast ends nothing."""
    if step.finish is None or one.state.over:
        return one
    if step.finish is State.FAILED:
        return one.failed(step.reason, now)
    early = now < one.expire_at - _CLOCKS_APART
    return one if early and one.awaited else one.expired(now)


def _sum(gained: Iterable[Counts]) -> Counts:
    total = Counts()
    for counts in gained:
        total = total.plus(counts)
    return total

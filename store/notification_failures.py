"""Notifications whose owners fail: tried again for a while, then put aside as dead letters, and what an operator does with those.

A notification that is put aside is PAUSED, with the reason: so nobody claims it, and a business can resume, move or cancel it like
any other. Each function locks the notification's row before it touches its letter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from mesh import errors
from store import dead_letters, notification_codec, notification_rows
from store.dead_letter import DeadLetter, Kind, Policy
from store.dead_letters import Kept
from store.notification import Notification


@dataclass(frozen=True, slots=True)
class FailedRun:
    """What an owner could not do, and why."""

    notification_id: str
    fence: int
    reason: str
    detail: str


def fail(connection: Connection, runs: Sequence[FailedRun], policy: Policy, now: int) -> Kept:
    """Take these from their owners; gives the letters that this made. What isn't owned under that fence is passed over."""
    before = notification_rows.lock(connection, (run.notification_id for run in runs))
    failed = {run.notification_id: run for run in runs if _owns(run, before.get(run.notification_id))}
    after = {name: before[name].failed_run(_why(run), policy.runs, now) for name, run in failed.items()}
    notification_rows.save(connection, before, after)
    letters = [_letter(after[name], run, now) for name, run in failed.items() if not after[name].state.running]
    return dead_letters.put(connection, letters, policy.letters, now)


def replay(connection: Connection, letter: DeadLetter, now: int) -> None:
    """Let one go on. One that goes on already, or is paused by a business meanwhile, is left to itself.

    Raises:
        TidingsError: NOTIFICATION_NOT_FOUND; NOTIFICATION_STATE_CONFLICT, it is over or has expired.
    """
    before = notification_rows.lock(connection, [letter.subject])
    if letter.subject not in before:
        raise errors.notification_not_found(letter.subject)
    one = before[letter.subject]
    if one.state.over or one.expire_at <= now:
        state = one.state.name if one.state.over else "past its expiry"
        raise errors.notification_state_conflict(letter.subject, state, "discard its letter, and upload it anew if need be")
    if one.held_back:
        notification_rows.save(connection, before, {letter.subject: one.resumed(now)})
    dead_letters.remove(connection, letter.dead_letter_id)


def discard(connection: Connection, letter: DeadLetter, now: int) -> None:
    """Forget a letter; if its notification is still held back, it has failed for good."""
    before = notification_rows.lock(connection, [letter.subject])
    one = before.get(letter.subject)
    if one is not None and one.held_back:
        notification_rows.save(connection, before, {letter.subject: one.given_up(now)})
    dead_letters.remove(connection, letter.dead_letter_id)


def _owns(run: FailedRun, one: Notification | None) -> bool:
    return one is not None and one.fence == run.fence and one.state.running


def _why(run: FailedRun) -> str:
    return f"{run.reason}: {run.detail}"


def _letter(one: Notification, run: FailedRun, now: int) -> DeadLetter:
    return DeadLetter(
        kind=Kind.NOTIFICATION,
        subject=one.notification_id,
        reason=run.reason,
        detail=run.detail,
        attempts=one.failures,
        payload=notification_codec.report(one, now).SerializeToString(),
    )

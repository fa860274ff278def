"""Doing dead letters' work again: what the store can do itself it does at once, the rest a router takes up."""

from collections.abc import Callable
from functools import partial

import structlog

from mesh import errors, patience
from store import dead_letter_codec, dead_letters, notification_failures
from store.dead_letter import DeadLetter, Kind
from store.model import Moved, Refusal
from store.ports import Database, MessageLog

_log = structlog.get_logger(__name__)


class Replays:
    """See above.

    Args:
        database: where the letters are.
        log: where marks are.
        clock: microseconds since 1970.
    """

    def __init__(self, database: Database, log: MessageLog, clock: Callable[[], int]) -> None:
        self._database = database
        self._message_log = log
        self._clock = clock

    async def replay(self, letter: DeadLetter) -> None:
        """Do its work, or have it done.

        Raises:
            TidingsError: why it can't be done; of marks, unless that may pass, the letter says so from now on.
        """
        match letter.kind:
            case Kind.DISPATCH:
                await self._database.write(partial(dead_letters.replay, dead_letter_id=letter.dead_letter_id))
            case Kind.MARKS:
                await self._replay_marks(letter)
            case Kind.NOTIFICATION:
                await self._database.write(partial(notification_failures.replay, letter=letter, now=self._clock()))

    async def discard(self, letter: DeadLetter, updated_at: int) -> None:
        """Forget it; with a time, only as it was put then."""
        if letter.kind is Kind.NOTIFICATION:
            await self._database.write(partial(notification_failures.discard, letter=letter, now=self._clock()))
        else:
            await self._database.write(partial(dead_letters.remove, dead_letter_id=letter.dead_letter_id, updated_at=updated_at))

    async def _replay_marks(self, letter: DeadLetter) -> None:
        try:
            await self._advance(letter)
        except errors.TidingsError as error:
            if error.code not in patience.PASSING:
                await self._failed_again(letter, error)
            raise
        except Exception as fault:
            _log.exception("replay failed", dead_letter=letter.dead_letter_id)
            unforeseen = errors.internal(f"an unforeseen fault: {fault!r}")
            await self._failed_again(letter, unforeseen)
            raise unforeseen from fault
        # What was put since has further marks, and stays.
        await self._database.write(partial(dead_letters.remove, dead_letter_id=letter.dead_letter_id, updated_at=letter.updated_at))

    async def _advance(self, letter: DeadLetter) -> None:
        advance = dead_letter_codec.mark_advance(letter.payload)
        [moved] = await self._message_log.advance([advance])
        if moved.refusal:
            raise _refusal(moved, advance.conversation_id)

    async def _failed_again(self, letter: DeadLetter, error: errors.TidingsError) -> None:
        work = partial(
            dead_letters.failed_again,
            dead_letter_id=letter.dead_letter_id,
            reason=error.reason,
            detail=dead_letter_codec.detail(error.message),
            now=self._clock(),
        )
        await self._database.write(work)


def _refusal(moved: Moved, conversation_id: str) -> errors.TidingsError:
    if moved.refusal is Refusal.NOT_A_MEMBER:
        return errors.not_a_member(conversation_id)
    return errors.invalid_chat_id(conversation_id)

"""Putting aside what can't be done: how often it is tried before, what is said of it, and who keeps it.

Rules: only what fails for a reason nobody foresaw is put aside; a reason with a name is an answer, and one that may pass is waited
for. So no client can fill the letters, and a store that is away makes none.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from mesh import errors, patience
from router.ports import DeadLetterStore
from tidings.common.v1 import error_pb2
from tidings.store.v1.dead_letter_pb2 import DEAD_LETTER_KIND_DISPATCH, DEAD_LETTER_KIND_MARKS, DeadLetter, PutDeadLettersRequest
from tidings.store.v1.message_log_pb2 import MarkAdvance

_RETRY_SECONDS = (0.1, 0.3)  # before the second attempt and the third: others wait for it
ATTEMPTS = 1 + len(_RETRY_SECONDS)
_log = structlog.get_logger(__name__)
R = TypeVar("R")


def may_pass(error: Exception) -> bool:
    """Whether it may pass by itself."""
    return isinstance(error, errors.TidingsError) and error.code in patience.PASSING


def unforeseen(error: Exception) -> bool:
    """Whether it is a fault of ours, and no answer."""
    return not isinstance(error, errors.TidingsError) or error.code == error_pb2.ERROR_CODE_INTERNAL


def told(error: Exception) -> tuple[str, str]:
    """An error's reason and text, as letters have them."""
    if isinstance(error, errors.TidingsError):
        return error.reason, error.message
    return "INTERNAL", f"an unforeseen fault: {error!r}"


async def insist(attempt: Callable[[], Awaitable[R]]) -> R:
    """Make an attempt `ATTEMPTS` times, as long as it fails for an unforeseen reason.

    Raises:
        Exception: what the last attempt met.
    """
    for delay in _RETRY_SECONDS:
        try:
            return await attempt()
        except Exception as error:
            if not unforeseen(error):
                raise
        await asyncio.sleep(delay)
    return await attempt()


class DeadLetters:
    """Has letters kept.

    Args:
        store: keeps them.
        of_replay: whether what fails here is replays.
    """

    def __init__(self, store: DeadLetterStore, *, of_replay: bool = False) -> None:
        self._store = store
        self._of_replay = of_replay

    async def put_dispatch(self, conversation_id: str, from_seq: int, to_seq: int, error: Exception) -> bool:
        """Put aside the telling of entries, waiting for a store; `to_seq` 0 for all that follow. False when it isn't kept."""
        reason, detail = told(error)
        letter = DeadLetter(kind=DEAD_LETTER_KIND_DISPATCH, subject=conversation_id, reason=reason, detail=detail)
        letter.from_seq, letter.to_seq, letter.attempts = from_seq, to_seq, ATTEMPTS
        return await self._put(letter)

    async def put_marks(self, advance: MarkAdvance, error: Exception) -> bool:
        """Put aside a device's marks, waiting for a store. False when they aren't kept."""
        reason, detail = told(error)
        subject = f"{advance.conversation_id}/{advance.user_ordinal}/{advance.device_id}"
        letter = DeadLetter(kind=DEAD_LETTER_KIND_MARKS, subject=subject, reason=reason, detail=detail, attempts=ATTEMPTS)
        letter.payload = advance.SerializeToString()
        return await self._put(letter)

    async def _put(self, letter: DeadLetter) -> bool:
        request = PutDeadLettersRequest(dead_letters=[letter], of_replay=self._of_replay)
        try:
            await patience.until_done(lambda: self._store.put_dead_letters(request))
        except errors.TidingsError as error:
            _log.error("not put aside", subject=letter.subject, why=letter.detail, reason=error.reason, error=error.message)
            return False
        return True

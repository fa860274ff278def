"""When to ask the store again what is due. Pure: the time is passed in, seconds to wait come out."""

from mesh.times import SECOND

_FIRST_SECONDS = 0.001
_LONGEST_FAILURE_SECONDS = 1.0


class Pace:
    """Waits until just when the next one is due, but not longer than a poll, for other schedulers take in too.

    The store's clock says what is due. When ours is ahead, we come too early: then a little later, doubling, so that a wrong clock
    costs some delay and never a spin.

    Args:
        poll: seconds.
    """

    def __init__(self, poll: float) -> None:
        self._poll = poll
        self._early = _FIRST_SECONDS
        self._failure = _FIRST_SECONDS

    def after_claim(self, claimed: int, limit: int, next_due: int | None, now: int) -> float:
        """After an answer.

        Args:
            claimed: how many it gave.
            limit: how many were asked for.
            next_due: when there is more to claim; None when nothing waits. Microseconds, as `now`.
        """
        self._failure = _FIRST_SECONDS
        if claimed >= limit:
            return 0.0
        wait = self._poll if next_due is None else (next_due - now) / SECOND
        if claimed or wait > 0:
            self._early = _FIRST_SECONDS
        if wait <= 0:
            wait, self._early = self._early, min(self._early * 2, self._poll)
        return min(wait, self._poll)

    def after_failure(self) -> float:
        """After no answer."""
        wait, self._failure = self._failure, min(self._failure * 2, _LONGEST_FAILURE_SECONDS)
        return wait

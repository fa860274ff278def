"""A service as those who wait see it: first come, first served, at a known pace. Pure; times are seconds.

Who waits too long goes away, and is served all the same: the service finds out only when it answers. So a service that is far
behind works for those who have left, and that is what makes a storm worse than its size. What a service could do about it is to
keep its queue short, and give whoever would wait longer an appointment at its own pace, at a small price.
"""

REFUSAL = 0.1  # of the work of serving: a request is read and answered, nothing is signed or opened (assumed)


class AppointedError(Exception):
    """There is too much to do: come again after `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"come again after {retry_after:.1f} s")
        self.retry_after = retry_after


class Desk:
    """One process.

    Args:
        pace: requests served a second.
        patience: seconds after which who waits goes away.
        wasted: share of the work that is done for those who went away.
        bound: seconds of waiting above which newcomers get an appointment; 0 takes everybody.
    """

    def __init__(self, pace: float, patience: float, wasted: float = 1.0, bound: float = 0.0) -> None:
        self._each = 1.0 / pace
        self._patience = patience
        self._wasted = wasted
        self._bound = bound
        self._free_at = 0.0
        self._appointed = 0.0

    def take(self, now: float) -> float:
        """Join the queue; gives when one will have been served.

        Raises:
            AppointedError: the queue is longer than the bound.
        """
        begin = max(now, self._free_at)
        if 0 < self._bound < begin - now:
            self._free_at = begin + self._each * REFUSAL
            self._appointed = max(self._appointed, begin) + self._each
            raise AppointedError(self._appointed - now)
        left = begin + self._each - now > self._patience
        self._free_at = begin + self._each * (self._wasted if left else 1.0)
        return begin + self._each

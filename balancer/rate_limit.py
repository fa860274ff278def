"""How fast one address may ask to connect, over all balancers.

This balancer's own bucket is asked first: what it refuses never reaches the cache. Then the bucket that balancers share; when that
can't be asked, this balancer's own is the limit, so N balancers let N times as much through until it can be again.
"""

from mesh.cache import RateLimits
from mesh.rate_limit import RateLimit

ADDRESSES_REMEMBERED = 100_000  # by one balancer: about 20 MB


class ConnectRate:
    """Refuses what comes too fast from one network.

    Args:
        per_second: lasting rate, above 0.
        burst: how many may come at once, at least 1.
        shared: the buckets of all balancers.
    """

    def __init__(self, per_second: float, burst: int, shared: RateLimits) -> None:
        self._per_second = per_second
        self._burst = burst
        self._own = RateLimit(per_second, burst, ADDRESSES_REMEMBERED)
        self._shared = shared

    async def take(self, network: str, now: float) -> float:
        """Take one token: 0 when there was one, else the seconds until there will be. `now` is of a clock that doesn't go back."""
        wait = self._own.take(network, now)
        if wait > 0:
            return wait
        return await self._shared.take(f"connect:{network}", self._per_second, self._burst) or 0.0

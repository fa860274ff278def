"""How long to leave a router alone that would not take notifications. Pure."""

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 2.0  # a router that comes back, or the first of a mesh, is found within this time
_MOST = 1_000  # routers remembered; one forgotten begins anew


class Backoff:
    """Doubling delays, one count for each router; the empty id stands for there being none."""

    def __init__(self) -> None:
        self._delays: dict[str, float] = {}

    def failed(self, router_id: str) -> float:
        """It failed once more; gives the seconds to wait."""
        delay = self._delays.pop(router_id, FIRST_SECONDS)
        self._delays[router_id] = min(delay * 2, LONGEST_SECONDS)
        if len(self._delays) > _MOST:
            del self._delays[next(iter(self._delays))]
        return delay

    def succeeded(self, router_id: str) -> None:
        """It took something."""
        self._delays.pop(router_id, None)

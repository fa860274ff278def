"""Whether a router that says something every second has fallen silent: frozen, or cut off with its connection still open. Pure.

Counted in ticks of the edge's own clock that brought nothing, not in time: an edge that was itself stopped for a while has ticked
once, and reads what came meanwhile before it ticks again.
"""

TICK_SECONDS = 0.5
SILENT_TICKS = 6  # 3 seconds, in which the router was to speak three times


class Pulse:
    """Of one link.

    Attributes:
        expected: whether the router says something every second; older ones don't.
    """

    def __init__(self) -> None:
        self.expected = False
        self._missed = 0

    @property
    def silent(self) -> bool:
        """Whether it has missed its time."""
        return self.expected and self._missed >= SILENT_TICKS

    def heard(self) -> None:
        """The router said something."""
        self._missed = 0

    def tick(self) -> None:
        """A tick has passed."""
        self._missed += 1

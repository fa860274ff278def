"""What a new connection is told we have already. Pure.

The server keeps its own record of what each device acknowledged. Ours may be behind it (a state file restored from a backup: then
it must send again) or ahead (acknowledgements that were lost: then it needn't). So the first connection names the newest positions
of the state, and each later one those that have moved since the last was welcomed.
"""

from collections.abc import Iterable

from tidings.common.v1.conversation_pb2 import Position

MAX_RESUME = 1_000  # positions of one Hello, by the contract; what is past it goes by the server's record


class Resume:
    """Gathers positions for the next Hello.

    Args:
        kept: (conversation, position) of the state, those that changed last first.
    """

    def __init__(self, kept: Iterable[tuple[str, int]]) -> None:
        self._positions = dict(reversed(list(kept)))

    def on_kept(self, conversation_id: str, seq: int) -> None:
        """A conversation's position moved."""
        self._positions.pop(conversation_id, None)
        self._positions[conversation_id] = seq
        if len(self._positions) > MAX_RESUME:
            del self._positions[next(iter(self._positions))]

    def positions(self) -> list[Position]:
        """For Hello."""
        return [Position(conversation_id=name, seq=seq) for name, seq in self._positions.items()]

    def on_told(self) -> None:
        """The server has them."""
        self._positions.clear()

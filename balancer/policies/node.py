"""What a policy is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Node:
    """One edge: its id, failure domain, connections open and under way, and the most it takes."""

    node_id: str
    zone: str
    connections: int
    under_way: int
    capacity: int
    draining: bool = False

    @property
    def load(self) -> int:
        """Connections it has or is about to have."""
        return self.connections + self.under_way

    @property
    def fullness(self) -> float:
        """Share of its capacity that is taken."""
        return self.load / self.capacity

    @property
    def takes_more(self) -> bool:
        """Neither leaving nor full."""
        return not self.draining and self.load < self.capacity


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks; an empty zone is unknown."""

    user_id: str
    zone: str = ""


Policy = Callable[[Sequence[Node], Asker, Random], Node | None]
"""Picks one node that takes more, or None when none does. Pure: the same arguments give the same node."""


def nearest(nodes: Sequence[Node], zone: str) -> list[Node]:
    """The nodes that take more: those of the zone if there are any, else all."""
    takers = [node for node in nodes if node.takes_more]
    return [node for node in takers if zone and node.zone == zone] or takers

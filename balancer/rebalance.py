"""Who should send how many connections away so that all edges are equally full: sans-IO, time passed in.

A round never orders more than ROUND_SECONDS' worth at the rate asked for, and the next one waits until it is over and then counts
anew: so asking twice doesn't order twice, and an order that is out of date stops by itself. An edge's load is its connections and
those on their way to it: while everybody comes back to an edge that was restarted, nobody is sent away for it.
"""

import math
from collections.abc import Sequence

from balancer.policies.node import Node

ROUND_SECONDS = 60.0
SETTLE_SECONDS = 2.0  # after a round's end, for the last of its clients to be reported gone


class Rebalance:
    """One balancer's rounds."""

    def __init__(self) -> None:
        self._over_at = -math.inf

    def round(self, nodes: Sequence[Node], per_second: int, now: float, tolerance: float = 0.0) -> tuple[dict[str, int], float]:
        """Begin a round, unless one is under way or all is level.

        Args:
            tolerance: share above the average that an edge may have without being asked to shed.

        Returns:
            Connections to send away by node, and the seconds to spread them over, the same for each: together they keep the rate.
        """
        if now < self._over_at:
            return {}, 0.0
        orders = within(excess(nodes, tolerance), int(per_second * ROUND_SECONDS))
        seconds = sum(orders.values()) / per_second
        if orders:
            self._over_at = now + seconds + SETTLE_SECONDS
        return orders, seconds


def excess(nodes: Sequence[Node], tolerance: float = 0.0) -> dict[str, int]:
    """Connections above each node's share by capacity, rounded so that nobody is asked to go below it; only those above it by more
    than the tolerance.

    A node that drains neither counts nor sheds: its clients are leaving anyway.
    """
    staying = [node for node in nodes if not node.draining]
    capacity = sum(node.capacity for node in staying)
    total = sum(node.load for node in staying)
    shares = {node.node_id: total * node.capacity / capacity for node in staying}
    above = [node for node in staying if node.connections > shares[node.node_id] * (1 + tolerance)]
    over = {node.node_id: node.connections - math.ceil(shares[node.node_id]) for node in above}
    return {node_id: count for node_id, count in over.items() if count > 0}


def within(counts: dict[str, int], budget: int) -> dict[str, int]:
    """The same proportions, the largest first, with a sum of at most `budget`."""
    share = min(1.0, budget / max(1, sum(counts.values())))
    granted: dict[str, int] = {}
    for node_id, count in sorted(counts.items(), key=lambda item: -item[1]):
        granted[node_id] = min(math.ceil(count * share), budget)
        budget -= granted[node_id]
    return {node_id: count for node_id, count in granted.items() if count}

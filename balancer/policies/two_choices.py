"""The less full of two random nodes (Mitzenmacher, "The power of two choices in randomized load balancing", 2001).

Always taking the least full of all would send everybody who asks between two reports to the same node; two random choices come
close to that balance without the herd.
"""

from collections.abc import Sequence
from random import Random

from balancer.policies.node import Asker, Node, nearest


def two_choices(nodes: Sequence[Node], asker: Asker, random: Random) -> Node | None:
    """See `Policy`. Nodes of the asker's zone come first; each counts by its share of capacity taken."""
    takers = nearest(nodes, asker.zone)
    if len(takers) < 2:
        return takers[0] if takers else None
    return min(random.sample(takers, 2), key=lambda node: node.fullness)

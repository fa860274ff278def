"""The less full of two random nodes (Mitzenmacher, "The power of two choices in randomized load balancing", 2001).

Always taking the least full of all would send everybody who asks between two reports to the same node; two random choices come
close to that balance without the herd. Nor need all be looked at: whoever can't be chosen is drawn again, and only when that goes
on for too long, for most are full, leave or are of another zone, are all gone through.
"""

from collections.abc import Sequence
from random import Random

from balancer.policies.node import Asker, Node, nearest

DRAWS = 16  # with a third of the nodes to be chosen from, two are found but once in 70 times


def two_choices(nodes: Sequence[Node], asker: Asker, random: Random) -> Node | None:
    """See `Policy`. Nodes of the asker's zone come first; each counts by its share of capacity taken."""
    drawn = _draw(nodes, asker.zone, random) if len(nodes) > DRAWS else []
    if len(drawn) < 2:
        takers = nearest(nodes, asker.zone)
        drawn = random.sample(takers, min(len(takers), 2))
    return min(drawn, key=lambda node: node.fullness, default=None)


def _draw(nodes: Sequence[Node], zone: str, random: Random) -> list[Node]:
    """Two different nodes that take more, of the zone if one is named; fewer if they aren't found soon."""
    found: dict[int, Node] = {}
    for _ in range(DRAWS):
        at = random.randrange(len(nodes))
        node = nodes[at]
        if node.takes_more and zone in ("", node.zone):
            found[at] = node
        if len(found) == 2:
            break
    return list(found.values())

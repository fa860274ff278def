"""Each user to a node of their own, with bounded load (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads",
2016).

A user comes back to the same edge, whatever balancer they ask, and when a node joins or leaves only the users it takes or had
move. Nobody may hold more than (1 + EPSILON) times its share: whoever finds their node at that bound goes to their next. The
order of nodes is each user's own (weighted rendezvous, Schindelhauer & Schomaker 2005) rather than a walk round a ring, so that
a node's overflow spreads over all others instead of filling its neighbour.
"""

import hashlib
import math
from collections.abc import Sequence
from random import Random

from balancer.policies.node import Asker, Node, nearest

EPSILON = 0.25  # the paper's trade: smaller balances better, larger moves fewer users (about 2 / EPSILON² moves a change)


def consistent_hash(nodes: Sequence[Node], asker: Asker, random: Random) -> Node | None:
    """See `Policy`. Nodes of the asker's zone come first; a node's share is by its capacity."""
    takers = nearest(nodes, asker.zone)
    if not takers:
        return None
    load = sum(node.load for node in takers) + 1
    capacity = sum(node.capacity for node in takers)
    below = [node for node in takers if node.load < math.ceil((1 + EPSILON) * load * node.capacity / capacity)]
    return max(below, key=lambda node: (_score(node, asker.user_id), node.node_id))


def _score(node: Node, user_id: str) -> float:
    """Exponential race: the chance to have the highest score is in proportion to the capacity."""
    digest = hashlib.blake2b(f"{node.node_id}\0{user_id}".encode(), digest_size=8).digest()
    uniform = ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52  # strictly between 0 and 1 in a double
    return -node.capacity / math.log(uniform)

"""How many envelopes edges may have unanswered here: each link's share of one budget. Pure.

The budget is no more than the way into the log holds, so that links are always read. While that way is more than half full, shares
shrink, to an eighth when it is full; but a link always gets a few, so that what it asks goes on. A share that hardly differs from
the one last told is not told.
"""

LEAST = 16  # envelopes
_AT_FULL = 1 / 8  # of a share
_NEWS = 1 / 8  # by how much it differs from what was told, at least


def share(budget: int, links: int, fullness: float) -> int:
    """One link's.

    Args:
        budget: envelopes, over all links.
        links: how many there are.
        fullness: of the way into the log, 0 to 1.
    """
    behind = max(0.0, min(1.0, 2 * fullness - 1))
    return max(LEAST, int(budget / max(1, links) * (1 - behind * (1 - _AT_FULL))))


def news(told: int, credit: int) -> bool:
    """Whether a credit is worth telling an edge that was told another."""
    return abs(credit - told) > told * _NEWS

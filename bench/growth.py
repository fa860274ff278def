"""`tidings bench growth`: whether cost grows along straight lines, in parts that run alone.

    members   a group of 2 to 1,000, everybody online
    tags      1,000 to 10,000,000 tagged clients
    edges     1 to 4 edges, one of everything else
    routers   1 to 4 routers, one of everything else

Each part takes under two minutes. What no machine here can hold, 1,000 edges and 100,000,000 users, is simulated:
`python -m bench.simulation`.
"""

from collections.abc import Callable

from bench import growth_members, growth_tags, growth_width
from bench.figures import Figures

PARTS: dict[str, Callable[[], Figures]] = {
    "members": lambda: growth_members.run(growth_members.MembersOptions()),
    "tags": lambda: growth_tags.run(growth_tags.TagGrowthOptions()),
    "edges": lambda: growth_width.run(growth_width.WidthOptions("edge")),
    "routers": lambda: growth_width.run(growth_width.WidthOptions("router")),
}


def run(part: str) -> Figures:
    """Measure a part.

    Raises:
        ValueError: there is no such part; says which there are.
        GeneratorFailedError, TimeoutError, OSError: the mesh did not serve.
    """
    if part not in PARTS:
        raise ValueError(f"no part {part!r}: use one of {', '.join(PARTS)}")
    return PARTS[part]()

"""`python -m bench.simulation --edges 1000 --users 1e8`: all parts, or those named; see `bench.simulation.parts`.

router    memory and time of one router's roster            (measured, then scaled)
balancer  memory and pace of one balancer                   (measured, then scaled)
links     traffic, and how many routers it takes            (measured, then reckoned)
storm     everybody of the lost edges comes back            (simulated in virtual time)
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from bench.figures import Figures
from bench.simulation import parts
from bench.simulation.parts import Size
from bench.tables import print_figures

PARTS = ("router", "balancer", "links", "storm")
_WIDTH = 170


def main() -> None:
    """See the module."""
    given = _arguments()
    size = Size(given.edges, int(given.users), given.routers, given.balancers, given.lost, given.unit, given.seed)
    for found in _run(size, given.parts or list(PARTS)):
        print_figures(found, Console(width=_WIDTH))
        if given.save:
            given.save.mkdir(parents=True, exist_ok=True)
            found.save(given.save / f"{found.bench}.json")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    usual = Size()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which; all when none is named")
    parser.add_argument("--edges", type=int, default=usual.edges)
    parser.add_argument("--users", type=float, default=float(usual.users), help="online, for example 1e8")
    parser.add_argument("--routers", type=int, default=usual.routers)
    parser.add_argument("--balancers", type=int, default=usual.balancers)
    parser.add_argument("--lost", type=float, default=usual.lost, help="share of the edges that is lost at once")
    parser.add_argument("--unit", type=int, default=usual.unit, help="people for whom a simulated client stands")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the figures there as JSON")
    return parser.parse_args()


def _run(size: Size, wanted: list[str]) -> Iterator[Figures]:
    measured = parts.rosters(size) if {"router", "links"} & set(wanted) else {}
    made: dict[str, Callable[[], Figures]] = {
        "router": lambda: parts.router(size, measured),
        "balancer": lambda: parts.balancer(size),
        "links": lambda: parts.links(size, measured),
        "storm": lambda: parts.storms(size),
    }
    for part in wanted:
        yield made[part]()


if __name__ == "__main__":
    main()

"""`python -m tests.faults`: one fault after the other at a fleet of its own, a table of what came of it; status 1 when a promise
was broken. `--list` names the faults, `--only WORD` takes those whose name has it, `--without PROTECTION` takes a protection away,
to see that it is needed. A failure names its seed and keeps its history; `python -m tests.checker --judge FILE` judges it again.
"""

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.faults import plot, protections, table
from tests.faults.catalogue import Fault, catalogue
from tests.faults.stage import APART, WITHIN, Stage, open_stage
from tests.faults.surroundings import small_disk
from tests.faults.trial import Result, trial
from tests.system.living import draw_seed

_KEPT = Path("build/faults")
ALONE = re.compile("store$|stores|clock")
"""Faults that strike a store and not its router, or the way to it from others."""


async def run(arguments: argparse.Namespace, console: Console, disk: Path | None) -> list[Result]:
    """All faults asked for."""
    chosen = [one for one in catalogue() if not arguments.only or any(word in one.name for word in arguments.only)]
    if arguments.within:
        chosen = [one for one in chosen if not ALONE.search(one.name)]
    seed = arguments.seed or draw_seed()
    folder = _folder()
    console.print(f"seed {seed}; the fleet's logs are in {folder}", markup=False)
    counts, prepare = WITHIN if arguments.within else APART, protections.removing(arguments.without)
    async with open_stage(folder, random.Random(seed), counts, disk=disk, prepare=prepare) as stage:
        protections.tell_database(arguments.without, stage.postgres.url(stage.fleet.database.rpartition("/")[2]))
        table.heading(console)
        results = []
        for number, fault in enumerate(chosen * arguments.times):
            results.append(await _row(stage, fault, seed + number, console))
            table.merge(results[-1:], arguments.json, [one.name for one in catalogue()])
        return results


def _folder() -> Path:
    _KEPT.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="fleet-", dir=_KEPT))


async def _row(stage: Stage, fault: Fault, seed: int, console: Console) -> Result:
    with tempfile.TemporaryDirectory(prefix="tidings-faults-") as folder:
        result = await trial(stage, fault, seed, Path(folder))
    table.show(console, result)
    await stage.whole()
    return result


def main() -> int:
    """Run; gives the exit status."""
    arguments, console, began = _arguments(), Console(soft_wrap=True, highlight=False), time.monotonic()
    if arguments.list:
        for fault in catalogue():
            console.print(fault.name, markup=False)
        return 0
    with small_disk() as disk:
        results = asyncio.run(run(arguments, console, disk))
    if arguments.write:
        table.write_page(table.merge([], arguments.json, [fault.name for fault in catalogue()]))
        plot.draw()
    red = [one.fault for one in results if not one.holds and not one.not_here]
    console.print(f"{len(results)} faults in {time.monotonic() - began:.0f} s; {len(red)} red: {', '.join(red)}", markup=False)
    return 1 if red else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--only", action="append", metavar="WORD", help="only faults whose name has this; may be repeated")
    parser.add_argument("--times", type=int, default=1, help="how often each")
    parser.add_argument("--seed", type=int, default=0, help="of all intentions; else TIDINGS_SEED, else a new one")
    parser.add_argument("--without", choices=sorted(protections.PROTECTIONS), help="take this protection away")
    parser.add_argument("--within", action="store_true", help="stores in the routers' processes; no faults of stores alone")
    parser.add_argument("--json", type=Path, default=_KEPT / "results.json", help="where the newest result of each fault is kept")
    parser.add_argument("--write", action="store_true", help=f"write the table into {table.PAGE}, and the picture beside it")
    arguments = parser.parse_args()
    if arguments.within and (arguments.write or arguments.without):
        parser.error("--within goes neither with --write nor with --without: the table and the protections are of stores apart")
    return arguments


if __name__ == "__main__":
    sys.exit(main())

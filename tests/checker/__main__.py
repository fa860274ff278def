"""Judge a mesh that runs somewhere: `python -m tests.checker --url http://127.0.0.1:8080 --token-secret … --seconds 30 --seed 7`.

Runs the random workload through the SDK against that URL, then the checks over its history. Exit status 1 when a promise was
broken; the history is then kept. `--judge FILE` judges a history kept before.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from mesh.credentials import mint_token
from tests.checker.checks import judge
from tests.checker.history import Operation, load, save
from tests.checker.recorder import Recorder
from tests.checker.report import print_report
from tests.checker.workload import Plan, Workload

_SETTLE_SECONDS = 60.0
_TOKEN_SECONDS = 6 * 3600.0


async def run(arguments: argparse.Namespace) -> list[Operation]:
    """One run; gives its history."""
    recorder = Recorder(arguments.seed, arguments.url)
    second = arguments.clients // 5
    plan = Plan(arguments.clients, second, arguments.directs, arguments.groups, arguments.pause)

    def token(user: str) -> str:
        return mint_token(arguments.token_secret, user, time.time(), _TOKEN_SECONDS)

    with tempfile.TemporaryDirectory(prefix="tidings-checker-") as folder:
        workload = Workload(arguments.url, token, Path(folder), recorder, random.Random(arguments.seed), plan)
        async with workload.open():
            await workload.talk(arguments.seconds)
            await workload.settle(_SETTLE_SECONDS)
            await workload.read_back()
    return recorder.history


def main() -> int:
    """Run and judge, or only judge; gives the exit status."""
    arguments = _arguments()
    history = load(arguments.judge) if arguments.judge else asyncio.run(run(arguments))
    breaches = judge(history)
    print_report(history, breaches)
    if not arguments.judge and (breaches or arguments.keep):
        path = arguments.keep or Path(tempfile.gettempdir()) / f"tidings-history-{arguments.seed}.jsonl"
        save(history, path)
        sys.stderr.write(f"the history is in {path}; judge it again with --judge {path}\n")
    return 1 if breaches else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.checker", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the balancer's")
    parser.add_argument("--token-secret", default="", help="what the mesh's tokens are signed with")
    parser.add_argument("--clients", type=int, default=20, help="devices; a fifth of them are second devices")
    parser.add_argument("--directs", type=int, default=10, help="direct chats")
    parser.add_argument("--groups", type=int, default=3, help="groups")
    parser.add_argument("--pause", type=float, default=0.15, help="mean seconds between two actions of a device")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long they talk")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all intentions")
    parser.add_argument("--keep", type=Path, help="write the history here, also when all holds")
    parser.add_argument("--judge", type=Path, help="only judge this history")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""Judge a mesh that runs somewhere: `python -m tests.checker --url http://127.0.0.1:8080 --token-secret … --seconds 30 --seed 7`.

Runs the random workload of chat through the SDK against that URL, then the checks over its history; with `--notifications` that of
a business, through its own door (`--tags`, `--scheduler`, `--api-key`); with `--chat --notifications` both at once. Exit status 1
when a promise was broken, or somebody still waits in the end; the history is then kept. `--judge FILE` judges one kept before.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from mesh.credentials import mint_token
from tests.checker.history import load, save
from tests.checker.notification_workload import NotificationPlan, NotificationWorkload
from tests.checker.recorder import Recorder
from tests.checker.report import print_report
from tests.checker.verdict import judge
from tests.checker.workload import Plan, Workload
from tidings_client.business import SCHEDULER, TAGS, Business

_SETTLE_SECONDS = 60.0
_TOKEN_SECONDS = 6 * 3600.0


async def run(arguments: argparse.Namespace, recorder: Recorder) -> bool:
    """One run; False when not everything that is owed came in the end."""
    with tempfile.TemporaryDirectory(prefix="tidings-checker-") as folder:
        works = list(_works(arguments, Path(folder), recorder))
        async with AsyncExitStack() as stack:
            for one in works:
                await stack.enter_async_context(one.open())
            await asyncio.gather(*(one.work(arguments.seconds) for one in works))
            settled = await asyncio.gather(*(one.settle(_SETTLE_SECONDS) for one in works))
            await asyncio.gather(*(one.read_back() for one in works))
    return all(settled)


def _works(arguments: argparse.Namespace, folder: Path, recorder: Recorder) -> Iterator[Workload | NotificationWorkload]:
    def token(user: str) -> str:
        return mint_token(arguments.token_secret, user, time.time(), _TOKEN_SECONDS)

    def business() -> Business:
        return Business.connect(arguments.scheduler, arguments.tags, arguments.api_key)

    if arguments.chat or not arguments.notifications:
        second = arguments.clients // 5
        plan = Plan(arguments.clients, second, arguments.directs, arguments.groups, arguments.pause)
        yield Workload(arguments.url, token, folder, recorder, random.Random(arguments.seed), plan)
    if arguments.notifications:
        rng = random.Random(arguments.seed + 1)
        yield NotificationWorkload(arguments.url, token, folder, business, recorder, rng, NotificationPlan(users=arguments.users))


def main() -> int:
    """Run and judge, or only judge; gives the exit status."""
    arguments = _arguments()
    recorder, settled = Recorder(arguments.seed, arguments.url), True
    if not arguments.judge:
        settled = asyncio.run(run(arguments, recorder))
    history = load(arguments.judge) if arguments.judge else recorder.history
    breaches = judge(history)
    print_report(history, breaches)
    if not settled:
        sys.stderr.write(f"not everything that is owed came within {_SETTLE_SECONDS:.0f} s\n")
    if not arguments.judge and (breaches or not settled or arguments.keep):
        path = arguments.keep or Path(tempfile.gettempdir()) / f"tidings-history-{arguments.seed}.jsonl"
        save(history, path)
        sys.stderr.write(f"the history is in {path}; judge it again with --judge {path}\n")
    return 1 if breaches or not settled else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.checker", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the balancer's")
    parser.add_argument("--token-secret", default="", help="what the mesh's tokens are signed with")
    parser.add_argument("--chat", action="store_true", help="run the workload of chat also when --notifications is given")
    parser.add_argument("--notifications", action="store_true", help="run the workload of a business")
    parser.add_argument("--tags", default=TAGS, help="host:port of the tags' service")
    parser.add_argument("--scheduler", default=SCHEDULER, help="host:port of the scheduler")
    parser.add_argument("--api-key", default="", help="where these services ask for one")
    parser.add_argument("--users", type=int, default=16, help="users whom notifications go to; four of them have no device")
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

"""A crowd of clients that only stay connected: `python -m tests.faults.crowd`, with where and who on its standard input.

It says `all there` once they are, and when it is told anything more, how many came back in each second since.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack

from tidings_client import Client, ConnectionEvent, ConnectionState

_AT_ONCE = 20  # that connect at the same time in the beginning


class Crowd:
    """The clients, and when each came back."""

    def __init__(self) -> None:
        self._there: set[str] = set()
        self._began = 0.0
        self._came_back: Counter[int] = Counter()

    async def come(self, url: str, tokens: list[tuple[str, str]], stack: AsyncExitStack) -> None:
        """Connect all; from then on count."""
        room = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._come(url, user, token, stack, room) for user, token in tokens))
        self._began = time.monotonic()

    async def _come(self, url: str, user: str, token: str, stack: AsyncExitStack, room: asyncio.Semaphore) -> None:
        async with room:
            client = Client(url, token, user_id=user)
            client.on(ConnectionEvent, lambda event: self._on_change(event))
            await stack.enter_async_context(client)
            await client.caught_up(30.0)

    def _on_change(self, event: ConnectionEvent) -> None:
        if event.state is ConnectionState.CAUGHT_UP and self._began:
            self._came_back[int(time.monotonic() - self._began)] += 1

    def report(self) -> str:
        """Second -> how many came back in it."""
        return json.dumps({str(second): self._came_back[second] for second in range(max(self._came_back, default=0) + 1)})


async def main() -> None:
    """Come, wait to be told, report."""
    asked = json.loads(await asyncio.to_thread(sys.stdin.readline))
    crowd = Crowd()
    async with AsyncExitStack() as stack:
        await crowd.come(asked["url"], asked["tokens"], stack)
        sys.stdout.write("all there\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        sys.stdout.write(crowd.report() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())

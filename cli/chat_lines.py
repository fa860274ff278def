"""A conversation line by line, for scripts: a line in is a message, lines out have no escape codes.

    bob: hi                 someone said it (one's own messages come from history or another device this way too)
    ✓ hello                 one's own message is stored
    ✓✓ hello                it is on a device of every other member
    ✓✓ hello (read)         they have read it
    ✗ hello (why)           it was refused for good
    * bob is typing…        something passing

After the last line in, it ends once everything is stored.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError
from contextlib import suppress

from cli.conversation import Conversation
from cli.failure import CommandError
from cli.options import say
from cli.talk import Line, Talk
from tidings_client import OutboxFull, Status

STORE_SECONDS = 10.0  # to store what was said before the end of stdin
READ_BYTES = 65_536
KEPT_LINES = 20_000  # whose ticks are told; more than an outbox holds


class Lines:
    """A view on stdout."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def show(self, line: Line) -> None:
        """One's own message shows when it is stored."""
        if line.status is not Status.SENDING:
            say(f"{line.who}: {line.text}")

    def change(self, line: Line) -> None:
        """One line for each tick."""
        self.changed.set()
        why = {Status.READ: "read", Status.FAILED: line.error}.get(line.status or Status.SENT, "")
        say(f"{line.tick} {line.text}" + (f" ({why})" if why else ""))

    def notice(self, text: str) -> None:
        """Marked, so that a script can leave it out."""
        say(f"* {text}")

    def tell(self, text: str) -> None:
        """As a notice."""
        self.notice(text)


async def run(conversation: Conversation, talk: Talk, view: Lines) -> None:
    """Until stdin ends and everything is stored."""
    showing = asyncio.create_task(conversation.run())
    typing = asyncio.create_task(_send_lines(conversation, talk, view))
    try:
        await asyncio.wait({showing, typing}, return_when=asyncio.FIRST_COMPLETED)
        if showing.done():
            showing.result()
            return
        typing.result()
    finally:
        for task in (showing, typing):
            task.cancel()
        await asyncio.gather(showing, typing, return_exceptions=True)


async def _send_lines(conversation: Conversation, talk: Talk, view: Lines) -> None:
    async for text in _stdin():
        while not _sent(conversation, text):
            await _next_change(view)
        talk.settle(KEPT_LINES)
    with suppress(TimeoutError):
        async with asyncio.timeout(STORE_SECONDS):
            while talk.waiting():
                await _next_change(view)
    if waiting := talk.waiting():
        raise CommandError(f"{waiting} not stored yet", "what waits is kept, and goes out when this chat is opened again")


def _sent(conversation: Conversation, text: str) -> bool:
    """False when the outbox has no room."""
    try:
        conversation.send(text)
    except OutboxFull:
        return False
    return True


async def _next_change(view: Lines) -> None:
    view.changed.clear()
    await view.changed.wait()


async def _stdin() -> AsyncIterator[str]:
    """The lines of stdin that aren't empty."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)

    def give(line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()

    # A thread reads, for stdin may be a file, which an event loop can't wait for.
    threading.Thread(target=_read_lines, args=(sys.stdin.fileno(), give), daemon=True).start()
    while (line := await lines.get()) is not None:
        if line:
            yield line


def _read_lines(descriptor: int, give: Callable[[str | None], None]) -> None:
    """Give each line of a file, then None. Reads the descriptor itself: `sys.stdin` would keep the process from ending while it
    waits."""
    rest = b""
    with suppress(RuntimeError, CancelledError):  # the loop has gone
        while chunk := os.read(descriptor, READ_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                give(line.decode(errors="replace").rstrip("\r"))
        give(rest.decode(errors="replace"))
        give(None)

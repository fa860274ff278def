"""A conversation in a terminal. What was said scrolls up as in any shell; the last lines, whose ticks may still change, stand above
the input and are drawn anew; below it stands who types, who is there, and how the connection is.
"""

import asyncio
import shutil
from contextlib import suppress
from datetime import UTC, datetime

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.styles import Style

from cli.conversation import Conversation
from cli.talk import Line, Talk
from tidings_client import Status, TidingsClientError

LIVE_SHARE = 2  # live lines take at most one line in so many of the screen
LEAST_LIVE = 3
HELP = "/edit TEXT and /delete change your last message, /quit or Ctrl-D ends"
STYLE = Style.from_dict(
    {
        "when": "#888888",
        "me": "bold",
        "other": "bold ansigreen",
        "tick": "#888888",
        "read": "ansibrightblue",
        "failed": "ansired",
        "bottom-toolbar": "noreverse #888888",
        "notice": "italic #888888",
    }
)


class Screen:
    """A view on the terminal."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._told = HELP
        self._printing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.session: PromptSession[str] = PromptSession(
            self._prompt, bottom_toolbar=self._toolbar, style=STYLE, erase_when_done=True, complete_while_typing=False
        )

    def show(self, line: Line) -> None:
        """It stands among the live lines already."""
        self._draw()

    def change(self, line: Line) -> None:
        """Its tick is drawn anew."""
        self._draw()

    def notice(self, text: str) -> None:
        """The description below is drawn anew, and has it."""
        self._draw()

    def tell(self, text: str) -> None:
        """Shown below, until the next."""
        self._told = text
        self._draw()

    async def close(self) -> None:
        """Leave on the screen what was said."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _print(block(self._talk.settle(0), self._talk.me))

    def _draw(self) -> None:
        gone = self._talk.settle(_room())
        if gone:
            task = asyncio.create_task(self._scroll(gone))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.session.app.invalidate()

    async def _scroll(self, lines: list[Line]) -> None:
        """Print lines above the input, for good."""
        async with self._printing:
            text = block(lines, self._talk.me)
            await run_in_terminal(lambda: _print(text))

    def _prompt(self) -> StyleAndTextTuples:
        return [*block(self._talk.live, self._talk.me), ("", f"{self._talk.me}> ")]

    def _toolbar(self) -> StyleAndTextTuples:
        now = datetime.now(UTC)
        return [("class:bottom-toolbar", f" {self._talk.describe(now)}   {self._told}")]


def formatted(line: Line, me: str) -> StyleAndTextTuples:
    """A line in colours."""
    who = "class:me" if line.who == me else "class:other"
    parts: StyleAndTextTuples = [("class:when", line.when + " "), (who, line.who), ("", f": {line.text}")]
    if line.status is not None:
        style = {Status.READ: "class:read", Status.FAILED: "class:failed"}.get(line.status, "class:tick")
        parts.append((style, f"  {line.tick} {line.error}".rstrip()))
    return parts


def block(lines: list[Line], me: str) -> StyleAndTextTuples:
    """Lines in colours, each ended."""
    return [part for line in lines for part in [*formatted(line, me), ("", "\n")]]


def _print(text: StyleAndTextTuples) -> None:
    print_formatted_text(FormattedText(text), style=STYLE, end="")


def _room() -> int:
    return max(LEAST_LIVE, shutil.get_terminal_size().lines // LIVE_SHARE)


async def run(conversation: Conversation, screen: Screen) -> None:
    """Until the user ends it, or the client stops for good."""
    showing = asyncio.create_task(conversation.run())
    reading = asyncio.create_task(_read(conversation, screen))
    try:
        await asyncio.wait({showing, reading}, return_when=asyncio.FIRST_COMPLETED)
        (showing if showing.done() else reading).result()
    finally:
        for task in (showing, reading):
            task.cancel()
        await asyncio.gather(showing, reading, return_exceptions=True)
        await screen.close()


async def _read(conversation: Conversation, screen: Screen) -> None:
    screen.session.default_buffer.on_text_changed += lambda buffer: _on_key(conversation, buffer)
    with patch_stdout(), suppress(EOFError, KeyboardInterrupt):
        while True:
            text = (await screen.session.prompt_async()).strip()
            if text == "/quit":
                return
            try:
                await _obey(conversation, screen, text)
            except TidingsClientError as error:
                screen.tell(str(error))


def _on_key(conversation: Conversation, buffer: Buffer) -> None:
    if buffer.text and not buffer.text.startswith("/"):
        conversation.keep_typing()
    else:
        conversation.stop_typing()


async def _obey(conversation: Conversation, screen: Screen, text: str) -> None:
    command, _, rest = text.partition(" ")
    if command == "/edit" and rest.strip():
        await conversation.edit_last(rest.strip())
    elif command == "/delete" and not rest:
        await conversation.edit_last("")
    elif command.startswith("/"):
        screen.tell(HELP)
    elif text:
        conversation.send(text)

"""`tidings tail`: messages and notifications as they come, one line or one JSON object each. What came since the last tail comes
first.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.failure import CommandError
from cli.lines import notification_json, notification_line, to_json, to_line
from cli.options import DEFAULT_DATA, As, Data, Json, Secret, Url, note, say, say_json
from cli.place import Place
from cli.session import open_client
from tidings_client import Client, ConnectionEvent, Conversation, Kind, Message, Notification, TidingsClientError

One = Message | Notification
Show = Callable[[One], Awaitable[None]]

app = typer.Typer(rich_markup_mode="rich")


@app.command(epilog="Example: [bold]tidings tail --as bob --count 1 --json[/bold]")
def tail(
    user: As,
    count: Annotated[int | None, typer.Option("--count", help="End after so many messages.", min=1, metavar="N")] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="End after so many seconds; with --count, failing.", min=0.1, metavar="SECONDS"),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Which device this is: each goes on where it ended.", metavar="DEVICE")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Changes of groups' members, roles and names too.")] = False,
    as_json: Json = False,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """Print messages, edits, deletions and notifications as they come: first those since this device's last tail, then new ones."""

    async def work() -> int:
        async with open_client(Place(data), url, user, secret, "tail", device) as client:
            client.on(ConnectionEvent, _tell)
            show = _show_json if as_json else Shown(client, user).show
            return await _Printing(show, count, everything=everything).run(client, timeout)

    printed = asyncio.run(work())
    if count is not None and printed < count:
        raise CommandError(f"{printed} of {count} messages came within {timeout:g} s", "the next tail goes on from here")


class _Printing:
    """Prints until there was as much as was asked for.

    Args:
        count: how much; None for no end.
        everything: changes of groups too.
    """

    def __init__(self, show: Show, count: int | None, *, everything: bool) -> None:
        self._show = show
        self._count = count
        self._everything = everything
        self._turn = asyncio.Lock()
        self._printed = 0

    async def run(self, client: Client, timeout: float | None) -> int:
        """Print for `timeout` seconds at most; gives how many there were."""
        sources = [asyncio.create_task(self._print(one)) for one in (client.messages(), client.notifications())]
        try:
            done, _ = await asyncio.wait(sources, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for source in sources:
                source.cancel()
            await asyncio.gather(*sources, return_exceptions=True)
        for source in done:
            source.result()
        return self._printed

    async def _print(self, source: AsyncIterator[One]) -> None:
        async for one in source:
            if isinstance(one, Notification) or self._everything or one.kind is not Kind.MEMBERSHIP:
                async with self._turn:
                    if self._printed == self._count:
                        return
                    await self._show(one)
                    self._printed += 1
            if self._printed == self._count:
                return


async def _show_json(one: One) -> None:
    say_json(notification_json(one) if isinstance(one, Notification) else to_json(one))


class Shown:
    """Messages as lines for people, who know conversations by the other user or the group's name."""

    def __init__(self, client: Client, me: str) -> None:
        self._client = client
        self._me = me
        self._labels: dict[str, str] = {}

    async def show(self, message: One) -> None:
        """One line."""
        if isinstance(message, Notification):
            say(notification_line(message, datetime.now(UTC)))
            return
        if message.conversation_id not in self._labels:
            await self._learn(message.conversation_id)
        say(to_line(message, datetime.now(UTC), self._labels[message.conversation_id]))

    async def _learn(self, conversation_id: str) -> None:
        with suppress(TidingsClientError):
            self._labels |= {one.conversation_id: label(one, self._me) for one in await self._client.conversations()}
        self._labels.setdefault(conversation_id, conversation_id)


def label(conversation: Conversation, me: str) -> str:
    """What `me` calls a conversation: a group's name, the other user."""
    others = [member.user_id for member in conversation.members if member.user_id != me]
    return conversation.name or ", ".join(others) or conversation.conversation_id


def _tell(event: ConnectionEvent) -> None:
    if event.reason:
        note(f"{event.state.value}: {event.reason}")

"""`tidings tail`: messages as they come, one line or one JSON object each. What came since the last tail comes first."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.failure import CommandError
from cli.lines import to_json, to_line
from cli.options import DEFAULT_DATA, As, Data, Json, Secret, Url, note, say, say_json
from cli.place import Place
from cli.session import open_client
from tidings_client import Client, ConnectionEvent, Conversation, Kind, Message, TidingsClientError

Show = Callable[[Message], Awaitable[None]]

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
    """Print messages, edits and deletions as they come: first those since the last tail of this device, then new ones."""

    async def work() -> int:
        async with open_client(Place(data), url, user, secret, "tail", device) as client:
            client.on(ConnectionEvent, _tell)
            show = _show_json if as_json else Shown(client, user).show
            return await _print_messages(client, count, timeout, show, everything=everything)

    printed = asyncio.run(work())
    if count is not None and printed < count:
        raise CommandError(f"{printed} of {count} messages came within {timeout:g} s", "the next tail goes on from here")


async def _print_messages(client: Client, count: int | None, timeout: float | None, show: Show, *, everything: bool) -> int:
    """Print until there were `count` or `timeout` seconds passed; gives how many there were."""
    printed = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            async for message in client.messages():
                if everything or message.kind is not Kind.MEMBERSHIP:
                    await show(message)
                    printed += 1
                if printed == count:
                    break
    return printed


async def _show_json(message: Message) -> None:
    say_json(to_json(message))


class Shown:
    """Messages as lines for people, who know conversations by the other user or the group's name."""

    def __init__(self, client: Client, me: str) -> None:
        self._client = client
        self._me = me
        self._labels: dict[str, str] = {}

    async def show(self, message: Message) -> None:
        """One line."""
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

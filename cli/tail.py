"""`tidings tail`: messages as they come, one line or one JSON object each. What came since the last tail comes first."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.failure import CommandError
from cli.lines import to_json, to_line
from cli.options import DEFAULT_DATA, As, Data, Json, Secret, Url, note, say, say_json
from cli.place import Place
from cli.session import open_client
from tidings_client import Client, ConnectionEvent, Kind, Message

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
            return await _print_messages(client, count, timeout, everything=everything, as_json=as_json)

    printed = asyncio.run(work())
    if count is not None and printed < count:
        raise CommandError(f"{printed} of {count} messages came within {timeout:g} s", "the next tail goes on from here")


async def _print_messages(client: Client, count: int | None, timeout: float | None, *, everything: bool, as_json: bool) -> int:
    """Print until there were `count` or `timeout` seconds passed; gives how many there were."""
    printed = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            async for message in client.messages():
                if everything or message.kind is not Kind.MEMBERSHIP:
                    _print(message, as_json=as_json)
                    printed += 1
                if printed == count:
                    break
    return printed


def _print(message: Message, *, as_json: bool) -> None:
    if as_json:
        say_json(to_json(message))
    else:
        say(to_line(message, datetime.now(UTC), message.conversation_id))


def _tell(event: ConnectionEvent) -> None:
    if event.reason:
        note(f"{event.state.value}: {event.reason}")

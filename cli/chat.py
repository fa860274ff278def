"""`tidings chat`: a conversation in a terminal, or, when stdin is none, line by line in and out."""

import asyncio
import sys

import typer

from cli import chat_lines, chat_screen
from cli.api import UnavailableError, open_api
from cli.conversation import Conversation
from cli.options import DEFAULT_DATA, As, Data, Secret, Url, WhereArgument, note
from cli.place import Place
from cli.session import open_client
from cli.talk import Talk
from cli.where import Where, direct, find
from mesh import naming

LOOK_UP_SECONDS = 1.5  # to ask which group a name means; without an answer the conversation opens too

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog="Example: [bold]tidings chat --as alice bob[/bold] and, in another terminal, [bold]tidings chat --as bob alice[/bold]. "
    "One tick: stored. Two: on a device of theirs. Two in blue: read."
)
def chat(user: As, where: WhereArgument, url: Url = None, data: Data = DEFAULT_DATA, secret: Secret = None) -> None:
    """Talk with someone, or in a group. What you type while not connected goes out later."""
    asyncio.run(_chat(Place(data), user, where, url, secret))


async def _chat(place: Place, user: str, word: str, url: str | None, secret: str | None) -> None:
    target = await _find(place, user, word, url, secret)
    async with open_client(place, url, user, secret, "chat") as client:
        talk = Talk(user, target.label, target.conversation_id)
        if sys.stdin.isatty() and sys.stdout.isatty():
            screen = chat_screen.Screen(talk)
            await chat_screen.run(Conversation(client, talk, target, screen), screen)
        else:
            lines = chat_lines.Lines()
            await chat_lines.run(Conversation(client, talk, target, lines), talk, lines)


async def _find(place: Place, user: str, word: str, url: str | None, secret: str | None) -> Where:
    """The conversation; when nobody can be asked, a name means what it meant before, else a user."""
    base = place.url(url)
    try:
        async with open_api(place, url, user, secret, LOOK_UP_SECONDS) as api:
            found = await find(api, user, word)
    except UnavailableError as error:
        note(str(error))
        return _recall(place, user, base, word)
    if not found.other:
        place.remember(user, base, word, found.conversation_id)
    return found


def _recall(place: Place, user: str, base: str, word: str) -> Where:
    known = word if naming.CONVERSATION_ID.fullmatch(word) else place.recall(user, base, word)
    return Where(known, word) if known else direct(user, word.removeprefix("user:"))

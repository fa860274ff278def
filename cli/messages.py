"""`tidings send` and `tidings history`: a message stored, and what was stored."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
import uuid_utils

from cli.api import Api, RefusedError, open_api
from cli.failure import CommandError
from cli.lines import to_json, to_line, utc
from cli.options import DEFAULT_DATA, As, Data, Json, Secret, Timeout, Url, WhereArgument, note, say, say_json
from cli.place import Place
from cli.where import Where, find
from tidings.client.v1 import http_pb2
from tidings.client.v1.frames_pb2 import MessagePage, MessageStored
from tidings.common.v1 import conversation_pb2, error_pb2
from tidings.common.v1.content_pb2 import Content, Text
from tidings_client import Message
from tidings_client.model import message_of

PAGE = 100

app = typer.Typer(rich_markup_mode="rich")


@app.command(epilog='Example: [bold]tidings send --as alice bob "See you at ten"[/bold]')
def send(
    user: As,
    where: WhereArgument,
    text: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.", metavar="TEXT")],
    client_msg_id: Annotated[
        str, typer.Option("--client-msg-id", help="Your own id for it: the same one is never stored twice.", metavar="ID")
    ] = "",
    as_json: Json = False,
    timeout: Timeout = 10,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """Send one message. Prints its id and seq, and exits with 0, once it is stored."""
    said = sys.stdin.read().removesuffix("\n") if text == "-" else text
    if not said:
        raise CommandError("there is nothing to send", 'give a text: tidings send --as alice bob "hello"')
    content = Content(text=Text(text=said))

    async def work() -> MessageStored:
        async with open_api(Place(data), url, user, secret, timeout) as api:
            return await post(api, user, where, content, client_msg_id or str(uuid_utils.uuid7()))

    stored = asyncio.run(work())
    if as_json:
        say_json(_stored_json(stored))
    else:
        say(f"stored {stored.message_id} (seq {stored.seq})")


async def post(api: Api, user: str, word: str, content: Content, client_msg_id: str) -> MessageStored:
    """Send into the conversation that `word` names; a direct one comes into being."""
    target = await find(api, user, word)
    await ensure(api, target)
    body = http_pb2.PostMessageRequest(client_msg_id=client_msg_id, content=content)
    return await api.call("POST", f"/api/v1/chats/{target.conversation_id}/messages", MessageStored, body)


async def ensure(api: Api, target: Where) -> None:
    """Have a direct conversation exist."""
    if target.other:
        body = http_pb2.CreateChatRequest(kind=conversation_pb2.CONVERSATION_KIND_DIRECT, member_ids=[target.other])
        await api.call("POST", "/api/v1/chats", http_pb2.Chat, body)


def _stored_json(stored: MessageStored) -> dict[str, Any]:
    return {
        "message_id": stored.message_id,
        "conversation_id": stored.conversation_id,
        "seq": stored.seq,
        "client_msg_id": stored.client_msg_id,
        "time": utc(stored.store_time.ToDatetime(UTC)),
    }


@app.command(epilog="Example: [bold]tidings history --as bob alice --limit 20[/bold]")
def history(
    user: As,
    where: WhereArgument,
    limit: Annotated[int, typer.Option("--limit", help="At most so many, the newest of them.", min=1)] = 50,
    before: Annotated[int, typer.Option("--before", help="Only what has a lower seq; 0: from the end.", min=0, metavar="SEQ")] = 0,
    as_json: Json = False,
    timeout: Timeout = 10,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """Print what was said, oldest first; with --json one object a line."""

    async def work() -> list[Message]:
        async with open_api(Place(data), url, user, secret, timeout) as api:
            target = await find(api, user, where)
            try:
                return await read(api, target.conversation_id, limit, before)
            except RefusedError as error:
                if target.other and error.code == error_pb2.ERROR_CODE_INVALID_CHAT_ID:
                    note(f"{user} and {target.other} have said nothing yet")
                    return []
                raise

    now = datetime.now(UTC)
    for entry in asyncio.run(work()):
        if as_json:
            say_json(to_json(entry))
        else:
            say(f"{entry.seq:>4}  {to_line(entry, now)}")


async def read(api: Api, conversation_id: str, limit: int, before: int = 0) -> list[Message]:
    """The newest `limit` entries with a seq below `before` (0: the newest of all), oldest first."""
    found: list[Message] = []
    while len(found) < limit:
        query = {"limit": str(min(PAGE, limit - len(found)))} | ({"before": str(before)} if before else {})
        page = await api.call("GET", f"/api/v1/chats/{conversation_id}/messages", MessagePage, query=query)
        found[:0] = [message_of(entry) for entry in page.entries]
        if not page.entries or not page.has_more:
            break
        before = page.entries[0].seq
    return found

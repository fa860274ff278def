"""`tidings group …`: groups and their members."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import typer
import uuid_utils

from cli.api import Api, open_api
from cli.failure import CommandError
from cli.lines import role
from cli.options import DEFAULT_DATA, As, Data, Json, Secret, Timeout, Url, say, say_json
from cli.place import Place
from cli.where import conversations, find
from tidings.client.v1 import http_pb2
from tidings.common.v1 import conversation_pb2
from tidings.common.v1.conversation_pb2 import Conversation

R = TypeVar("R")

app = typer.Typer(
    rich_markup_mode="rich",
    no_args_is_help=True,
    help="Make groups and change them.",
    epilog="Example: [bold]tidings group create --as alice team bob carol[/bold]",
)

Group = Annotated[str, typer.Argument(help="The group, by name or id.", metavar="GROUP")]
Members = Annotated[list[str], typer.Argument(help="Whom.", metavar="USER…")]


class RoleName(StrEnum):
    """What a member may do; see `Role` in proto/tidings/common/v1/conversation.proto."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


@app.command(epilog="Example: [bold]tidings group create --as alice team bob carol[/bold]")
def create(
    user: As,
    name: Annotated[str, typer.Argument(help="Its name, 1-128 characters.", metavar="NAME")],
    members: Annotated[list[str], typer.Argument(help="Its first members besides you.", metavar="MEMBER…")] = [],  # noqa: B006  (read only)
    as_json: Json = False,
    timeout: Timeout = 10,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """Make a group; you are its owner. Prints its id."""
    body = http_pb2.CreateChatRequest(
        request_id=str(uuid_utils.uuid7()), kind=conversation_pb2.CONVERSATION_KIND_GROUP, member_ids=members, name=name
    )

    async def work(api: Api) -> Conversation:
        return (await api.call("POST", "/api/v1/chats", http_pb2.Chat, body)).conversation

    made = _run(work, Place(data), url, user, secret, timeout)
    _show(made, f"created {made.name!r}: {made.conversation_id}", as_json=as_json)


@app.command(epilog="Example: [bold]tidings group add --as alice team dave --role admin[/bold]")
def add(
    user: As,
    group: Group,
    members: Members,
    given: Annotated[RoleName | None, typer.Option("--role", help="What they may do; also changes the role of a member.")] = None,
    as_json: Json = False,
    timeout: Timeout = 10,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """Add members, or change their role."""
    wanted = conversation_pb2.Role.Value(f"ROLE_{given.name}") if given else conversation_pb2.ROLE_UNSPECIFIED

    async def work(api: Api) -> Conversation:
        path = await _path(api, user, group)
        for member in members:
            body = http_pb2.PutMemberRequest(role=wanted)
            changed = await api.call("PUT", f"{path}/members/{quote(member, safe='')}", http_pb2.Chat, body)
        return changed.conversation

    after = _run(work, Place(data), url, user, secret, timeout)
    _show(after, f"{after.name!r} now has {len(after.members)} members", as_json=as_json)


@app.command(epilog="Example: [bold]tidings group remove --as alice team dave[/bold]")
def remove(
    user: As,
    group: Group,
    members: Members,
    as_json: Json = False,
    timeout: Timeout = 10,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """Remove members."""

    async def work(api: Api) -> Conversation:
        path = await _path(api, user, group)
        for member in members:
            changed = await api.call("DELETE", f"{path}/members/{quote(member, safe='')}", http_pb2.Chat)
        return changed.conversation

    after = _run(work, Place(data), url, user, secret, timeout)
    _show(after, f"{after.name!r} now has {len(after.members)} members", as_json=as_json)


@app.command(epilog="Example: [bold]tidings group leave --as bob team[/bold]")
def leave(
    user: As,
    group: Group,
    as_json: Json = False,
    timeout: Timeout = 10,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """Leave a group."""

    async def work(api: Api) -> Conversation:
        path = await _path(api, user, group)
        return (await api.call("DELETE", f"{path}/members/{quote(user, safe='')}", http_pb2.Chat)).conversation

    after = _run(work, Place(data), url, user, secret, timeout)
    _show(after, f"left {group}", as_json=as_json)


@app.command(epilog='Example: [bold]tidings group rename --as alice team "The team"[/bold]')
def rename(
    user: As,
    group: Group,
    name: Annotated[str, typer.Argument(help="Its new name, 1-128 characters.", metavar="NAME")],
    as_json: Json = False,
    timeout: Timeout = 10,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """Give a group another name."""
    if not name:
        raise CommandError("a group needs a name", "give one of 1-128 characters")

    async def work(api: Api) -> Conversation:
        body = http_pb2.UpdateChatRequest(name=name)
        return (await api.call("PATCH", await _path(api, user, group), http_pb2.Chat, body)).conversation

    after = _run(work, Place(data), url, user, secret, timeout)
    _show(after, f"{group} is now {after.name!r}", as_json=as_json)


@app.command("list", epilog="Example: [bold]tidings group list --as alice[/bold]")
def list_groups(
    user: As,
    as_json: Json = False,
    timeout: Timeout = 10,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """List your groups, the most recently active first."""
    mine = _run(conversations, Place(data), url, user, secret, timeout)
    for group in mine:
        if group.kind == conversation_pb2.CONVERSATION_KIND_GROUP:
            members = ", ".join(member.user_id for member in group.members)
            _show(group, f"{group.conversation_id}  {group.name}  ({members})", as_json=as_json)


def _run(work: Callable[[Api], Awaitable[R]], place: Place, url: str | None, user: str, secret: str | None, timeout: float) -> R:
    async def run() -> R:
        async with open_api(place, url, user, secret, timeout) as api:
            return await work(api)

    return asyncio.run(run())


async def _path(api: Api, user: str, group: str) -> str:
    return f"/api/v1/chats/{(await find(api, user, group)).conversation_id}"


def _show(group: Conversation, text: str, *, as_json: bool) -> None:
    if as_json:
        say_json(to_json(group))
    else:
        say(text)


def to_json(group: Conversation) -> dict[str, Any]:
    """A group as `--json` prints it."""
    members = [{"user_id": member.user_id, "role": role(member.role)} for member in group.members]
    return {"conversation_id": group.conversation_id, "name": group.name, "last_seq": group.last_seq, "members": members}

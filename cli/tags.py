"""`tidings tag …`: tags, who has them, and whom an expression means."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cli import tag_import
from cli.business import ApiKey, Door, Tags
from cli.failure import CommandError
from cli.lines import plain
from cli.options import DEFAULT_DATA, Data, Json, note, say, say_json
from tidings.tag.v1 import audience_pb2, tag_pb2
from tidings_client.business import Business, new_request_id

PAGE = 1_000

app = typer.Typer(
    rich_markup_mode="rich",
    no_args_is_help=True,
    help="Tag people, and see whom an expression means.",
    epilog="Example: [bold]tidings tag import people.csv[/bold], then [bold]tidings tag count 'vip + (beta & !churned)'[/bold]",
)

Name = Annotated[str, typer.Argument(help="Its name.", metavar="NAME")]
Expression = Annotated[
    str, typer.Argument(help="Whom: tags joined by + (or), & (and), - (but not), ! (not), ( ).", metavar="EXPRESSION")
]
Description = Annotated[str, typer.Option("--description", help="What it is, for people.", metavar="TEXT")]
Attributes = Annotated[list[str], typer.Option("--attribute", help="Your own key=value; several times.", metavar="KEY=VALUE")]
Force = Annotated[bool, typer.Option("--force", help="Whatever still names it.")]
At = Annotated[int, typer.Option("--version", help="In this snapshot; 0 is the newest.", min=0, max=2**63, metavar="VERSION")]
User = Annotated[str, typer.Argument(help="The user.", metavar="USER")]
TagNames = Annotated[list[str], typer.Argument(help="Which tags.", metavar="TAG…")]


@app.command(epilog="Example: [bold]tidings tag create vip --description 'Spends much'[/bold]")
def create(
    name: Name,
    description: Description = "",
    attributes: Attributes = [],  # noqa: B006  (read only)
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    tags: Tags = None,
    api_key: ApiKey = None,
) -> None:
    """Create a tag."""
    request = tag_pb2.CreateTagRequest(
        request_id=new_request_id(), name=name, description=description, attributes=_attributes(attributes)
    )

    async def work(business: Business) -> tag_pb2.Tag:
        return (await business.tags.CreateTag(request)).tag

    made = Door(data, tags, api_key=api_key).run(work)
    _show(_tag(made), f"created {made.name}", as_json=as_json)


@app.command("list", epilog="Example: [bold]tidings tag list[/bold]")
def list_tags(
    prefix: Annotated[str, typer.Option("--prefix", help="Only names that begin so.", metavar="TEXT")] = "",
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    tags: Tags = None,
    api_key: ApiKey = None,
) -> None:
    """List tags, aliases and combinations."""
    for line in Door(data, tags, api_key=api_key).run(lambda business: _listing(business, prefix)):
        _show(line, _listed(line), as_json=as_json)


async def _listing(business: Business, prefix: str) -> list[dict[str, Any]]:
    return [*await _tags(business, prefix), *await _aliases(business, prefix), *await _combinations(business, prefix)]


async def _tags(business: Business, prefix: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = await business.tags.ListTags(tag_pb2.ListTagsRequest(prefix=prefix, page_size=PAGE, page_token=token))
        found += [_tag(tag) for tag in page.tags]
        if not (token := page.next_page_token):
            return found


async def _aliases(business: Business, prefix: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = await business.tags.ListAliases(tag_pb2.ListAliasesRequest(page_size=PAGE, page_token=token))
        found += [{"alias": one.name, "target": one.target} for one in page.aliases if one.name.startswith(prefix)]
        if not (token := page.next_page_token):
            return found


async def _combinations(business: Business, prefix: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = await business.tags.ListCombinations(tag_pb2.ListCombinationsRequest(page_size=PAGE, page_token=token))
        found += [_combination(one) for one in page.combinations if one.name.startswith(prefix)]
        if not (token := page.next_page_token):
            return found


def _listed(line: dict[str, Any]) -> str:
    if "alias" in line:
        return f"@{line['alias']} = {line['target']}"
    if "combination" in line:
        return plain(f"{line['combination']} = {line['expression']}{_described(line)}")
    return plain(f"{line['tag']}  {line['member_count']:,}{_described(line)}")


def _described(line: dict[str, Any]) -> str:
    return f"  ({line['description']})" if line["description"] else ""


@app.command(epilog="Example: [bold]tidings tag delete vip[/bold]")
def delete(name: Name, force: Force = False, data: Data = DEFAULT_DATA, tags: Tags = None, api_key: ApiKey = None) -> None:
    """Delete a tag, a combination, or an alias (@name)."""
    request_id = new_request_id()

    async def work(business: Business) -> None:
        if name.startswith("@"):
            alias = tag_pb2.DeleteAliasRequest(request_id=request_id, name=name.removeprefix("@"), force=force)
            await business.tags.DeleteAlias(alias)
        elif any(one["combination"] == name for one in await _combinations(business, name)):
            await business.tags.DeleteCombination(tag_pb2.DeleteCombinationRequest(request_id=request_id, name=name, force=force))
        else:
            await business.tags.DeleteTag(tag_pb2.DeleteTagRequest(request_id=request_id, name=name, force=force))

    Door(data, tags, api_key=api_key).run(work)
    say(f"deleted {name}")


@app.command(epilog="Example: [bold]tidings tag alias best vip[/bold], then use [bold]@best[/bold]")
def alias(
    name: Name,
    target: Annotated[str, typer.Argument(help="The tag or combination it stands for.", metavar="TARGET")],
    data: Data = DEFAULT_DATA,
    tags: Tags = None,
    api_key: ApiKey = None,
) -> None:
    """Give a tag or combination another name, or move that name."""
    request = tag_pb2.PutAliasRequest(request_id=new_request_id(), name=name.removeprefix("@"), target=target)

    async def work(business: Business) -> tag_pb2.Alias:
        return (await business.tags.PutAlias(request)).alias

    made = Door(data, tags, api_key=api_key).run(work)
    say(f"@{made.name} = {made.target}")


@app.command(epilog="Example: [bold]tidings tag combine core 'vip + (beta & !churned)'[/bold], then use [bold]core[/bold]")
def combine(
    name: Name,
    expression: Expression,
    description: Description = "",
    data: Data = DEFAULT_DATA,
    tags: Tags = None,
    api_key: ApiKey = None,
) -> None:
    """Save an expression under a name."""
    request = tag_pb2.PutCombinationRequest(request_id=new_request_id(), name=name, expression=expression, description=description)

    async def work(business: Business) -> tag_pb2.Combination:
        return (await business.tags.PutCombination(request)).combination

    made = Door(data, tags, api_key=api_key).run(work)
    say(f"{made.name} = {made.expression}")


@app.command(epilog="Example: [bold]tidings tag add alice vip beta[/bold]")
def add(user: User, names: TagNames, data: Data = DEFAULT_DATA, tags: Tags = None, api_key: ApiKey = None) -> None:
    """Give a user tags; tags that don't exist are created."""
    change = tag_pb2.UserChange(user_id=user, add_tags=names)
    _apply(Door(data, tags, api_key=api_key), tag_pb2.ApplyMappingRequest(users=[change], create_tags=True))
    say(f"{user} has {', '.join(names)}")


@app.command(epilog="Example: [bold]tidings tag remove alice beta[/bold]")
def remove(user: User, names: TagNames, data: Data = DEFAULT_DATA, tags: Tags = None, api_key: ApiKey = None) -> None:
    """Take tags from a user."""
    change = tag_pb2.UserChange(user_id=user, remove_tags=names)
    _apply(Door(data, tags, api_key=api_key), tag_pb2.ApplyMappingRequest(users=[change]))
    say(f"{user} has {', '.join(names)} no more")


def _apply(door: Door, request: tag_pb2.ApplyMappingRequest) -> None:
    async def work(business: Business) -> None:
        async for _ in business.tags.ApplyMapping(iter([request])):
            pass

    door.run(work)


@app.command("of", epilog="Example: [bold]tidings tag of alice[/bold]")
def tags_of(user: User, as_json: Json = False, data: Data = DEFAULT_DATA, tags: Tags = None, api_key: ApiKey = None) -> None:
    """List a user's tags."""

    async def work(business: Business) -> list[str]:
        return list((await business.tags.ListUserTags(tag_pb2.ListUserTagsRequest(user_id=user))).tags)

    for name in Door(data, tags, api_key=api_key).run(work):
        _show({"tag": name}, name, as_json=as_json)


@app.command("import", epilog="Example: [bold]tidings tag import people.csv[/bold], a file that begins with user_id,tag")
def import_file(
    file: Annotated[Path, typer.Argument(help="CSV: user_id and tag, or tags, or a column for each tag.", metavar="FILE")],
    removing: Annotated[bool, typer.Option("--remove", help="Take these tags away instead.")] = False,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    tags: Tags = None,
    api_key: ApiKey = None,
) -> None:
    """Give (or take) tags by a CSV file; tags and users that don't exist are created. Doing it again is harmless."""
    columns = TextColumn("{task.description}"), BarColumn(pulse_style="cyan"), TextColumn("{task.completed:,.0f} memberships")
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("importing", total=None)
        done = Door(data, tags, api_key=api_key).run(
            lambda business: tag_import.send(business, file, lambda count: bar.update(task, completed=count), remove=removing)
        )
    if not done.rows:
        raise CommandError(f"{file} has no rows below its first", "put one line for each user there")
    what = {"rows": done.rows, "memberships": done.memberships, "version": done.version}
    _show(what, f"{done.memberships:,} memberships from {done.rows:,} rows, in snapshot {done.version}", as_json=as_json)


@app.command(epilog="Example: [bold]tidings tag count 'vip + (beta & !churned)'[/bold]")
def count(
    expression: Expression,
    version: At = 0,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    tags: Tags = None,
    api_key: ApiKey = None,
) -> None:
    """Count whom an expression means, and each of its parts."""
    request = audience_pb2.CountExpressionRequest(expression=expression, version=version)

    async def work(business: Business) -> audience_pb2.CountExpressionResponse:
        return await business.audience.CountExpression(request)

    found = Door(data, tags, api_key=api_key).run(work)
    if as_json:
        say_json(
            {
                "count": found.count,
                "known_clients": found.known_clients,
                "version": found.version,
                "canonical": found.canonical_expression,
                "tree": _tree(found.root),
            }
        )
        return
    for line in _branches(found.root):
        say(line)
    note(f"of {found.known_clients:,} clients known, in snapshot {found.version}; canonical: {found.canonical_expression}")


def _branches(node: audience_pb2.ExpressionNode, depth: int = 0) -> Iterator[str]:
    yield f"{node.count:>12,}  {'  ' * depth}{node.text}"
    for operand in node.operands:
        yield from _branches(operand, depth + 1)


def _tree(node: audience_pb2.ExpressionNode) -> dict[str, Any]:
    return {"text": node.text, "kind": node.kind, "count": node.count, "operands": [_tree(one) for one in node.operands]}


@app.command(epilog="Example: [bold]tidings tag expand 'vip & beta'[/bold]")
def expand(
    expression: Expression,
    version: At = 0,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    tags: Tags = None,
    api_key: ApiKey = None,
) -> None:
    """Print whom an expression means, one user a line."""

    async def work(business: Business) -> None:
        token = ""
        while True:
            request = audience_pb2.ListAudienceRequest(expression=expression, version=version, page_size=PAGE, page_token=token)
            page = await business.audience.ListAudience(request)
            for user in page.user_ids:
                _show({"user_id": user}, user, as_json=as_json)
            if not (token := page.next_page_token):
                note(f"{page.count:,} in snapshot {page.version}")
                return

    Door(data, tags, api_key=api_key).run(work)


@app.command(epilog="Example: [bold]tidings tag explain alice 'vip + (beta & !churned)'[/bold]")
def explain(
    user: User,
    expression: Expression,
    version: At = 0,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    tags: Tags = None,
    api_key: ApiKey = None,
) -> None:
    """Say whether an expression means a user, and why."""
    request = audience_pb2.ExplainUserRequest(user_id=user, expression=expression, version=version)

    async def work(business: Business) -> audience_pb2.ExplainUserResponse:
        return await business.audience.ExplainUser(request)

    found = Door(data, tags, api_key=api_key).run(work)
    answer = {"user_id": user, "included": found.included, "explanation": found.explanation, "version": found.version}
    _show(answer, f"{user} is {found.explanation}", as_json=as_json)


def _attributes(words: list[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise CommandError(f"--attribute {key!r} has no value", "write KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _tag(tag: tag_pb2.Tag) -> dict[str, Any]:
    return {
        "tag": tag.name,
        "description": tag.description,
        "attributes": dict(tag.attributes),
        "member_count": tag.member_count,
        "revision": tag.revision,
    }


def _combination(one: tag_pb2.Combination) -> dict[str, Any]:
    return {"combination": one.name, "expression": one.expression, "description": one.description, "revision": one.revision}


def _show(value: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        say_json(value)
    else:
        say(text)

"""Reading who has which tag from CSV, and sending it to the tags' service in chunks.

The first row names the columns. One is `user_id` (or `user`). Then either a column `tag` (one membership a row), or `tags`
(several, separated by `;` or `|`), or a column for each tag with 1, yes, true or x where the user has it.
"""

import csv
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.failure import CommandError
from tidings.tag.v1.tag_pb2 import ApplyMappingRequest, TagChange
from tidings_client.business import Business

CHUNK = 50_000  # memberships in one request: half of what is allowed
_USER_COLUMNS = ("user_id", "user")
_YES = {"1", "yes", "true", "x", "y"}
_NO = {"", "0", "no", "false", "n"}
Row = tuple[str, list[str]]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to."""

    rows: int
    memberships: int
    version: int


def rows(path: Path) -> Iterator[Row]:
    """User and tags of each row.

    Raises:
        CommandError: the file can't be read, or a row isn't as the first one says; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            read = _reader(path, [name.strip() for name in next(reader, [])])
            for row in reader:
                if row:
                    yield read(row, reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"can't read {path} ({error})", "give a CSV file in UTF-8 whose first row names its columns") from error


def _reader(path: Path, header: list[str]) -> Callable[[list[str], int], Row]:
    lower = [name.lower() for name in header]
    user = next((lower.index(name) for name in _USER_COLUMNS if name in lower), None)
    if user is None:
        raise CommandError(f"{path}: no column is named user_id", "name the columns in the first row: user_id,tag for example")
    if "tag" in lower or "tags" in lower:
        pick = _from_list(lower.index("tag" if "tag" in lower else "tags"), several="tags" in lower)
    else:
        pick = _from_flags(path, [(index, name) for index, name in enumerate(header) if index != user])

    def read(row: list[str], line: int) -> Row:
        if len(row) != len(header):
            raise CommandError(f"{path}, line {line}: {len(row)} columns, the first row has {len(header)}", "mend that line")
        return row[user].strip(), pick(row, line)

    return read


def _from_list(column: int, *, several: bool) -> Callable[[list[str], int], list[str]]:
    def pick(row: list[str], _: int) -> list[str]:
        texts = row[column].replace("|", ";").split(";") if several else [row[column]]
        return [text.strip() for text in texts if text.strip()]

    return pick


def _from_flags(path: Path, columns: list[tuple[int, str]]) -> Callable[[list[str], int], list[str]]:
    def pick(row: list[str], line: int) -> list[str]:
        found = []
        for index, name in columns:
            text = row[index].strip().lower()
            if text not in _YES | _NO:
                raise CommandError(f"{path}, line {line}, column {name!r}: {row[index]!r} is neither yes nor no", "write 1 or 0")
            if text in _YES:
                found.append(name)
        return found

    return pick


def chunks(source: Iterator[Row], remove: bool = False) -> Iterator[tuple[int, int, ApplyMappingRequest]]:
    """(rows, memberships, request) with at most CHUNK memberships each, unless one row alone has more."""
    users: dict[str, list[str]] = {}
    count = memberships = 0
    for user, tags in source:
        if memberships and memberships + len(tags) > CHUNK:
            yield count, memberships, _request(users, remove)
            users, count, memberships = {}, 0, 0
        for tag in tags:
            users.setdefault(tag, []).append(user)
        count, memberships = count + 1, memberships + len(tags)
    if count:
        yield count, memberships, _request(users, remove)


def _request(users: dict[str, list[str]], remove: bool) -> ApplyMappingRequest:
    if remove:
        return ApplyMappingRequest(tags=[TagChange(tag=tag, remove_user_ids=ids) for tag, ids in users.items()])
    return ApplyMappingRequest(tags=[TagChange(tag=tag, add_user_ids=ids) for tag, ids in users.items()], create_tags=True)


async def send(business: Business, path: Path, progress: Callable[[int], None], *, remove: bool = False) -> Imported:
    """Import a file.

    Args:
        progress: told the memberships that have become durable so far.
    """
    sent: list[tuple[int, int]] = []

    async def requests() -> AsyncIterator[ApplyMappingRequest]:
        for count, memberships, request in chunks(rows(path), remove):
            sent.append((count, memberships))
            yield request

    done = Imported(0, 0, 0)
    async for answer in business.tags.ApplyMapping(requests()):
        counted = sent[: answer.chunks]
        done = Imported(sum(one for one, _ in counted), sum(one for _, one in counted), answer.version)
        progress(done.memberships)
    return done

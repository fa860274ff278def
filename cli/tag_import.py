"""Reading who has which tag from CSV, and sending it to the tags' service in chunks.

The first row names the columns. One is `user_id` (or `user`). Then either a column `tag` (one membership a row), or `tags`
(several, separated by `;` or `|`), or a column for each tag with 1, yes, true or x where the user has it.
"""

import csv
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.failure import CommandError
from mesh import naming
from tagset import names
from tidings.tag.v1.tag_pb2 import ApplyMappingRequest, TagChange
from tidings_client.business import Business

CHUNK = 50_000  # memberships in one request: half of what is allowed
CHUNK_BYTES = 2 * 1024 * 1024  # of user ids in it: likewise
CHUNK_TAGS = 1_000  # different ones in it: as many as are allowed
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
    hint = "name the columns in the first row: user_id,tag for example"
    if user is None:
        raise CommandError(f"{path}: no column is named user_id", hint)
    if len(set(lower)) < len(lower) or "" in lower:
        raise CommandError(f"{path}: two columns have the same name, or one has none", hint)
    if "tag" in lower or "tags" in lower:
        pick = _from_list(lower.index("tag" if "tag" in lower else "tags"), several="tags" in lower)
    else:
        pick = _from_flags(path, [(index, name) for index, name in enumerate(header) if index != user])

    def read(row: list[str], line: int) -> Row:
        if len(row) != len(header):
            raise CommandError(f"{path}, line {line}: {len(row)} columns, the first row has {len(header)}", "mend that line")
        found = row[user].strip(), pick(row, line)
        _check(path, line, *found)
        return found

    return read


def _check(path: Path, line: int, user: str, tags: list[str]) -> None:
    if not naming.USER_ID.fullmatch(user):
        raise CommandError(f"{path}, line {line}: {user!r} is not a user id", "one is 1-128 characters of A-Z a-z 0-9 . _ @ + -")
    for tag in tags:
        if fault := names.fault(tag):
            raise CommandError(f"{path}, line {line}: {tag!r} can't be a tag", fault[1])


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


class _Chunk:
    """Rows that go together in one request."""

    def __init__(self) -> None:
        self.rows = self.memberships = self._bytes = 0
        self.users: dict[str, list[str]] = {}

    def has_room(self, user: str, tags: list[str]) -> bool:
        """Whether a row fits; into an empty one any does."""
        memberships, size = self.memberships + len(tags), self._bytes + len(user) * len(tags)
        different = len(self.users) + len(set(tags) - self.users.keys())
        return not self.rows or (memberships <= CHUNK and size <= CHUNK_BYTES and different <= CHUNK_TAGS)

    def add(self, user: str, tags: list[str]) -> None:
        """Put a row in."""
        for tag in tags:
            self.users.setdefault(tag, []).append(user)
        self.rows += 1
        self.memberships += len(tags)
        self._bytes += len(user) * len(tags)

    def request(self, *, remove: bool) -> ApplyMappingRequest:
        """As the service takes it."""
        if remove:
            return ApplyMappingRequest(tags=[TagChange(tag=tag, remove_user_ids=ids) for tag, ids in self.users.items()])
        changes = [TagChange(tag=tag, add_user_ids=ids) for tag, ids in self.users.items()]
        return ApplyMappingRequest(tags=changes, create_tags=True)


def chunks(source: Iterator[Row], *, remove: bool = False) -> Iterator[tuple[int, int, ApplyMappingRequest]]:
    """(rows, memberships, request), each as large as the service takes at most, unless one row alone is larger."""
    chunk = _Chunk()
    for user, tags in source:
        if not chunk.has_room(user, tags):
            yield chunk.rows, chunk.memberships, chunk.request(remove=remove)
            chunk = _Chunk()
        chunk.add(user, tags)
    if chunk.memberships:
        yield chunk.rows, chunk.memberships, chunk.request(remove=remove)


async def send(business: Business, path: Path, progress: Callable[[int], None], *, remove: bool = False) -> Imported:
    """Import a file. It is read through first: what is wrong with it is found before anything of it is sent.

    Args:
        progress: told the memberships that have become durable so far.
    """
    if not sum(len(tags) for _, tags in rows(path)):
        raise CommandError(f"{path} gives nobody a tag", "below its first row, put a line for each user, with their tags")
    sent: list[tuple[int, int]] = []

    async def requests() -> AsyncIterator[ApplyMappingRequest]:
        for count, memberships, request in chunks(rows(path), remove=remove):
            sent.append((count, memberships))
            yield request

    done = Imported(0, 0, 0)
    async for answer in business.tags.ApplyMapping(requests()):
        counted = sent[: answer.chunks]
        done = Imported(sum(one for one, _ in counted), sum(one for _, one in counted), answer.version)
        progress(done.memberships)
    return done

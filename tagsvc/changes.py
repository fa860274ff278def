"""Changes of tags, aliases and combinations, as mutations. Each says what to log against a snapshot, or why it can't be done.

What they need to know from outside the snapshot, such as which notifications name a tag, is given to them.
"""

from collections.abc import Container, Iterator, Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from mesh import errors
from tagset import expression as parts
from tagset.canonical import canonical
from tagset.errors import ExpressionError, TooLargeError, UnknownNameError
from tagset.expression import Expression, leaves
from tagset.resolve import check_alias_cycle, check_cycle, names
from tagset.snapshot import Snapshot
from tagset.text import to_text
from tagsvc import fields
from tagsvc.expressions import named
from tagsvc.plan import Mutation
from tidings.tag.v1 import tag_pb2 as pb
from tidings.tag.v1.log_pb2 import TagRecord


class CreateTag(Mutation):
    """Creates a tag without members.

    Args:
        most: tags there may be then.
    """

    def __init__(
        self, name: str, description: str, attributes: Mapping[str, str], request_id: str, digest: bytes, *, most: int
    ) -> None:
        super().__init__(request_id, digest)
        self._most = most
        self._name = name
        self._description = description
        self._attributes = attributes

    def records(self, snapshot: Snapshot, now: Timestamp) -> list[TagRecord]:
        """See `Mutation`."""
        _check_free(self._name, snapshot)
        fields.room("name", "tags", len(snapshot.tags), 1, self._most)
        tag = pb.Tag(name=self._name, description=self._description, attributes=self._attributes, create_time=now)
        return [TagRecord(put_tag=tag)]


class UpdateTag(Mutation):
    """Changes a tag's description or attributes; None leaves them."""

    def __init__(
        self,
        name: str,
        description: str | None,
        attributes: Mapping[str, str] | None,
        expected_revision: int,
        request_id: str,
        digest: bytes,
    ) -> None:
        super().__init__(request_id, digest)
        self._name = name
        self._description = description
        self._attributes = attributes
        self._expected = expected_revision

    def records(self, snapshot: Snapshot, now: Timestamp) -> list[TagRecord]:
        """See `Mutation`."""
        tag = snapshot.tags.get(self._name)
        if tag is None:
            raise errors.unknown_tag(self._name, "tag", field="name")
        _check_revision(f"tag {self._name!r}", self._expected, tag.revision)
        changed = pb.Tag(
            name=self._name,
            description=tag.description if self._description is None else self._description,
            attributes=tag.attributes if self._attributes is None else self._attributes,
        )
        changed.create_time.FromMicroseconds(tag.create_time)
        return [TagRecord(put_tag=changed)]


class PutAlias(Mutation):
    """Creates an alias, or moves it.

    Args:
        most: aliases there may be then.
    """

    def __init__(self, name: str, target: str, request_id: str, digest: bytes, *, most: int) -> None:
        super().__init__(request_id, digest)
        self._most = most
        self._name = name
        self._target = target

    def records(self, snapshot: Snapshot, now: Timestamp) -> list[TagRecord]:
        """See `Mutation`."""
        if self._target not in snapshot.tags and self._target not in snapshot.combinations:
            raise errors.unknown_tag(self._target, field="target")
        with named("target"):
            check_alias_cycle(self._name, self._target, snapshot)
        fields.room("name", "aliases", len(snapshot.aliases), self._name not in snapshot.aliases, self._most)
        return [TagRecord(put_alias=pb.Alias(name=self._name, target=self._target))]


class PutCombination(Mutation):
    """Saves an expression under a name, or replaces it.

    Args:
        most: combinations there may be then.
    """

    def __init__(
        self,
        name: str,
        expression: Expression,
        description: str,
        expected_revision: int,
        request_id: str,
        digest: bytes,
        *,
        most: int,
    ) -> None:
        super().__init__(request_id, digest)
        self._most = most
        self._name = name
        self._expression = expression
        self._combination = pb.Combination(name=name, expression=to_text(canonical(expression)), description=description)
        self._expected = expected_revision

    def records(self, snapshot: Snapshot, now: Timestamp) -> list[TagRecord]:
        """See `Mutation`."""
        old = snapshot.combinations.get(self._name)
        if old is None:
            _check_free(self._name, snapshot)
            fields.room("name", "combinations", len(snapshot.combinations), 1, self._most)
        _check_revision(f"combination {self._name!r}", self._expected, old.revision if old else 0)
        with named():
            self._check_names(snapshot)
        return [TagRecord(put_combination=self._combination)]

    def _check_names(self, snapshot: Snapshot) -> None:
        """What it names is there, isn't too much, and doesn't lead back to it, which also goes before that it isn't there yet."""
        try:
            circular = self._name in names(self._expression, snapshot)
        except UnknownNameError:
            check_cycle(self._name, self._expression, snapshot)
            raise
        if circular:
            check_cycle(self._name, self._expression, snapshot)  # tells the way round

    def made(self, version: int) -> pb.Combination:
        """The combination as of the version that it made."""
        made = pb.Combination(revision=version)
        made.MergeFrom(self._combination)
        return made


class Delete(Mutation):
    """Deletes a tag, an alias or a combination.

    Args:
        kind: "tag", "alias" or "combination".
        references: ids of notifications that name it; None to delete it whoever names it.
    """

    def __init__(self, kind: str, name: str, references: Sequence[str] | None, request_id: str, digest: bytes) -> None:
        super().__init__(request_id, digest)
        self._kind = kind
        self._name = name
        self._references = references

    def records(self, snapshot: Snapshot, now: Timestamp) -> list[TagRecord]:
        """See `Mutation`."""
        check_there(self._kind, self._name, snapshot)
        if self._references is not None:
            notifications = [f"notification {each}" for each in self._references]
            users = [*named_by(self._kind, self._name, snapshot), *notifications]
            if users:
                raise errors.name_in_use(self._name, users)
        if self._kind == "tag":
            return [TagRecord(delete_tag=self._name)]
        return [TagRecord(delete_alias=self._name) if self._kind == "alias" else TagRecord(delete_combination=self._name)]


def check_there(kind: str, name: str, snapshot: Snapshot) -> None:
    """A tag, an alias or a combination exists.

    Raises:
        TidingsError: UNKNOWN_TAG.
    """
    existing: dict[str, Container[str]] = {
        "tag": snapshot.tags,
        "alias": snapshot.aliases,
        "combination": snapshot.combinations,
    }
    if name not in existing[kind]:
        raise errors.unknown_tag(name, kind, field="name")


def named_by(kind: str, name: str, snapshot: Snapshot) -> Iterator[str]:
    """The aliases and combinations that name a tag, an alias or a combination themselves, in words."""
    leaf = parts.Alias(name) if kind == "alias" else parts.Tag(name)
    if kind != "alias":
        yield from (f"alias @{alias}" for alias, target in sorted(snapshot.aliases.items()) if target == name)
    for combination in sorted(snapshot.combinations.values(), key=lambda one: one.name):
        try:
            if leaf in leaves(combination.expression):
                yield f"combination {combination.name}"
        except (ExpressionError, TooLargeError):
            continue  # one that can't be read names nothing


def _check_free(name: str, snapshot: Snapshot) -> None:
    if name in snapshot.tags:
        raise errors.name_taken(name, "tag")
    if name in snapshot.combinations:
        raise errors.name_taken(name, "combination")


def _check_revision(what: str, expected: int, revision: int) -> None:
    if expected and expected != revision:
        raise errors.version_conflict(what, expected, revision)

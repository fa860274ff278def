"""Tags, aliases and combinations as callers see them: one, and in pages by name."""

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message

from mesh import errors
from tagset.entries import CombinationEntry, TagEntry
from tagset.snapshot import Snapshot
from tidings.tag.v1 import tag_pb2 as pb

PAGE_BYTES = 3 * 1024 * 1024  # gRPC's clients take messages up to 4 MiB, unless told otherwise
Attributes: TypeAlias = Mapping[str, str] | None
T = TypeVar("T", bound=Message)


def tag(entry: TagEntry) -> pb.Tag:
    """A tag."""
    shown = pb.Tag(
        name=entry.name,
        description=entry.description,
        attributes=entry.attributes,
        revision=entry.revision,
        member_count=len(entry.members),
    )
    shown.create_time.FromMicroseconds(entry.create_time)
    return shown


def combination(entry: CombinationEntry) -> pb.Combination:
    """A combination."""
    return pb.Combination(name=entry.name, expression=entry.text, description=entry.description, revision=entry.revision)


def tag_as_made(entry: TagEntry | None, version: int, name: str, description: str | None, attributes: Attributes) -> pb.Tag:
    """A tag as the change that made `version` left it; None left a field as it was.

    Args:
        entry: as it was then, or is now; None when it is gone.
    """
    shown = pb.Tag(name=name) if entry is None else tag(entry)
    if shown.revision != version:
        shown.revision = version
        shown.description = shown.description if description is None else description
        if attributes is not None:
            shown.attributes.clear()
            shown.attributes.update(attributes)
    return shown


def find_tag(snapshot: Snapshot, name: str, field: str = "name") -> TagEntry:
    """A tag by name.

    Raises:
        TidingsError: UNKNOWN_TAG.
    """
    found = snapshot.tags.get(name)
    if found is None:
        raise errors.unknown_tag(name, "tag", field=field)
    return found


def page(names: Iterable[str], after: str, size: int, show: Callable[[str], T], prefix: str = "") -> tuple[list[T], str]:
    """Those that follow a name, in order, and the last one's name when more follow it, else "".

    Args:
        show: gives what is to be shown of a name; when that gets large, the page is cut short.
    """
    found = heapq.nsmallest(size + 1, (name for name in names if name > after and name.startswith(prefix)))
    shown, total = list[T](), 0
    for name in found[:size]:
        one = show(name)
        total += one.ByteSize()
        if shown and total > PAGE_BYTES:
            break
        shown.append(one)
    return shown, found[len(shown) - 1] if len(found) > len(shown) else ""

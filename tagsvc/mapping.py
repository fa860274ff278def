"""Mappings, as they stream in: chunks of changes, and whole new sets of members.

Rules: a stream's chunks are read ahead, a few of them, and resolved to ordinals while those before are being logged; they are
logged and answered in order. Chunks in work are bounded over all streams; past it streams are not read, so callers feel it. Once a
chunk is refused, none of the stream after it is applied.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias, TypeVar

from pyroaring import BitMap

from mesh import errors, process
from tagsvc import fields
from tagsvc.journal import Journal
from tagsvc.mapping_changes import MappingChunk, Replacement, Stream, check_tags
from tagsvc.memberships import Delta, Deltas
from tagsvc.meters import Meters
from tagsvc.ordinals import Ordinals
from tagsvc.plan import Done
from tagsvc.writer import Writer
from tidings.tag.v1 import tag_pb2 as pb

MAX_MEMBERSHIPS = 100_000  # in one chunk; both as the contract says
MAX_CHUNK_BYTES = 4 * 1024 * 1024
MAX_TAGS = 1_000  # different ones in one chunk; as the contract says
_TURN_CHANGES = 10_000  # about 10 ms of work
READ_AHEAD = 3  # chunks of one stream in work
T = TypeVar("T")
_Answers: TypeAlias = "asyncio.Queue[asyncio.Future[Done] | errors.TidingsError | None]"  # an error, or None, is the end


class Mapping:
    """Takes mappings in.

    Args:
        chunks: most in work, over all streams.
        max_tags: most tags there may be.
    """

    def __init__(self, journal: Journal, ordinals: Ordinals, writer: Writer, meters: Meters, chunks: int, max_tags: int) -> None:
        self._journal = journal
        self._ordinals = ordinals
        self._writer = writer
        self._meters = meters
        self._room = asyncio.Semaphore(chunks)
        self._max_tags = max_tags
        self._streams: set[_Answers] = set()
        self._stopping = False

    def stop(self) -> None:
        """End the streams of chunks, once what they have in work is answered."""
        self._stopping = True
        for answers in self._streams:
            with contextlib.suppress(asyncio.QueueFull):  # then it ends with the next chunk it reads
                answers.put_nowait(_stopped())

    async def apply(self, requests: AsyncIterator[pb.ApplyMappingRequest]) -> AsyncIterator[pb.ApplyMappingResponse]:
        """Apply chunks, answering each once it is durable.

        Raises:
            TidingsError: what is wrong with the chunk after the last one answered.
        """
        answers: _Answers = asyncio.Queue(READ_AHEAD)
        chunks = 0
        self._streams.add(answers)
        try:
            async with process.background(self._read(requests, answers)):
                while (answer := await answers.get()) is not None:
                    if isinstance(answer, errors.TidingsError):
                        raise answer
                    done = await answer
                    chunks += 1
                    yield pb.ApplyMappingResponse(chunks=chunks, version=done.version)
        finally:
            self._streams.discard(answers)

    async def replace(self, requests: AsyncIterator[pb.ReplaceMembersRequest]) -> pb.ReplaceMembersResponse:
        """Replace a tag's members by all that come, once the last message is there.

        Raises:
            TidingsError: UNKNOWN_TAG, INVALID_FIELD, UNAVAILABLE; nothing is changed.
        """
        tag, members, count, last = "", BitMap(), 0, False
        async for request in requests:
            if last:
                raise errors.invalid_field("last", "only in the last message")
            tag = self._tag_of(tag, request)
            members |= await self._resolved(request)
            count, last = count + len(request.user_ids), request.last
        if not last:
            raise errors.invalid_field("last", "true in the last message: without it nothing changes")
        done = await self._writer.change(Replacement(tag, members))
        self._meters.applied(count)
        return pb.ReplaceMembersResponse(version=done.version, member_count=len(members))

    def _tag_of(self, tag: str, request: pb.ReplaceMembersRequest) -> str:
        """The stream's tag, which its first message names and the others may name again."""
        if tag and request.tag not in ("", tag):
            raise errors.invalid_field("tag", "in the first message only, or the same in all")
        tag = tag or fields.name("tag", request.tag)
        if tag not in self._journal.newest().tags:
            raise errors.unknown_tag(tag, "tag", field="tag")
        return tag

    async def _resolved(self, request: pb.ReplaceMembersRequest) -> BitMap:
        if len(request.user_ids) > MAX_MEMBERSHIPS:
            raise errors.invalid_field("user_ids", f"at most {MAX_MEMBERSHIPS:,} in one message")
        async with self._room:
            return BitMap(await self._ordinals.ensure(list(request.user_ids), "user_ids"))

    async def _read(self, requests: AsyncIterator[pb.ApplyMappingRequest], answers: _Answers) -> None:
        """Bring chunks to the writer, in order, until one is refused or there is no more."""
        stream, number = Stream(), 0
        try:
            async for request in requests:
                number += 1
                await answers.put(await self._queued(request, stream, number))
            await answers.put(None)
        except errors.TidingsError as error:
            await answers.put(error)

    async def _queued(self, request: pb.ApplyMappingRequest, stream: Stream, number: int) -> "asyncio.Future[Done]":
        """Resolve a chunk and queue it; it takes up room until it is durable."""
        self._journal.newest()  # before the first catch-up nothing is taken
        if self._stopping:
            raise _stopped()
        memberships, tags = _checked(request), await _tags(request)
        await self._room.acquire()
        try:
            self._check_tags(tags, request.create_tags, stream)
            chunk = MappingChunk(await self._deltas(request), request.create_tags, self._max_tags, stream, number)
            stream.coming[number] = tags if request.create_tags else ()
            answer = await self._writer.queue(chunk)
        except BaseException:
            self._room.release()
            raise
        answer.add_done_callback(lambda done: self._settled(done, memberships, stream, number))
        return answer

    def _check_tags(self, tags: Collection[str], create: bool, stream: Stream) -> None:
        """Refuse a chunk before its users come into being; those in work before it may be about to create its tags."""
        coming = set().union(*stream.coming.values())
        check_tags((tag for tag in tags if tag not in coming), self._journal.newest(), create, self._max_tags)

    def _settled(self, answer: "asyncio.Future[Done]", memberships: int, stream: Stream, number: int) -> None:
        self._room.release()
        del stream.coming[number]
        if not answer.cancelled() and answer.exception() is None:
            self._meters.applied(memberships)

    async def _deltas(self, request: pb.ApplyMappingRequest) -> dict[str, Delta]:
        tags = [(each.tag, list(each.remove_user_ids), list(each.add_user_ids)) async for _, each in _paced(request.tags)]
        users = [each.user_id for each in request.users]
        ids = [user for _, removed, added in tags for users_of in (removed, added) for user in users_of]
        await asyncio.sleep(0)  # each of these parts takes some 10 ms for a chunk that is full
        ordinals = iter(await self._ordinals.ensure([*ids, *users], "user_ids"))
        deltas = Deltas()
        async for _, (tag, removed, added) in _paced(tags):
            deltas.of_tag(tag, _first(ordinals, len(removed)), _first(ordinals, len(added)))
        async for _, change in _paced(request.users):
            deltas.of_user(next(ordinals), change.remove_tags, change.add_tags)
        return deltas.by_tag()


def _checked(request: pb.ApplyMappingRequest) -> int:
    """How many memberships a chunk has; a change without any, which may create a tag or a user, counts as one."""
    memberships = sum(max(1, len(each.remove_user_ids) + len(each.add_user_ids)) for each in request.tags)
    memberships += sum(max(1, len(each.remove_tags) + len(each.add_tags)) for each in request.users)
    if memberships > MAX_MEMBERSHIPS:
        raise errors.invalid_field("tags", f"at most {MAX_MEMBERSHIPS:,} memberships in one chunk, not {memberships:,}")
    if request.ByteSize() > MAX_CHUNK_BYTES:
        raise errors.invalid_field("tags", f"a chunk of at most {MAX_CHUNK_BYTES:,} bytes, not {request.ByteSize():,}")
    return memberships


async def _tags(request: pb.ApplyMappingRequest) -> Collection[str]:
    """The tags that a chunk names, each once, in order."""
    found: dict[str, None] = {}

    def take(place: str, tags: Iterable[str]) -> None:
        found.update(dict.fromkeys(tags))
        if len(found) > MAX_TAGS:
            raise errors.invalid_field(place, f"at most {MAX_TAGS:,} different tags in one chunk: here they become more")

    async for number, by_tag in _paced(request.tags):
        take(f"tags[{number}].tag", [by_tag.tag])
    async for number, by_user in _paced(request.users):
        take(f"users[{number}].remove_tags", by_user.remove_tags)
        take(f"users[{number}].add_tags", by_user.add_tags)
    return found


async def _paced(changes: Sequence[T]) -> AsyncIterator[tuple[int, T]]:
    """Each with its number; others get a turn now and then."""
    for number, change in enumerate(changes, 1):
        yield number - 1, change
        if number % _TURN_CHANGES == 0:
            await asyncio.sleep(0)


def _stopped() -> errors.TidingsError:
    return errors.unavailable("this tagsvc is stopping: go on at another, from the chunk after the last one answered")


def _first(ordinals: Iterator[int], number: int) -> list[int]:
    return list(islice(ordinals, number))

"""tidings.store.v1.DeadLetterService: contract in, one call, contract out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from mesh import errors
from mesh.times import microseconds
from store import checks, dead_letter_codec, dead_letters
from store.dead_letter import DeadLetter, Kind, Policy
from store.dead_letter_meters import DeadLetterMeters
from store.dead_letter_replay import Replays
from store.ports import Database
from tidings.store.v1 import dead_letter_pb2 as pb
from tidings.store.v1 import dead_letter_pb2_grpc

_DEFAULT_PAGE = 50
Context = grpc.aio.ServicerContext[Any, Any]


class DeadLetterServicer(dead_letter_pb2_grpc.DeadLetterServiceServicer):
    """Serves dead letters.

    Args:
        database: where they are.
        replays: does their work again.
        meters: told what is put aside.
        policy: how many are kept.
        clock: microseconds since 1970.
    """

    def __init__(
        self, database: Database, replays: Replays, meters: DeadLetterMeters, policy: Policy, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._replays = replays
        self._meters = meters
        self._policy = policy
        self._clock = clock

    async def PutDeadLetters(self, request: pb.PutDeadLettersRequest, context: Context) -> pb.PutDeadLettersResponse:
        """Keeps letters."""
        checks.listed("dead_letters", request.dead_letters)
        letters = [dead_letter_codec.new_letter(one) for one in request.dead_letters]
        most, now = self._policy.letters, self._clock()
        work = partial(dead_letters.put, letters=letters, most=most, now=now, of_replay=request.of_replay)
        kept = await self._database.write(work)
        self._meters.kept(kept)
        return pb.PutDeadLettersResponse(dead_letter_ids=[letter.dead_letter_id for letter in kept.letters])

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Context) -> pb.ListDeadLettersResponse:
        """A page of them."""
        work = partial(
            dead_letters.list_page,
            kind=_kind(request.kind),
            replaying=request.replaying,
            before_id=dead_letter_codec.page_token(request.page_token),
            page_size=checks.page_size(request.page_size or _DEFAULT_PAGE),
        )
        page, following = await self._database.read(work)
        return pb.ListDeadLettersResponse(dead_letters=map(dead_letter_codec.message, page), next_page_token=following)

    async def GetDeadLetter(self, request: pb.GetDeadLetterRequest, context: Context) -> pb.GetDeadLetterResponse:
        """One of them."""
        return pb.GetDeadLetterResponse(dead_letter=dead_letter_codec.message(await self._known(request.dead_letter_id)))

    async def ReplayDeadLetter(self, request: pb.ReplayDeadLetterRequest, context: Context) -> pb.ReplayDeadLetterResponse:
        """Has its work done again."""
        letter = await self._known(request.dead_letter_id)
        try:
            await self._replays.replay(letter)
        finally:
            self._meters.changed()
        return pb.ReplayDeadLetterResponse()

    async def DiscardDeadLetter(self, request: pb.DiscardDeadLetterRequest, context: Context) -> pb.DiscardDeadLetterResponse:
        """Forgets it."""
        letter = await self._find(request.dead_letter_id)
        if letter is not None:
            updated_at = microseconds(request.update_time) if request.HasField("update_time") else 0
            await self._replays.discard(letter, updated_at)
            self._meters.changed()
        return pb.DiscardDeadLetterResponse()

    async def _known(self, dead_letter_id: str) -> DeadLetter:
        letter = await self._find(dead_letter_id)
        if letter is None:
            raise dead_letter_codec.unknown(dead_letter_id)
        return letter

    async def _find(self, dead_letter_id: str) -> DeadLetter | None:
        return await self._database.read(partial(dead_letters.get, dead_letter_id=dead_letter_codec.letter_id(dead_letter_id)))


def _kind(number: int) -> int:
    if number not in {0, *Kind}:
        raise errors.invalid_field("kind", "DISPATCH, MARKS or NOTIFICATION; UNSPECIFIED for all")
    return number

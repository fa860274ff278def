"""Tells the other members who is typing. Dropped first under load, and counted; off in large groups."""

import asyncio
import contextlib
import time

from mesh import batching, errors, patience
from router import frames
from router.directory import Directory
from router.fan_out import FanOut
from router.link import EdgeLink
from router.membership import Membership
from router.meters import Meters
from router.typists import Typists
from tidings.router.v1.link_pb2 import TRAFFIC_CLASS_PRESENCE, ClientEnvelope

_TICK_SECONDS = 0.5
_LOAD_SECONDS = 1.0  # a notice that must wait longer for a conversation is out of date
_QUEUE = 10_000
_BATCH = 1_000


class TypingNotices:
    """From typing envelopes to typing frames."""

    def __init__(self, typists: Typists, directory: Directory, fan_out: FanOut, meters: Meters) -> None:
        self._typists = typists
        self._directory = directory
        self._fan_out = fan_out
        self._meters = meters
        self._queue: batching.Batcher[tuple[EdgeLink, ClientEnvelope]] = batching.Batcher(_QUEUE, _BATCH)

    @property
    def anyone(self) -> bool:
        """Whether anybody types at all."""
        return len(self._typists) > 0

    async def accept(self, link: EdgeLink, envelope: ClientEnvelope) -> None:
        """Take a notice; without room it is dropped and counted."""
        if not self._queue.offer((link, envelope)):
            self._meters.dropped(TRAFFIC_CLASS_PRESENCE)

    def sent(self, conversation: Membership, ordinal: int) -> None:
        """A message of this user was stored: they don't type it any more."""
        if self._typists.stopped((conversation.conversation_id, ordinal)):
            self._tell(conversation, ordinal, is_typing=False)

    async def run(self) -> None:
        """Handle notices until cancelled."""
        await patience.drain(self._queue, self._handle)

    async def expire(self) -> None:
        """Let silent typists lapse, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for conversation_id, ordinal in self._typists.lapsed(time.monotonic()):
                conversation = self._directory.get(conversation_id)
                if conversation is not None:
                    self._tell(conversation, ordinal, is_typing=False)

    async def _handle(self, batch: list[tuple[EdgeLink, ClientEnvelope]]) -> None:
        with contextlib.suppress(errors.TidingsError):  # what is held can be served; the others' notices are refused below
            await self._directory.missing((envelope.typing.conversation_id for _, envelope in batch), within=_LOAD_SECONDS)
        for link, envelope in batch:
            self._handle_one(link, envelope)

    def _handle_one(self, link: EdgeLink, envelope: ClientEnvelope) -> None:
        conversation = self._directory.get(envelope.typing.conversation_id)
        if conversation is None:
            link.refuse(envelope, errors.invalid_chat_id(envelope.typing.conversation_id))
        elif envelope.user_ordinal not in conversation:
            link.refuse(envelope, errors.not_a_member(conversation.conversation_id))
        elif not conversation.large and self._news(envelope):
            self._tell(conversation, envelope.user_ordinal, is_typing=envelope.typing.typing)

    def _news(self, envelope: ClientEnvelope) -> bool:
        typist = (envelope.typing.conversation_id, envelope.user_ordinal)
        if envelope.typing.typing:
            return self._typists.typing(typist, time.monotonic())
        return self._typists.stopped(typist)

    def _tell(self, conversation: Membership, ordinal: int, *, is_typing: bool) -> None:
        user_id = conversation.user_ids.get(ordinal)
        if user_id is None:
            return  # removed meanwhile
        frame = frames.typing(conversation.conversation_id, user_id, is_typing=is_typing)
        others = [one for one in conversation.user_ids if one != ordinal]
        self._fan_out.to_users(others, frame, TRAFFIC_CLASS_PRESENCE)

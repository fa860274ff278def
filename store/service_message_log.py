"""tidings.store.v1.MessageLogService: contract in, one call, contract out."""

from collections.abc import Callable
from functools import partial
from typing import Any

from mesh import errors
from store import checks, codec, dispatch, entries, log_intake
from store.append_stream import AppendStream, Context
from store.appender import Appender
from store.model import MAX_SEQ, Moved
from store.ports import Database, History, MessageLog
from store.sync import Question, Run, SyncPage, Token
from tidings.common.v1 import conversation_pb2 as common
from tidings.common.v1.error_pb2 import ErrorCode
from tidings.store.v1 import message_log_pb2 as pb
from tidings.store.v1 import message_log_pb2_grpc

_MILLISECOND = 1_000  # microseconds


class MessageLogServicer(message_log_pb2_grpc.MessageLogServiceServicer):
    """Serves the logs.

    Args:
        database: for what is read, and for dispatch marks.
        log: for entries' and members' marks.
        appender: for entries.
        clock: microseconds since 1970.
        history: for entries that are read.
    """

    def __init__(self, database: Database, log: MessageLog, appender: Appender, clock: Callable[[], int], history: History) -> None:
        self._database = database
        self._history = history
        self._message_log = log
        self._appender = appender
        self._clock = clock
        self._streams: set[AppendStream] = set()

    def stop(self) -> None:
        """End the append streams once what they sent is answered."""
        for stream in self._streams:
            stream.stop()

    # The generated servicer is typed for generators; gRPC takes this kind, too.
    async def Append(self, requests: object, context: Context) -> None:  # type: ignore[override]
        """Answers batches in order; several may be under way."""
        stream = AppendStream(self._appender)
        self._streams.add(stream)
        try:
            await stream.serve(context)
        finally:
            self._streams.discard(stream)

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Context) -> pb.ListEntriesResponse:
        """A page of one log."""
        page = await self._history.list_entries(_page_question(request))
        return pb.ListEntriesResponse(
            entries=map(codec.log_entry, page.entries),
            last_seq=page.last_seq,
            first_available_seq=page.first_available_seq,
            has_more=page.has_more,
        )

    async def SyncDevices(self, request: pb.SyncDevicesRequest, context: Context) -> pb.SyncDevicesResponse:
        """What devices missed."""
        checks.listed("devices", request.devices)
        questions = [_question(device) for device in request.devices]
        pages = await self._history.sync_devices(questions)
        return pb.SyncDevicesResponse(pages=map(_page, pages))

    async def AdvanceMarks(self, request: pb.AdvanceMarksRequest, context: Context) -> pb.AdvanceMarksResponse:
        """Moves marks forward."""
        checks.listed("advances", request.advances)
        advances = [log_intake.advance(one) for one in request.advances]
        moved = await self._message_log.advance(advances) if advances else []
        return pb.AdvanceMarksResponse(marks=map(_marks, moved))

    async def ListUndispatched(self, request: pb.ListUndispatchedRequest, context: Context) -> pb.ListUndispatchedResponse:
        """Conversations to look after."""
        after_id = checks.conversation_token(request.page_token)
        until = self._clock() - request.minimum_age_ms * _MILLISECOND
        size = checks.page_size(request.page_size)
        work = partial(dispatch.list_undispatched, until=until, after_id=after_id, page_size=size)
        page, token = await self._database.read(work)
        positions = [common.Position(conversation_id=name, seq=seq) for name, seq in page]
        return pb.ListUndispatchedResponse(positions=positions, next_page_token=token)

    async def MarkDispatched(self, request: pb.MarkDispatchedRequest, context: Context) -> pb.MarkDispatchedResponse:
        """Notes what has been fanned out."""
        checks.listed("positions", request.positions)
        positions = _positions(request.positions)
        if positions:
            await self._database.write(partial(dispatch.mark_dispatched, positions=positions))
        return pb.MarkDispatchedResponse()


def _page_question(request: pb.ListEntriesRequest) -> entries.Question:
    name, size = checks.conversation_id(request.conversation_id), checks.page_size(request.page_size)
    which = request.WhichOneof("position")
    if which == "after_seq":
        return entries.Question(name, request.user_ordinal, codec.seq(request.after_seq), newer=True, page_size=size)
    before = codec.seq(request.before_seq) if which else MAX_SEQ
    return entries.Question(name, request.user_ordinal, before, newer=False, page_size=size)


def _positions(positions: Any) -> dict[str, int]:
    """The furthest position named for each conversation."""
    furthest: dict[str, int] = {}
    for position in positions:
        name = log_intake.askable(position.conversation_id)
        furthest[name] = max(furthest.get(name, 0), codec.seq(position.seq))
    return furthest


def _question(device: pb.DeviceSync) -> Question:
    if device.page_size < 1:
        raise errors.invalid_field("devices.page_size", "at least 1")
    return Question(
        user_ordinal=device.user_ordinal,
        device_id=checks.device_id("devices.device_id", device.device_id),
        positions=_positions(device.positions),
        history_limit=device.history_limit,
        token=Token.parse(device.page_token) if device.page_token else None,
        page_size=device.page_size,
    )


def _page(page: SyncPage) -> pb.DeviceSyncPage:
    return pb.DeviceSyncPage(runs=map(_run, page.runs), next_page_token=str(page.left))


def _run(run: Run) -> pb.ConversationRun:
    return pb.ConversationRun(
        conversation_id=run.conversation_id,
        entries=map(codec.log_entry, run.entries),
        last_seq=run.last_seq,
        first_available_seq=run.first_available_seq,
        truncated=run.truncated,
    )


def _marks(moved: Moved) -> pb.MemberMarks:
    return pb.MemberMarks(
        previous_delivered_seq=moved.before.delivered_seq,
        delivered_seq=moved.after.delivered_seq,
        previous_read_seq=moved.before.read_seq,
        read_seq=moved.after.read_seq,
        refusal=ErrorCode.ValueType(moved.refusal),
    )

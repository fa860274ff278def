"""tidings.store.v1.NotificationStoreService: contract in, one call, contract out."""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import grpc
import structlog

from mesh.errors import TidingsError
from mesh.times import timestamp
from store import checks, notification_claims, notification_codec, notification_failures, notification_intake, notification_lists
from store import notification_checks as bounds
from store import notification_creation as creation
from store import notification_progress as progress
from store.dead_letter import Policy
from store.dead_letter_meters import DeadLetterMeters
from store.notification import Notification
from store.notification_control import control
from store.notification_failures import FailedRun
from store.notification_uploads import Stored
from store.ports import Database
from store.recipient_blocks import encode, split
from tidings.common.v1 import notification_pb2 as common
from tidings.store.v1 import notification_pb2 as pb
from tidings.store.v1 import notification_pb2_grpc

_log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


class NotificationStoreServicer(notification_pb2_grpc.NotificationStoreServiceServicer):
    """Serves notifications.

    Args:
        database: where they are.
        clock: microseconds since 1970; it decides what is due.
        meters: told what is put aside.
        policy: when that is.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], int],
        meters: DeadLetterMeters,
        policy: Policy = Policy(),  # noqa: B008
    ) -> None:
        self._database = database
        self._clock = clock
        self._meters = meters
        self._policy = policy

    async def CreateNotification(self, request: pb.CreateNotificationRequest, context: Context) -> pb.CreateNotificationResponse:
        """Stores an upload."""
        now = self._clock()
        new = notification_intake.new_notification(request, now)
        answer, created = await self._database.write(partial(creation.create, new=new, now=now))
        return pb.CreateNotificationResponse(notification=pb.StoredNotification.FromString(answer), created=created)

    async def FindRequest(self, request: pb.FindRequestRequest, context: Context) -> pb.FindRequestResponse:
        """Finds the first answer to a request."""
        work = partial(
            creation.find_answer,
            request_id=bounds.request_id(request.request_id),
            digest=bounds.digest(request.request_digest),
            now=self._clock(),
        )
        answer = await self._database.read(work)
        return pb.FindRequestResponse(notification=pb.StoredNotification.FromString(answer) if answer else None)

    async def RefuseRequest(self, request: pb.RefuseRequestRequest, context: Context) -> pb.RefuseRequestResponse:
        """Refuses a request unless it is answered."""
        refused, refusal = notification_intake.refusal(request)
        answer = await self._database.write(partial(creation.refuse, request=refused, refusal=refusal, now=self._clock()))
        return pb.RefuseRequestResponse(notification=pb.StoredNotification.FromString(answer) if answer else None)

    async def GetNotifications(self, request: pb.GetNotificationsRequest, context: Context) -> pb.GetNotificationsResponse:
        """Finds notifications."""
        checks.listed("notification_ids", request.notification_ids)
        wanted = list(filter(bounds.is_notification_id, request.notification_ids))
        work = partial(notification_lists.get, notification_ids=wanted, view=bounds.view(request.view))
        found = await self._database.read(work)
        now = self._clock()
        return pb.GetNotificationsResponse(
            notifications=[notification_codec.stored(one, now) for one in found], store_time=timestamp(now)
        )

    async def ListNotifications(self, request: pb.ListNotificationsRequest, context: Context) -> pb.ListNotificationsResponse:
        """A page of them."""
        work = partial(
            notification_lists.list_page,
            narrow=notification_intake.narrowing(request),
            before_id=bounds.page_token(request.page_token),
            page_size=checks.page_size(request.page_size),
        )
        page, following = await self._database.read(work)
        now = self._clock()
        return pb.ListNotificationsResponse(
            notifications=[notification_codec.stored(one, now) for one in page], next_page_token=following
        )

    async def ControlNotification(self, request: pb.ControlNotificationRequest, context: Context) -> pb.ControlNotificationResponse:
        """Changes one."""
        work = partial(
            control,
            request=notification_intake.control_request(request),
            notification_id=bounds.existing_id(request.notification_id),
            change=notification_intake.change(request),
            now=self._clock(),
        )
        answer = await self._database.write(work)
        return pb.ControlNotificationResponse(notification=pb.StoredNotification.FromString(answer))

    async def ClaimNotifications(self, request: pb.ClaimNotificationsRequest, context: Context) -> pb.ClaimNotificationsResponse:
        """Gives what is due, after ending what has expired."""
        claimer_id, limit = bounds.claimer_id(request.claimer_id), bounds.limit(request.limit)
        lease, now = bounds.lease(request.lease), self._clock()
        ahead = bounds.ahead(request.ahead, lease)
        await self._database.write(partial(notification_claims.end_expired, now=now))
        work = partial(notification_claims.claim, claimer_id=claimer_id, limit=limit, lease=lease, now=now, ahead=ahead)
        claimed = await self._database.write(work)
        response = pb.ClaimNotificationsResponse(notifications=await self._readable(claimed, now))
        due = await self._database.read(partial(notification_claims.next_due, ahead=ahead))
        if due is not None:
            response.next_due_time.CopyFrom(timestamp(due))
        response.store_time.CopyFrom(timestamp(self._clock()))
        return response

    async def ReleaseNotifications(
        self, request: pb.ReleaseNotificationsRequest, context: Context
    ) -> pb.ReleaseNotificationsResponse:
        """Takes back ownership."""
        checks.listed("claims", request.claims)
        claims = [
            (claim.notification_id, claim.fence) for claim in request.claims if bounds.is_notification_id(claim.notification_id)
        ]
        checks.listed("failed_runs", request.failed_runs)
        failed = [notification_intake.failed_run(run) for run in request.failed_runs]
        if claims:
            await self._database.write(partial(notification_claims.release, claims=claims, now=self._clock()))
        if failed:
            await self._fail(failed)
        return pb.ReleaseNotificationsResponse()

    async def SaveExpansion(self, request: pb.SaveExpansionRequest, context: Context) -> pb.SaveExpansionResponse:
        """Settles whom one is for, and who is sent it first."""
        now = self._clock()
        work = partial(
            progress.save_expansion,
            notification_id=bounds.existing_id(request.claim.notification_id),
            fence=request.claim.fence,
            expansion=notification_intake.expansion(request.expansion),
            sent=split(bounds.bitmap("sent_ordinals", request.sent_ordinals)),
            lease=bounds.lease(request.lease),
            now=now,
        )
        saved, sent_stored = await self._database.write(work)
        return pb.SaveExpansionResponse(report=notification_codec.report(saved, now), sent_stored=sent_stored)

    async def SaveProgress(self, request: pb.SaveProgressRequest, context: Context) -> pb.SaveProgressResponse:
        """Adds what owners did, in as many transactions as it takes to keep each short."""
        checks.listed("progress", request.progress)
        bounds.together("progress", (blob for one in request.progress for blob in (one.sent_ordinals, one.failed_ordinals)))
        lease = bounds.lease(request.lease)
        steps = [notification_intake.step(one) for one in request.progress]
        response = pb.SaveProgressResponse()
        for piece in progress.in_pieces(steps):
            now = self._clock()
            results = await self._database.write(partial(progress.save_progress, steps=piece, lease=lease, now=now))
            response.results.extend(_progress_result(result, now) for result in results)
        response.store_time.CopyFrom(timestamp(self._clock()))
        return response

    async def RecordDelivered(self, request: pb.RecordDeliveredRequest, context: Context) -> pb.RecordDeliveredResponse:
        """Adds who has what, in as many transactions as it takes to keep each short."""
        checks.listed("delivered", request.delivered)
        bounds.together("delivered", (one.user_ordinals for one in request.delivered))
        deliveries = [notification_intake.delivery(one) for one in request.delivered]
        response = pb.RecordDeliveredResponse()
        for piece in progress.in_pieces(deliveries):
            now = self._clock()
            rows = await self._database.write(partial(progress.record_delivered, deliveries=piece, now=now))
            response.reports.extend(_report_or_empty(row, now) for row in rows)
        return response

    async def ReadRecipients(self, request: pb.ReadRecipientsRequest, context: Context) -> AsyncIterator[pb.ReadRecipientsResponse]:
        """Streams recipients; each chunk is one snapshot."""
        try:
            work = partial(
                notification_lists.read_recipients,
                notification_id=bounds.existing_id(request.notification_id),
                parts=bounds.outcomes(request.outcomes),
            )
            block = -1
            while chunk := await self._database.read(partial(work, after_block=block)):
                bitmaps, block = chunk
                if any(bitmaps):
                    yield pb.ReadRecipientsResponse(user_ordinals=map(encode, bitmaps))
        except TidingsError as error:
            await context.abort_with_status(error.to_status())

    async def ListReferences(self, request: pb.ListReferencesRequest, context: Context) -> pb.ListReferencesResponse:
        """Who names these."""
        names = bounds.names(request.names)
        found = await self._database.read(partial(notification_lists.list_references, names=names)) if names else []
        return pb.ListReferencesResponse(notification_ids=found)

    async def _readable(self, claimed: Sequence[Stored], now: int) -> list[pb.StoredNotification]:
        """Those that can be given away: one that can't even be read holds up no other."""
        messages, unreadable = [], []
        for one in claimed:
            try:
                messages.append(notification_codec.stored(one, now))
            except Exception as fault:
                notification_id, fence = one.notification.notification_id, one.notification.fence
                _log.exception("notification can't be read", notification=notification_id)
                unreadable.append(FailedRun(notification_id, fence, "INTERNAL", f"its upload can't be read: {fault!r}"))
        if unreadable:
            await self._fail(unreadable)
        return messages

    async def _fail(self, runs: Sequence[FailedRun]) -> None:
        work = partial(notification_failures.fail, runs=runs, policy=self._policy, now=self._clock())
        self._meters.kept(await self._database.write(work))


def _progress_result(result: progress.StepResult, now: int) -> pb.ProgressResult:
    one = result.notification
    if one is None:
        return pb.ProgressResult(fenced=True)
    report = notification_codec.report(one, now)
    return pb.ProgressResult(fenced=result.fenced, report=report, priority=one.priority, early=result.early)


def _report_or_empty(one: Notification | None, now: int) -> common.NotificationReport:
    return common.NotificationReport() if one is None else notification_codec.report(one, now)

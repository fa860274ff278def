"""Scheduler and tagsvc in one small gRPC server, which notes what comes with each call and fails it on command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from mesh.errors import TidingsError
from tidings.common.v1 import notification_pb2 as common
from tidings.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from tidings.tag.v1 import audience_pb2_grpc, tag_pb2, tag_pb2_grpc


class FakeBusiness(
    scheduler_pb2_grpc.NotificationServiceServicer, tag_pb2_grpc.TagServiceServicer, audience_pb2_grpc.AudienceServiceServicer
):
    """See the top of this file. What isn't here is unimplemented, as on a server of an older version.

    Attributes:
        failure: ends the next calls; streams only after their first message.
        authorizations: what came as `authorization`, call by call; None where nothing did.
        deadlines: seconds left as each call came; None where it had no deadline.
        chunks: what came over streams.
        silent: holds unary calls up until they are given up; `entered` and `given_up` tell when.
    """

    def __init__(self) -> None:
        self.address = ""
        self.failure: TidingsError | None = None
        self.authorizations: list[str | None] = []
        self.deadlines: list[float | None] = []
        self.chunks: list[Any] = []
        self.silent = False
        self.entered = asyncio.Event()
        self.given_up = asyncio.Event()

    async def UploadNotification(self, request: scheduler_pb2.UploadNotificationRequest, context: Any) -> Any:
        await self._enter(context)
        return scheduler_pb2.UploadNotificationResponse(notification=scheduler_pb2.Notification(notification_id=request.request_id))

    async def WatchNotification(self, request: scheduler_pb2.WatchNotificationRequest, context: Any) -> AsyncIterator[Any]:
        self._note(context)
        for delivered in range(3):
            report = common.NotificationReport(notification_id=request.notification_id, delivered=delivered)
            yield scheduler_pb2.WatchNotificationResponse(report=report)
            await self._fail(context)

    async def GetTag(self, request: tag_pb2.GetTagRequest, context: Any) -> tag_pb2.GetTagResponse:
        await self._enter(context)
        return tag_pb2.GetTagResponse(tag=tag_pb2.Tag(name=request.name))

    async def ApplyMapping(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self._note(context)
        async for chunk in requests:
            self.chunks.append(chunk)
            yield tag_pb2.ApplyMappingResponse(chunks=len(self.chunks))
            await self._fail(context)

    async def ReplaceMembers(self, requests: AsyncIterator[Any], context: Any) -> tag_pb2.ReplaceMembersResponse:
        self._note(context)
        async for chunk in requests:
            self.chunks.append(chunk)
            await self._fail(context)
        return tag_pb2.ReplaceMembersResponse(version=len(self.chunks))

    async def _enter(self, context: Any) -> None:
        self._note(context)
        await self._fail(context)
        if self.silent:
            self.entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up.set()

    def _note(self, context: Any) -> None:
        self.authorizations.append(dict(context.invocation_metadata()).get("authorization"))
        left = context.time_remaining()
        self.deadlines.append(left if left is not None and left < 1e6 else None)

    async def _fail(self, context: Any) -> None:
        if self.failure is not None:
            await context.abort_with_status(self.failure.to_status())


@asynccontextmanager
async def running_business(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[FakeBusiness]:
    """It listens on a free port until the context ends."""
    fake, server = FakeBusiness(), grpc.aio.server()  # type: ignore[abstract]  # it knows what the tests call
    scheduler_pb2_grpc.add_NotificationServiceServicer_to_server(fake, server)
    tag_pb2_grpc.add_TagServiceServicer_to_server(fake, server)
    audience_pb2_grpc.add_AudienceServiceServicer_to_server(fake, server)
    host = "127.0.0.1:0"
    port = server.add_insecure_port(host) if credentials is None else server.add_secure_port(host, credentials)
    fake.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(0)

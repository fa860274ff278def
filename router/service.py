"""LinkService over gRPC: one reader and one writer per stream. What is read goes to `Links`; what is written is the link's."""

import asyncio
import contextlib
import itertools
from typing import Any, NamedTuple

import grpc
import structlog

from mesh import errors
from router import credit
from router.append import AppendPipeline
from router.link import TELL_SECONDS, EdgeLink, LinkLostError
from router.links import Links
from router.meters import Meters
from router.outbox import Outbox
from router.receipts import Receipts
from tidings.router.v1.link_pb2 import LinkRequest, LinkResponse, LinkWelcome
from tidings.router.v1.link_pb2_grpc import LinkServiceServicer

PROTOCOL_VERSION = 1
_SPEAK_TURNS = 20  # of TELL_SECONDS: once a second, as LinkResponse.credit says
_GRANT_TURNS = 5
_LAST_ANSWERS_SECONDS = 5.0  # how long an edge that says no more may wait for what it asked
_log = structlog.get_logger(__name__)
Context = Any  # grpc.aio.ServicerContext[LinkRequest, LinkResponse]; the generated servicer has another type for it


class Bounds(NamedTuple):
    """The bounds of an `Outbox`: deliveries and their bytes, broadcasts and theirs."""

    deliveries: int
    bytes: int
    broadcasts: int
    broadcast_bytes: int


class LinkServicer(LinkServiceServicer):
    """Holds the streams.

    Args:
        bounds: of what one link is to be told.
        budget: most envelopes that all edges together may have unanswered.
    """

    def __init__(
        self,
        router_id: str,
        links: Links,
        pipeline: AppendPipeline,
        receipts: Receipts,
        meters: Meters,
        bounds: Bounds,
        budget: int,
    ) -> None:
        self._router_id = router_id
        self._links = links
        self._pipeline = pipeline
        self._receipts = receipts
        self._meters = meters
        self._bounds = bounds
        self._budget = budget
        self._leaving = False

    async def Link(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        """Hello, snapshot, then batches until either side ends."""
        try:
            link = await self._greet(context)
        except errors.TidingsError as error:
            _log.warning("link refused", reason=error.reason, error=error.message)
            await context.abort_with_status(error.to_status())
            return
        except LinkLostError:
            return
        _log.info("link up", edge=link.edge_id)
        writer = asyncio.create_task(link.write(context.write))
        reader = asyncio.create_task(self._read(link, context))
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
            self._links.leave(link)
            await self._last_answers(link, reader, writer)
        finally:
            self._links.leave(link)
            await _stop(reader, writer)
            _log.info("link down", edge=link.edge_id)

    async def tell_all(self) -> None:
        """Now and then say what has been acted on, also to edges to which nothing else is said, and what they may ask; until
        cancelled."""
        for turn in itertools.count():
            await asyncio.sleep(TELL_SECONDS)
            for link in self._links:
                link.tell()
                if turn % _SPEAK_TURNS == 0:
                    link.speak()
            if turn % _GRANT_TURNS == 0:
                self._grant()

    async def drain(self, within: float) -> None:
        """Announce the leaving, finish what edges have sent until they heard of it, then end the streams."""
        self._leaving = True
        links = list(self._links)
        for link in links:
            link.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await asyncio.gather(*(self._drained(link) for link in links))
        for link in self._links:
            link.close()

    async def _drained(self, link: EdgeLink) -> None:
        await link.drain_heard()
        await self._pipeline.idle()
        await self._receipts.idle()

    async def _greet(self, context: Context) -> EdgeLink:
        hello = await _first(context, "hello")
        if hello.hello.protocol_version != PROTOCOL_VERSION:
            raise errors.invalid_field("hello.protocol_version", f"this router speaks {PROTOCOL_VERSION}")
        if hello.hello.router_id not in ("", self._router_id):
            raise errors.unavailable(f"{hello.hello.router_id} is gone; {self._router_id} has its address now")
        if self._leaving:
            raise errors.unavailable("this router leaves: link with the others")
        link = EdgeLink(hello.hello.edge_id, Outbox(*self._bounds), self._meters)
        link.grant(self._share(len(self._links) + 1))
        welcome = LinkWelcome(router_id=self._router_id, protocol_version=PROTOCOL_VERSION)
        await context.write(link.outbox.first(LinkResponse(processed_sequence=hello.sequence, welcome=welcome)))
        snapshot = await _first(context, "online_snapshot")
        self._links.enter(link, snapshot.online_snapshot)
        link.received(snapshot.sequence, tell_now=True)
        return link

    def _share(self, links: int) -> int:
        return credit.share(self._budget, links, self._pipeline.fullness)

    def _grant(self) -> None:
        share = self._share(len(self._links))
        for link in self._links:
            link.grant(share)

    async def _read(self, link: EdgeLink, context: Context) -> None:
        while (request := await _heard(context)) is not None:
            link.settle(request.processed_sequence)
            if request.WhichOneof("body") == "batch":
                await self._links.on_batch(link, request.sequence, request.batch)
            else:
                link.received(request.sequence, tell_now=False)
            await link.calm()

    async def _last_answers(self, link: EdgeLink, reader: "asyncio.Task[None]", writer: "asyncio.Task[None]") -> None:
        """The edge says no more, or we close: write what is still to be said, while the edge listens."""
        if reader.done() and not writer.done() and reader.exception() is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pipeline.idle(), _LAST_ANSWERS_SECONDS)
            link.close()
            await asyncio.wait({writer}, timeout=_LAST_ANSWERS_SECONDS)


async def _heard(context: Context) -> LinkRequest | None:
    """The edge's next request; None when it says no more."""
    try:
        request = await context.read()
    except Exception as fault:
        raise LinkLostError from fault
    return None if request is grpc.aio.EOF else request


async def _first(context: Context, arm: str) -> LinkRequest:
    request = await _heard(context)
    if request is None or request.WhichOneof("body") != arm:
        raise errors.invalid_field(arm, "a link begins with hello, then online_snapshot")
    return request


async def _stop(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception) and not isinstance(outcome, LinkLostError):
            _log.error("link failed", exc_info=outcome)

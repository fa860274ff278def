"""Telling routers that something changed, so that they look in the store at once. Best effort: a hint lost costs a moment."""

import asyncio
from collections.abc import Sequence

import structlog

from mesh.batching import Batcher
from mesh.errors import TidingsError
from mesh.patience import drain
from scheduler.ports import Router, Routers

_QUEUE = 10_000  # hints waiting; past it new ones are dropped
_BATCH = 1_000  # what a router takes at once
_log = structlog.get_logger(__name__)


class RefreshHints:
    """A queue of changed notifications. When it is full, hints are dropped: their routers find out with their next write."""

    def __init__(self, routers: Routers) -> None:
        self._routers = routers
        self._queue: Batcher[str] = Batcher(_QUEUE, _BATCH)

    def offer(self, notification_id: str) -> None:
        """Something happened to it."""
        self._queue.offer(notification_id)

    async def run(self) -> None:
        """Tell until cancelled."""
        await drain(self._queue, self._tell)

    async def _tell(self, notification_ids: list[str]) -> None:
        groups: dict[str, tuple[Router, list[str]]] = {}
        for one in dict.fromkeys(notification_ids):
            try:
                router = self._routers.owner(one)
            except TidingsError:
                return  # no router is up, so none runs it
            groups.setdefault(router.router_id, (router, []))[1].append(one)
        await asyncio.gather(*(_refresh(router, ids) for router, ids in groups.values()))


async def _refresh(router: Router, notification_ids: Sequence[str]) -> None:
    try:
        await router.refresh(notification_ids)
    except TidingsError as error:
        _log.info("hint lost", router=router.router_id, error=error.message)

"""Schedulers over a real store on SQLite, with tags and routers from twins, in one process, on a clock that tests set."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

import scheduler.serve
import store.serve
from mesh import rpc
from mesh.followed_clock import FollowedClock
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from mesh.times import SECOND, clock
from scheduler.settings import SchedulerSettings
from store.settings import StoreSettings
from tests.scheduler import router_twin, tags_twin
from tests.scheduler.business import Business, at
from tests.scheduler.router_twin import Router
from tests.scheduler.tags_twin import Audience, Tags
from tidings.common.v1.instance_pb2 import Instance
from tidings.store.v1 import user_pb2
from tidings.store.v1.notification_pb2_grpc import NotificationStoreServiceStub
from tidings.store.v1.user_pb2_grpc import UserServiceStub

T = TypeVar("T")
BEGINNING = at("2026-06-01 12:00")


class Clock:
    """Stands still until a test moves it; everybody's."""

    def __init__(self, now: int = BEGINNING) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, **parts: float) -> None:
        """Move on by days, hours, minutes, seconds."""
        self.now += sum(round(number * _LENGTHS[unit]) for unit, number in parts.items())


_LENGTHS = {"days": 86_400 * SECOND, "hours": 3_600 * SECOND, "minutes": 60 * SECOND, "seconds": SECOND}


class SharedClock(FollowedClock):
    """Schedulers' and the store's at once: what the store says of it is nothing new, and may be old when the test sets it."""

    def learn(self, asked: int, said: int, heard: int) -> int:
        return 0


class Store:
    """The store as other services see it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.notifications = NotificationStoreServiceStub(channel)
        self.users = UserServiceStub(channel)

    async def ordinals(self, *user_ids: str) -> list[int]:
        """Their ordinals; they come into being when new."""
        found = await self.users.EnsureUsers(user_pb2.EnsureUsersRequest(user_ids=user_ids))
        return [user.user_ordinal for user in found.users]

    async def known(self, *user_ids: str) -> set[str]:
        """Those of them who exist."""
        found = await self.users.GetUsers(user_pb2.GetUsersRequest(user_ids=user_ids))
        return {user.user_id for user in found.users}


class Mesh:
    """Everything a scheduler works with.

    Attributes:
        clock: schedulers' and store's.
        tags: what the tags' service knows.
        registry: where all are registered.
        telemetry: everyone's.
    """

    def __init__(self, stack: AsyncExitStack, folder: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock: Any = Clock()
        self.tags = Tags()
        self.registry = MemoryRegistry()
        self.telemetry = Telemetry("test")
        self._stack = stack
        self._database = folder / "store.sqlite"
        shutil.copy(migrated, self._database)
        monkeypatch.setattr("store.serve.clock", self.clock)

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Open something until the end of the test."""
        return await self._stack.enter_async_context(context)

    def real_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the clock of the machine decide, from the next start of each service."""
        self.clock = clock
        monkeypatch.setattr("store.serve.clock", self.clock)

    async def store(self, stack: AsyncExitStack | None = None, **settings: Any) -> Store:
        """The store, until the end of the test or until that stack is closed."""
        stack = stack or self._stack
        serving = serve_store(self._database, self.registry, self.telemetry, **settings)
        instance = await stack.enter_async_context(serving)
        return Store(await stack.enter_async_context(rpc.channel(instance.grpc_address, self.telemetry)))

    async def audience(self, stack: AsyncExitStack | None = None) -> Audience:
        """One more instance of the tags' service."""
        return await (stack or self._stack).enter_async_context(tags_twin.serve(self.tags, self.registry, self.telemetry))

    async def router(self, stack: AsyncExitStack | None = None, router: Router | None = None) -> Router:
        """One more router."""
        serving = router_twin.serve(router or Router(), self.registry, self.telemetry)
        return await (stack or self._stack).enter_async_context(serving)

    async def scheduler(self, stack: AsyncExitStack | None = None, own: FollowedClock | None = None, **settings: Any) -> Business:
        """One more scheduler; gives a business that calls it. It begins with the mesh's clock unless it has its own."""
        quick: dict[str, Any] = {
            "port": 0,
            "drain_seconds": 2.0,
            "reflection": False,
            "poll_seconds": 0.05,
            "watch_seconds": 0.02,
            "handover_seconds": 5.0,
        }
        configured = SchedulerSettings(**(quick | settings))
        serving = scheduler.serve.serve(configured, self.registry, self.telemetry, own or SharedClock(self.clock, self.clock))
        instance = await (stack or self._stack).enter_async_context(serving)
        channel = await self._stack.enter_async_context(rpc.channel(instance.grpc_address, self.telemetry))
        return Business(channel, instance.grpc_address)


@asynccontextmanager
async def serve_store(database: Path, registry: MemoryRegistry, telemetry: Telemetry, **settings: Any) -> AsyncIterator[Instance]:
    """The real store."""
    options: dict[str, Any] = {"port": 0, "drain_seconds": 0.5, "reflection": False, "sweep_seconds": 3600} | settings
    configured = StoreSettings(database=f"sqlite:///{database}", **options)
    async with store.serve.serve(configured, registry, telemetry) as instance:
        yield instance

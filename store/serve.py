"""The store's parts, built in order and closed in reverse."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from mesh import naming, records, rpc
from mesh.followed_clock import FollowedClock
from mesh.mutual_tls import MeshDoor, MutualTls
from mesh.open_cache import open_cache
from mesh.process import background
from mesh.registry import Registry
from mesh.telemetry import Telemetry
from mesh.times import DAY, clock
from store.appender import Appender
from store.database_clock import DatabaseClock
from store.database_history import DatabaseHistory
from store.dead_letter import Policy
from store.dead_letter_meters import DeadLetterMeters
from store.dead_letter_replay import Replays
from store.migrate import migrate
from store.notification_sweeper import NotificationSweeper
from store.ports import Database, History, MessageLog
from store.postgres_database import PostgresDatabase
from store.postgres_message_log import PostgresMessageLog
from store.recent_history import RecentHistory, RecentLog
from store.service_conversations import ConversationServicer
from store.service_dead_letters import DeadLetterServicer
from store.service_message_log import MessageLogServicer
from store.service_notifications import NotificationStoreServicer
from store.service_tag_log import TagLogServicer
from store.service_users import UserServicer
from store.settings import StoreSettings
from store.sqlite_database import SqliteDatabase
from store.sqlite_message_log import SqliteMessageLog
from store.sweeper import Sweeper
from store.tag_log_checkpoints import Checkpoints
from store.tag_log_feed import TagLogFeed
from tidings.common.v1.instance_pb2 import Instance
from tidings.store.v1.conversation_pb2_grpc import add_ConversationServiceServicer_to_server
from tidings.store.v1.dead_letter_pb2_grpc import add_DeadLetterServiceServicer_to_server
from tidings.store.v1.message_log_pb2_grpc import add_MessageLogServiceServicer_to_server
from tidings.store.v1.notification_pb2_grpc import add_NotificationStoreServiceServicer_to_server
from tidings.store.v1.tag_log_pb2_grpc import add_TagLogServiceServicer_to_server
from tidings.store.v1.user_pb2_grpc import add_UserServiceServicer_to_server


@asynccontextmanager
async def serve(settings: StoreSettings, registry: Registry, telemetry: Telemetry) -> AsyncIterator[Instance]:
    """Run one store until the context ends; gives its record."""
    async with AsyncExitStack() as stack:
        now = FollowedClock(clock) if _parse(settings.database).drivername == "postgresql" else clock
        database, log = await stack.enter_async_context(open_database(settings, now))
        await database.write(migrate)
        if isinstance(now, FollowedClock):
            following = DatabaseClock(database, now, telemetry)
            await following.measure()
            await stack.enter_async_context(background(following.run()))
        history: History = DatabaseHistory(database)
        if settings.history_cache_entries:
            cache = await stack.enter_async_context(open_cache(settings.cache, telemetry))
            size = settings.history_cache_entries
            history = recent = RecentHistory(database, cache, size, telemetry)
            log = keeping = RecentLog(log, database, cache, size, recent.readership)
            await stack.enter_async_context(background(keeping.run()))
        appender = Appender(log, telemetry)
        sweeper = Sweeper(database, now, round(settings.resend_days * DAY))
        recipients = NotificationSweeper(database, now, round(settings.report_days * DAY), round(settings.answer_days * DAY))
        messages = MessageLogServicer(database, log, appender, now, history)
        policy, letters = Policy(settings.notification_failures, settings.dead_letters), DeadLetterMeters(telemetry)
        feed = TagLogFeed(database)
        tags = TagLogServicer(database, feed, Checkpoints(database, now))
        servicers: dict[str, rpc.AddServicer] = {
            "tidings.store.v1.MessageLogService": lambda server: add_MessageLogServiceServicer_to_server(messages, server),
            "tidings.store.v1.ConversationService": lambda server: add_ConversationServiceServicer_to_server(
                ConversationServicer(database, now), server
            ),
            "tidings.store.v1.UserService": lambda server: add_UserServiceServicer_to_server(UserServicer(database, now), server),
            "tidings.store.v1.TagLogService": lambda server: add_TagLogServiceServicer_to_server(tags, server),
            "tidings.store.v1.NotificationStoreService": lambda server: add_NotificationStoreServiceServicer_to_server(
                NotificationStoreServicer(database, now, letters, policy), server
            ),
            "tidings.store.v1.DeadLetterService": lambda server: add_DeadLetterServiceServicer_to_server(
                DeadLetterServicer(database, Replays(database, log, now), letters, policy, now), server
            ),
        }
        options: dict[str, Any] = {"reflect": settings.reflection, "drain_seconds": settings.drain_seconds}
        inside: dict[str, Any] = {
            "door": MeshDoor.of(MutualTls.of("store", settings)),
            "local": registry.local,
            "known_as": settings.grpc_address,
        }
        async with (
            background(appender.run(), sweeper.run(settings.sweep_seconds), recipients.run(settings.sweep_seconds), feed.run()),
            background(letters.run(database, settings.sweep_seconds)),
            rpc.serve(f"{settings.host}:{settings.port}", servicers, telemetry, **inside, **options) as port,
        ):
            instance = records.instance("store", settings, naming.new_instance_id("store"), grpc_port=port)
            try:
                async with registry.register(instance):
                    yield instance
            finally:
                messages.stop()
                feed.stop()
                appender.close()


@asynccontextmanager
async def open_database(settings: StoreSettings, now: Callable[[], int] = clock) -> AsyncIterator[tuple[Database, MessageLog]]:
    """The database that the settings name, and the message log in it, which takes its entries' times from `now`.

    Raises:
        ValueError: neither sqlite:///FILE nor postgresql://….
    """
    url = _parse(settings.database)
    if url.drivername == "sqlite":
        async with SqliteDatabase.open(Path(str(url.database))) as sqlite:
            yield sqlite, SqliteMessageLog(sqlite, now)
    else:
        async with (
            PostgresDatabase.open(url, settings.connections) as postgres,
            PostgresMessageLog.open(postgres, url, now) as log,
        ):
            yield postgres, log


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        url = None
    if url is None or url.drivername not in {"sqlite", "postgresql"} or not url.database:
        raise ValueError("database: use sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME")
    return url

"""What the store does when its database or its callers go away; and several stores over one database."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from typing import Any

import grpc
import psycopg
import pytest

from mesh import rpc
from mesh.errors import TidingsError
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from store.model import Draft
from store.ports import PassingError
from store.serve import open_database, serve
from store.settings import StoreSettings
from tests.servers import PostgresServer, free_port
from tests.store.client import StoreClient, deletion, edit, message, running_store, texts
from tidings.store.v1 import message_log_pb2 as pb

pytestmark = pytest.mark.postgresql


def end_sessions(url: str) -> int:
    """Kill every other session of the database, as an administrator or a restart would; gives how many."""
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return len(ended.fetchall())


# Sessions that may have read their database's settings and are not in pg_stat_activity yet. Nobody tells when one is.
_BEGINNING = """
SELECT pid FROM pg_locks JOIN pg_database ON objid = pg_database.oid
WHERE classid = 'pg_database'::regclass AND datname = current_database() AND pid <> pg_backend_pid()
"""


def only_reads(url: str, setting: str) -> None:
    """Whether sessions from now on write, as on a standby; those there are end when it begins."""
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        name = url.rpartition("/")[2].partition("?")[0]
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only {setting}".encode())
        while connection.execute(_BEGINNING).fetchall():
            time.sleep(0.01)
    if setting == "= on":
        end_sessions(url)


async def test_a_database_without_an_encoding(postgres_server: PostgresServer) -> None:
    """What initdb makes where no locale is set; the driver then gives bytes for text unless it is told what they are."""
    url = postgres_server.new_database("TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    async with running_store(url) as store:
        chat = await store.direct("alice", "bob")
        alice, bob = await store.ordinals("alice", "bob")
        assert await store.say(chat, alice, "zażółć gęślą jaźń") == [1]
        assert texts(await store.entries(chat, bob)) == ["zażółć gęślą jaźń"]
        advance = pb.MarkAdvance(conversation_id=chat, user_ordinal=bob, device_id="phone", delivered_seq=1)
        assert [marks.delivered_seq for marks in await store.advance(advance)] == [1]


async def test_two_stores_append_to_the_same_conversations(postgres_url: str) -> None:
    """Gap-free, no deadlock, repeats recognised, with edits and deletions and changes of members in between."""
    async with running_store(postgres_url) as one, running_store(postgres_url) as other:
        users = await one.ordinals("alice", "bob")
        chats = [(await one.group("alice", "bob")).conversation_id for _ in range(5)]
        plan = random.Random(7)

        def entries(worker: int, batch: int) -> list[pb.NewEntry]:
            made = []
            for n in range(plan.randint(1, 30)):
                chat, user = plan.choice(chats), plan.choice(users)
                shared = plan.random() < 0.3  # both stores are given these
                name = f"shared-{batch}-{n}" if shared else f"{worker}-{batch}-{n}"
                target = plan.randint(1, 20)
                kinds = (message(chat, user, name), edit(chat, user, name, target), deletion(chat, user, name, target))
                made.append(plan.choices(kinds, (8, 1, 1))[0])
            return made

        work = [(store, [entries(worker, batch) for batch in range(15)]) for worker, store in enumerate((one, other, one, other))]
        members = asyncio.gather(*(one.put("alice", chat, f"guest{n}") for n in range(5) for chat in chats))
        answers = await asyncio.wait_for(asyncio.gather(*(store.append_batches(batches) for store, batches in work)), 30)
        await asyncio.wait_for(members, 30)
        stored: Counter[tuple[str, int]] = Counter()
        for (_, batches), responses in zip(work, answers, strict=True):
            for sent, response in zip(batches, responses, strict=True):
                for entry, result in zip(sent, response.results, strict=True):
                    stored[entry.conversation_id, result.seq] += bool(result.seq) and not result.duplicate
        for chat in chats:
            log = await other.entries(chat)
            assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
            assert (await one.conversation(chat)).last_seq == len(log)
            times = [entry.store_time.ToNanoseconds() for entry in log]
            assert times == sorted(times)
            identities = Counter((entry.sender_id, entry.client_msg_id) for entry in log if entry.client_msg_id)
            assert set(identities.values()) <= {1}
            assert all(stored[chat, entry.seq] == 1 for entry in log if entry.client_msg_id)


async def test_killed_sessions_are_opened_again(postgres_url: str) -> None:
    async with running_store(postgres_url) as store:
        alice, bob = await store.ordinals("alice", "bob")
        chat = await store.direct("alice", "bob")
        assert await store.say(chat, alice, "1") == [1]
        await store.advance(pb.MarkAdvance(conversation_id=chat, user_ordinal=bob, delivered_seq=1))
        assert end_sessions(postgres_url) >= 3
        assert await store.say(chat, alice, "2") == [2]
        [marks] = await store.advance(pb.MarkAdvance(conversation_id=chat, user_ordinal=bob, delivered_seq=2))
        assert marks.delivered_seq == 2
        assert len(await store.entries(chat)) == 2


async def test_sessions_killed_all_the_time_lose_and_repeat_nothing(postgres_url: str) -> None:
    async with running_store(postgres_url) as store:
        alice, _ = await store.ordinals("alice", "bob")
        chat = await store.direct("alice", "bob")
        batches = [[message(chat, alice, f"{batch}-{n}") for n in range(5)] for batch in range(40)]
        sending = asyncio.create_task(store.append_batches(batches))
        while not sending.done():
            await asyncio.to_thread(end_sessions, postgres_url)
            await asyncio.wait([sending], timeout=0.1)
        responses = await sending
        assert [result.seq for response in responses for result in response.results] == list(range(1, 201))
        assert len(await store.entries(chat)) == 200


async def test_a_caller_that_vanishes_leaves_what_it_sent(postgres_url: str) -> None:
    async with running_store(postgres_url) as store:
        alice, _ = await store.ordinals("alice", "bob")
        chat = await store.direct("alice", "bob")
        call = store.messages.Append()
        await call.write(pb.AppendRequest(batch_id=1, entries=[message(chat, alice, "1")]))
        assert isinstance(await call.read(), pb.AppendResponse)
        call.cancel()
        assert await store.say(chat, alice, "2") == [2]


async def test_a_stopping_store_answers_what_it_read_and_ends_its_streams(postgres_url: str) -> None:
    telemetry = Telemetry("store-test")
    options: dict[str, Any] = {"database": postgres_url, "port": 0, "drain_seconds": 30}
    async with contextlib.AsyncExitStack() as channels:
        async with serve(StoreSettings(**options), MemoryRegistry(), telemetry) as instance:
            store = StoreClient(await channels.enter_async_context(rpc.channel(instance.grpc_address, telemetry)))
            alice, _ = await store.ordinals("alice", "bob")
            chat = await store.direct("alice", "bob")
            call = store.messages.Append()
            await call.write(pb.AppendRequest(batch_id=1, entries=[message(chat, alice, "1")]))
            assert isinstance(await call.read(), pb.AppendResponse)
            began = asyncio.get_running_loop().time()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK
        assert asyncio.get_running_loop().time() - began < 10  # it did not wait out the drain
    telemetry.close()


async def test_a_server_that_only_reads_is_waited_for_and_refuses_nothing(postgres_url: str) -> None:
    async with running_store(postgres_url) as store:
        alice, _ = await store.ordinals("alice", "bob")
        chat, other = await store.direct("alice", "bob"), await store.direct("alice", "alice2")
        assert await store.say(chat, alice, "1") == [1]
        only_reads(postgres_url, "= on")
        entries = [message(chat, alice, "2"), edit(chat, alice, "3", 1), message(other, alice, "4")]
        sending = asyncio.create_task(store.append(*entries))
        with pytest.raises(TidingsError, match="the database is away"), rpc.named_errors():
            await store.direct("alice", "carol")
        assert not sending.done()
        only_reads(postgres_url, "TO DEFAULT")
        assert [result.seq for result in await asyncio.wait_for(sending, 10)] == [2, 3, 1]
        await store.direct("alice", "carol")


async def test_a_database_that_stays_away_is_unavailable() -> None:
    options: dict[str, Any] = {"database": f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"}
    async with open_database(StoreSettings(**options)) as (database, log):
        with pytest.raises(TidingsError) as caught:
            await database.read(lambda connection: connection.info)
        assert caught.value.reason == "UNAVAILABLE"
        with pytest.raises(PassingError):
            await log.append([Draft("d" + "a" * 26, 1, "x", 0, b"")])


async def test_what_a_store_that_stands_still_holds_is_let_go_by_the_server(postgres_url: str) -> None:
    """Else its open transaction keeps others from rows it locked, and the database from clearing away what is dead."""
    async with open_database(StoreSettings(database=postgres_url)) as (database, _):
        asked = "SELECT DISTINCT current_setting('idle_in_transaction_session_timeout'), current_setting('tcp_keepalives_idle')"
        assert await database.read(lambda connection: connection.exec_driver_sql(asked).all()) == [("10s", "5")]

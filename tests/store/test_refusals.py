"""One request_id, one answer: taken or refused, whatever is under way at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import psycopg
import pytest

from mesh import errors
from mesh.errors import from_rpc_error
from store import notification_requests
from tests.store.notifications import DAY, Clock, NotificationClient, notification_store
from tidings.store.v1 import notification_pb2 as pb

TOO_LATE = errors.invalid_field("spec.send_time", "not in the past")
ANOTHER = errors.empty_audience()
Stores = tuple[NotificationClient, NotificationClient]
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_CANCEL = """
SELECT pg_cancel_backend(pid) FROM pg_locks WHERE relation = 'notification_uploads'::regclass AND NOT granted
"""


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[Stores]:
    """Two; over SQLite the same one."""
    clock = Clock()
    async with notification_store(database_url, clock) as one:
        if database_url.startswith("sqlite"):
            yield one, one
            return
        async with notification_store(database_url, clock) as other:
            yield one, other


async def outcome(call: Any) -> tuple[str, str, str]:
    """What an upload, a look or a refusal came to: the notification's id, or the error's reason and field."""
    try:
        response = await call
    except grpc.RpcError as error:
        named = from_rpc_error(error)
        return "refused", named.reason, named.field
    if not response.HasField("notification"):
        return "refused", TOO_LATE.reason, TOO_LATE.field  # now, as was asked
    return "taken", response.notification.notification_id, ""


def refusal(request: Any, error: errors.TidingsError = TOO_LATE) -> pb.RefuseRequestRequest:
    """Refuses the same request."""
    return pb.RefuseRequestRequest(request_id=request.request_id, request_digest=request.request_digest, refusal=error.to_frame())


def look(request: Any) -> pb.FindRequestRequest:
    """Looks the same request up."""
    return pb.FindRequestRequest(request_id=request.request_id, request_digest=request.request_digest)


async def test_what_is_refused_stays_refused(stores: Stores) -> None:
    one, other = stores
    request = one.upload(audience=[1])
    assert not (await one.stub.RefuseRequest(refusal(request))).HasField("notification")
    expected = ("refused", "INVALID_FIELD", "spec.send_time")
    assert await outcome(other.stub.CreateNotification(request)) == expected
    assert await outcome(other.stub.FindRequest(look(request))) == expected
    assert await outcome(other.stub.RefuseRequest(refusal(request, ANOTHER))) == expected
    assert await one.listed() == []
    request.request_digest = b"another one, 16+"
    assert await outcome(one.stub.CreateNotification(request)) == ("refused", "REQUEST_ID_CONFLICT", "request_id")


async def test_what_is_taken_stays_taken(stores: Stores) -> None:
    one, other = stores
    request = one.upload(audience=[1])
    taken = await outcome(one.stub.CreateNotification(request))
    assert await outcome(other.stub.RefuseRequest(refusal(request))) == taken
    assert await outcome(one.stub.CreateNotification(request)) == taken
    control = one.control_request(request.notification_id, prioritize=pb.PrioritizeAction(priority=3))
    changed = await one.change(control)
    assert (await other.stub.RefuseRequest(refusal(control))).notification == changed


async def test_a_change_that_is_refused_stays_refused(stores: Stores) -> None:
    one, other = stores
    control = one.control_request(await one.create(), prioritize=pb.PrioritizeAction(priority=3))
    await one.stub.RefuseRequest(refusal(control))
    assert (await outcome(other.stub.ControlNotification(control)))[:2] == ("refused", "INVALID_FIELD")
    assert (await one.get(control.notification_id)).spec.priority == 0


async def test_an_upload_is_known_by_itself_when_its_answer_is_forgotten_and_a_refusal_is_forgotten(stores: Stores) -> None:
    one, other = stores
    kept, refused = one.upload(audience=[1]), one.upload(audience=[1])
    taken = await outcome(one.stub.CreateNotification(kept))
    await one.stub.RefuseRequest(refusal(refused))
    forget = one.clock.now + DAY
    assert await one.database.write(lambda connection: notification_requests.forget(connection, forget, 10)) == 2
    assert await outcome(other.stub.RefuseRequest(refusal(kept))) == taken
    assert (await outcome(other.stub.CreateNotification(refused)))[0] == "taken"


async def test_a_refusal_says_what_is_wrong(stores: Stores) -> None:
    request = refusal(stores[0].upload())
    request.refusal.Clear()
    assert await outcome(stores[0].stub.RefuseRequest(request)) == ("refused", "INVALID_FIELD", "refusal.code")


@asynccontextmanager
async def held_open(url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """No upload gets past its request's being kept, until the transaction here ends."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("LOCK TABLE notification_uploads IN ACCESS EXCLUSIVE MODE")
        yield connection


async def waiting(connection: psycopg.AsyncConnection[Any], number: int) -> None:
    """Wait until so many transactions wait for others."""
    async with asyncio.timeout(10):
        while (await (await connection.execute(_WAITING)).fetchone() or (0,))[0] < number:  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0.01)


@pytest.mark.postgresql
@pytest.mark.parametrize("fails", [False, True])
async def test_a_refusal_waits_for_an_upload_that_is_not_committed(postgres_url: str, *, fails: bool) -> None:
    clock = Clock()
    async with notification_store(postgres_url, clock) as one, notification_store(postgres_url, clock) as other:
        request = one.upload(audience=[1])
        async with held_open(postgres_url) as connection:
            uploading = asyncio.create_task(outcome(one.stub.CreateNotification(request)))
            await waiting(connection, 1)
            assert not (await other.stub.FindRequest(look(request))).HasField("notification")
            refusing = asyncio.create_task(outcome(other.stub.RefuseRequest(refusal(request))))
            await waiting(connection, 2)
            if fails:  # it is made again, by its store
                await connection.execute(_CANCEL)
                await asyncio.wait({refusing}, timeout=10)
        answers = [await uploading, await refusing]
        assert answers[0] == answers[1]
        assert answers[0][0] == ("refused" if fails else "taken")
        assert await one.listed() == ([] if fails else [request.notification_id])


@pytest.mark.postgresql
async def test_a_change_that_was_overtaken_by_its_refusal_is_refused(postgres_url: str) -> None:
    clock = Clock()
    async with notification_store(postgres_url, clock) as one, notification_store(postgres_url, clock) as other:
        control = one.control_request(await one.create(), prioritize=pb.PrioritizeAction(priority=3))
        async with held_open(postgres_url) as connection:
            changing = asyncio.create_task(outcome(one.stub.ControlNotification(control)))
            await waiting(connection, 1)
            refused = await outcome(other.stub.RefuseRequest(refusal(control)))
        assert await changing == refused == ("refused", "INVALID_FIELD", "spec.send_time")
        assert (await one.get(control.notification_id)).spec.priority == 0

"""The door for a business, against a small gRPC server of both services."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from mesh import errors
from tests.sdk.certificates import self_signed
from tests.sdk.conftest import TIMEOUT
from tests.sdk.fake_business import FakeBusiness, running_business
from tidings.common.v1 import error_pb2
from tidings.scheduler.v1.scheduler_pb2 import UploadNotificationRequest, WatchNotificationRequest
from tidings.tag.v1.audience_pb2 import CountExpressionRequest
from tidings.tag.v1.tag_pb2 import ApplyMappingRequest, GetTagRequest, ReplaceMembersRequest
from tidings_client.business import Business, BusinessError, TlsFiles, new_request_id

UPLOAD = UploadNotificationRequest(request_id="n1")
WATCH = WatchNotificationRequest(notification_id="n1")
GET = GetTagRequest(name="vip")


@pytest.fixture
async def services() -> AsyncIterator[FakeBusiness]:
    async with running_business() as fake:
        yield fake


@pytest.fixture
async def business(services: FakeBusiness) -> AsyncIterator[Business]:
    async with Business.connect(services.address, services.address, "secret") as business:
        yield business


def chunks(count: int) -> list[ReplaceMembersRequest]:
    return [ReplaceMembersRequest(tag="vip", user_ids=[f"u{number}"]) for number in range(count)]


async def test_every_kind_of_call_carries_the_key(services: FakeBusiness, business: Business) -> None:
    assert (await business.notifications.UploadNotification(UPLOAD)).notification.notification_id == "n1"
    assert [one.report.delivered async for one in business.notifications.WatchNotification(WATCH)] == [0, 1, 2]
    assert (await business.tags.ReplaceMembers(iter(chunks(3)))).version == 3
    services.chunks.clear()
    answers = business.tags.ApplyMapping(iter([ApplyMappingRequest(), ApplyMappingRequest()]))
    assert [one.chunks async for one in answers] == [1, 2]
    assert services.authorizations == ["Bearer secret"] * 4


async def test_without_a_key_none_is_sent_and_ones_own_metadata_stays(services: FakeBusiness) -> None:
    async with Business.connect(services.address, services.address) as business:
        await business.tags.GetTag(GET)
        await business.tags.GetTag(GET, metadata=(("authorization", "mine"),))
    assert services.authorizations == [None, "mine"]


async def test_streams_can_be_written_and_read_by_hand(business: Business) -> None:
    call = business.tags.ApplyMapping()
    for number in (1, 2):
        await call.write(ApplyMappingRequest())
        answer = await call.read()
        assert answer.chunks == number  # type: ignore[attr-defined]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_unary_call_has_a_deadline_and_a_stream_has_none(services: FakeBusiness, business: Business) -> None:
    await business.tags.GetTag(GET)
    await business.tags.GetTag(GET, timeout=60.0)
    async for _ in business.notifications.WatchNotification(WATCH):
        pass
    usual, own, stream = services.deadlines
    assert usual is not None
    assert own is not None
    assert 5 < usual < 15
    assert 50 < own < 65
    assert stream is None


async def test_an_error_says_what_the_service_said(services: FakeBusiness, business: Business) -> None:
    services.failure = errors.unknown_tag("vpi", field="spec.audience.expression", column=3)
    with pytest.raises(BusinessError) as caught:
        await business.notifications.UploadNotification(UPLOAD)
    error = caught.value
    assert (error.reason, error.field, error.retry_after) == ("UNKNOWN_TAG", "spec.audience.expression", None)
    assert error.message == services.failure.message
    assert str(error) == f"UNKNOWN_TAG: {error.message}"


async def test_an_error_says_when_to_come_again(services: FakeBusiness, business: Business) -> None:
    services.failure = errors.TidingsError(error_pb2.ERROR_CODE_RATE_LIMITED, "slower", retry_after=2.5)
    with pytest.raises(BusinessError) as caught:
        await business.tags.GetTag(GET)
    assert (caught.value.reason, caught.value.retry_after) == ("RATE_LIMITED", 2.5)
    services.failure = errors.TidingsError(error_pb2.ERROR_CODE_UNAVAILABLE, "the store is away")
    with pytest.raises(BusinessError) as caught:
        await business.tags.GetTag(GET)
    assert caught.value.retry_after == 1.0, "error.proto says to send it again"


async def test_a_stream_of_answers_that_breaks_says_why(services: FakeBusiness, business: Business) -> None:
    services.failure = errors.notification_not_found("n1")
    seen = []
    with pytest.raises(BusinessError) as caught:
        async for answer in business.notifications.WatchNotification(WATCH):
            seen.append(answer.report.delivered)  # noqa: PERF401  (what came before the error counts)
    assert seen == [0]
    assert (caught.value.reason, caught.value.field) == ("NOTIFICATION_NOT_FOUND", "notification_id")
    call = business.notifications.WatchNotification(WATCH)
    await call.read()
    with pytest.raises(BusinessError, match="NOTIFICATION_NOT_FOUND"):
        await call.read()


RACES = 40  # gRPC's own INTERNAL takes the place of the status in some of them, by each way


async def test_a_stream_of_requests_that_is_refused_says_why(services: FakeBusiness, business: Business) -> None:
    services.failure = errors.unknown_tag("vip", field="tag")
    for _ in range(RACES):
        with pytest.raises(BusinessError, match="UNKNOWN_TAG"):
            await business.tags.ReplaceMembers(iter(chunks(100)))
        with pytest.raises(BusinessError, match="UNKNOWN_TAG"):
            async for _answer in business.tags.ApplyMapping(ApplyMappingRequest() for _ in range(100)):
                pass


async def test_writing_into_a_stream_that_was_refused_says_why(services: FakeBusiness, business: Business) -> None:
    services.failure = errors.unknown_tag("vip", field="tag")

    async def write_on() -> None:
        call = business.tags.ReplaceMembers()
        while True:
            await call.write(chunks(1)[0])

    for _ in range(RACES):
        with pytest.raises(BusinessError, match="UNKNOWN_TAG"):
            await asyncio.wait_for(write_on(), TIMEOUT)


async def test_requests_that_cannot_be_made_end_the_call_with_their_own_error(services: FakeBusiness, business: Business) -> None:
    def broken() -> Iterator[ReplaceMembersRequest]:
        yield from chunks(1)
        raise LookupError("line 2 has no user")

    with pytest.raises(LookupError, match="line 2"):
        await business.tags.ReplaceMembers(broken())


async def test_who_gives_up_is_not_told_of_an_error(services: FakeBusiness, business: Business) -> None:
    services.silent = True

    async def ask() -> None:
        await business.tags.GetTag(GET)

    asking = asyncio.create_task(ask())
    await asyncio.wait_for(services.entered.wait(), TIMEOUT)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(services.given_up.wait(), TIMEOUT)


async def test_no_answer_in_time_may_be_asked_again(services: FakeBusiness, business: Business) -> None:
    services.silent = True
    with pytest.raises(BusinessError, match="may have been carried out") as caught:
        await business.notifications.UploadNotification(UPLOAD, timeout=0.2)
    assert (caught.value.reason, caught.value.retry_after) == ("UNAVAILABLE", 1.0)


async def test_nobody_there_is_told_with_the_address(services: FakeBusiness) -> None:
    async with running_business() as gone:
        address = gone.address
    async with Business.connect(scheduler=address, tags=services.address) as business:
        with pytest.raises(BusinessError, match=address) as caught:
            await business.notifications.UploadNotification(UPLOAD)
        assert (caught.value.reason, caught.value.retry_after) == ("UNAVAILABLE", 1.0)
        assert (await business.tags.GetTag(GET)).tag.name == "vip", "the other service is its own"


async def test_a_server_without_the_method_says_so(business: Business) -> None:
    with pytest.raises(BusinessError, match="right address") as caught:
        await business.audience.CountExpression(CountExpressionRequest(expression="vip"))
    assert (caught.value.reason, caught.value.retry_after) == ("UNKNOWN_REQUEST", None)


async def test_more_than_a_message_holds_is_refused_for_good(business: Business) -> None:
    with pytest.raises(BusinessError, match="larger than max") as caught:
        await business.tags.GetTag(GetTagRequest(name="x" * (17 << 20)))
    assert (caught.value.reason, caught.value.retry_after) == ("RESOURCE_EXHAUSTED", None)


async def test_both_sides_show_certificates(tmp_path: Path) -> None:
    server, server_key = self_signed(tmp_path, "server")
    client, client_key = self_signed(tmp_path, "client")
    pair = (server_key.read_bytes(), server.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], client.read_bytes(), require_client_auth=True)
    async with running_business(credentials) as fake:
        files = TlsFiles(server, client, client_key)
        async with Business.connect(fake.address, fake.address, "secret", files) as business:
            await business.tags.GetTag(GET)
            assert fake.authorizations == ["Bearer secret"]
        async with Business.connect(fake.address, fake.address, "secret", TlsFiles(server)) as stranger:
            with pytest.raises(BusinessError, match="UNAVAILABLE"):
                await stranger.tags.GetTag(GET)
        async with Business.connect(fake.address, fake.address, "secret") as plain:
            with pytest.raises(BusinessError, match="UNAVAILABLE"):
                await plain.tags.GetTag(GET)
    assert len(fake.authorizations) == 1


async def test_a_certificate_of_another_name_is_taken_when_told_so(tmp_path: Path) -> None:
    chain, key = self_signed(tmp_path, "server")
    async with running_business(grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())])) as fake:
        elsewhere = fake.address.replace("127.0.0.1", "localhost")
        async with Business.connect(elsewhere, elsewhere, tls=TlsFiles(chain)) as business:
            with pytest.raises(BusinessError, match="UNAVAILABLE"):
                await business.tags.GetTag(GET)
        async with Business.connect(elsewhere, elsewhere, tls=TlsFiles(chain, server_name="127.0.0.1")) as business:
            assert (await business.tags.GetTag(GET)).tag.name == "vip"


async def test_what_cannot_be_right_is_refused_before_any_call(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="go together"):
        TlsFiles(certificate="client.pem")
    with pytest.raises(OSError, match=r"nowhere\.pem"):
        Business.connect(tls=TlsFiles(tmp_path / "nowhere.pem"))
    with pytest.raises(ValueError, match="API key") as caught:
        Business.connect(api_key="topsecret\n")
    assert "topsecret" not in str(caught.value)


def test_request_ids_are_new_each_time() -> None:
    made = {new_request_id() for _ in range(100)}
    assert len(made) == 100
    assert all(1 <= len(one) <= 64 and one.isascii() and one.isprintable() for one in made)

"""One table of errors: every reason has a function, a gRPC status, and survives the way over a real server."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from mesh import errors, rpc
from mesh.errors import TidingsError
from mesh.telemetry import Telemetry
from tidings.common.v1 import error_pb2
from tidings.common.v1.error_pb2 import ErrorCode

EXAMPLES: dict[str, TidingsError] = {
    "invalid_chat_id": errors.invalid_chat_id("dabc"),
    "invalid_field": errors.invalid_field("hello.device_id", "1-64 characters"),
    "not_a_member": errors.not_a_member("dabc"),
    "content_too_large": errors.content_too_large(20_000, 16_384),
    "rate_limited": errors.rate_limited(1.25),
    "overloaded": errors.overloaded(0.5),
    "unavailable": errors.unavailable("the store is away"),
    "permission_denied": errors.permission_denied("an owner may"),
    "message_not_found": errors.message_not_found("dabc", 3),
    "not_your_message": errors.not_your_message("dabc", 3),
    "invalid_recipient": errors.invalid_recipient("böb"),
    "wrong_conversation_kind": errors.wrong_conversation_kind("dabc"),
    "group_too_large": errors.group_too_large(256),
    "too_many_watched": errors.too_many_watched(200),
    "request_id_conflict": errors.request_id_conflict("r-1"),
    "internal": errors.internal("the log has it"),
    "last_owner": errors.last_owner(),
    "unknown_request": errors.unknown_request("frame 99"),
    "fenced": errors.fenced("notification 7"),
    "unauthenticated": errors.unauthenticated("it has expired"),
    "origin_refused": errors.origin_refused("https://evil.example", "origins"),
    "too_many_connections": errors.too_many_connections("this user", 3, 5.0),
    "no_capacity": errors.no_capacity(2.0),
    "invalid_expression": errors.invalid_expression("a tag is expected here", 7),
    "expression_too_large": errors.expression_too_large("it has 1,001 operands, at most 1,000 are allowed"),
    "unknown_tag": errors.unknown_tag("vpi", column=3),
    "unknown_user": errors.unknown_user("nobody"),
    "name_taken": errors.name_taken("vip", "tag"),
    "combination_cycle": errors.combination_cycle(["a", "b", "a"]),
    "name_in_use": errors.name_in_use("vip", ["alias best", "combination core"]),
    "version_conflict": errors.version_conflict("tag 'vip'", 3, 5),
    "snapshot_gone": errors.snapshot_gone(3, 100, 164),
    "empty_audience": errors.empty_audience(),
    "notification_not_found": errors.notification_not_found("nabc"),
    "notification_state_conflict": errors.notification_state_conflict("nabc", "CANCELLED", "what is over stays as it is"),
    "report_gone": errors.report_gone("nabc"),
    "push_not_configured": errors.push_not_configured(),
    "network_refused": errors.network_refused("10.0.0.1"),
}

# Codes with which only an edge closes a WebSocket: no request fails with them, so nothing raises them.
CLOSE_CODES_ONLY = {
    "PROTOCOL_ERROR",
    "HELLO_EXPECTED",
    "HELLO_REPEATED",
    "FRAME_TOO_LARGE",
    "FLOODING",
    "SESSION_REPLACED",
    "UNKNOWN_SUBPROTOCOL",
    "GOING_AWAY",
    "SLOW_CONSUMER",
    "HEARTBEAT_TIMEOUT",
    "HANDSHAKE_TIMEOUT",
    "SESSION_FAILED",
}
SERVICE = "tidings.test.Echo"


@asynccontextmanager
async def failing(fail: Callable[[], Exception]) -> AsyncIterator[Any]:
    """A call to a server whose method raises what `fail` makes."""

    async def method(_: bytes, __: Any) -> bytes:
        raise fail()

    handler = grpc.method_handlers_generic_handler(SERVICE, {"Fail": grpc.unary_unary_rpc_method_handler(method)})
    telemetry = Telemetry("test")
    add = {SERVICE: lambda server: server.add_generic_rpc_handlers((handler,))}
    async with (
        rpc.serve("127.0.0.1:0", add, telemetry, reflect=False, drain_seconds=1) as port,
        rpc.channel(f"127.0.0.1:{port}", telemetry) as channel,
    ):
        yield channel.unary_unary(f"/{SERVICE}/Fail")
    telemetry.close()


async def crossed(error: Exception) -> TidingsError:
    """What a caller gets when a service raises this."""
    async with failing(lambda: error) as call:
        with pytest.raises(TidingsError) as raised, rpc.named_errors():
            await call(b"")
    return raised.value


async def failed_call(address: str, telemetry: Telemetry) -> TidingsError:
    """What a call to a method that can't answer raises."""
    async with rpc.channel(address, telemetry) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Missing")
        with pytest.raises(TidingsError) as raised, rpc.named_errors():
            await call(b"")
    return raised.value


def test_every_function_has_its_example_here() -> None:
    own = {name for name, found in inspect.getmembers(errors, inspect.isfunction) if found.__module__ == "mesh.errors"}
    makers = {name for name in own if not name.startswith("_")} - {"reason", "from_rpc_error"}
    assert makers == set(EXAMPLES)


def test_every_reason_has_one_function_of_its_name_or_is_a_close_code_only() -> None:
    assert {name: error.reason for name, error in EXAMPLES.items()} == {name: name.upper() for name in EXAMPLES}
    reasons = {errors.reason(code) for code in ErrorCode.values() if code}
    assert {error.reason for error in EXAMPLES.values()} | CLOSE_CODES_ONLY == reasons
    assert all(ErrorCode.Value(f"ERROR_CODE_{name}") >= 4400 for name in CLOSE_CODES_ONLY)


def test_every_code_below_4400_has_a_grpc_status_of_its_own_choice() -> None:
    for code in ErrorCode.values():
        if 0 < code < 4400:
            assert TidingsError(code, "text").to_status().code is not grpc.StatusCode.UNKNOWN, errors.reason(code)


@pytest.mark.parametrize("name", [name for name, error in EXAMPLES.items() if error.code <= error_pb2.ERROR_CODE_UNAUTHENTICATED])
async def test_every_error_survives_the_way_over_a_server(name: str) -> None:
    sent = EXAMPLES[name]
    got = await crossed(sent)
    assert (got.code, got.message, got.retry_after, got.field) == (sent.code, sent.message, sent.retry_after, sent.field)
    assert got.to_frame("c-1") == sent.to_frame("c-1")
    kept = TidingsError.from_frame(sent.to_frame())
    assert (kept.code, kept.message, kept.retry_after, kept.field) == (sent.code, sent.message, sent.retry_after, sent.field)


@pytest.mark.parametrize("quoted", ["x" * 100_000, "\U0001f980" * 10_000, "\udcff\0\n", "%41\r\nheader: x"])
async def test_what_a_client_sent_may_be_quoted_however_long_or_odd_it_is(quoted: str) -> None:
    for sent in (errors.invalid_chat_id(quoted), errors.invalid_recipient(quoted), errors.request_id_conflict(quoted)):
        got = await crossed(sent)
        assert (got.code, got.message, got.field) == (sent.code, sent.message, sent.field)
        assert len(got.message) <= 300


async def test_an_unforeseen_fault_is_internal_and_tells_nothing_of_it() -> None:
    got = await crossed(KeyError("secret"))
    assert got.code == error_pb2.ERROR_CODE_INTERNAL
    assert "secret" not in got.message


async def test_a_status_has_one_error_info_and_no_more_details_than_it_needs() -> None:
    async with failing(lambda: errors.invalid_chat_id("dabc")) as call:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    status = rpc_status.from_call(raised.value)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    first, second = status.details
    assert first.Unpack(info)
    assert second.Unpack(bad)
    assert (info.reason, info.domain) == ("INVALID_CHAT_ID", "tidings")


async def test_a_peer_that_is_away_is_unavailable_and_may_be_asked_again(telemetry: Telemetry) -> None:
    raised = await failed_call("127.0.0.1:1", telemetry)
    assert raised.code == error_pb2.ERROR_CODE_UNAVAILABLE
    assert raised.retry_after


async def test_a_method_that_is_not_there_is_a_fault_of_ours_and_says_which_status(telemetry: Telemetry) -> None:
    async with rpc.serve("127.0.0.1:0", {}, telemetry, reflect=False, drain_seconds=1) as port:
        raised = await failed_call(f"127.0.0.1:{port}", telemetry)
    assert raised.code == error_pb2.ERROR_CODE_INTERNAL
    assert "UNIMPLEMENTED" in raised.message


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("invalid_field", 400),
        ("unauthenticated", 401),
        ("not_a_member", 403),
        ("origin_refused", 403),
        ("invalid_chat_id", 404),
        ("request_id_conflict", 409),
        ("last_owner", 409),
        ("content_too_large", 413),
        ("rate_limited", 429),
        ("too_many_connections", 429),
        ("internal", 500),
        ("unknown_request", 404),
        ("overloaded", 503),
        ("unavailable", 503),
        ("no_capacity", 503),
    ],
)
def test_http_statuses(name: str, status: int) -> None:
    assert EXAMPLES[name].http_status == status


def test_a_message_tells_what_to_do_next() -> None:
    for name, error in EXAMPLES.items():
        assert 10 <= len(error.message) <= 300, name
        assert str(error) == error.message, name


def test_advice_fits_whoever_asked() -> None:
    assert "recipient" not in errors.unknown_user("nobody", field="user_id").message
    assert "0 to get" not in errors.snapshot_gone(9, 0, 5).message
    assert errors.combination_cycle(["@a", "b", "@a"], "target").field == "target"

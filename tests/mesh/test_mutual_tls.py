"""A port of the mesh under mutual TLS: who gets in, as what, and which server a caller accepts."""

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cli.certs_folder import Folder
from mesh import certificates, rpc
from mesh.certificates import CertificateError
from mesh.errors import TidingsError
from mesh.mutual_tls import MeshDoor, MutualTls, settings_in
from mesh.nodes import NodePool
from mesh.permissions import ROLES
from mesh.registry import MemoryRegistry
from mesh.settings import ServiceSettings
from mesh.telemetry import Telemetry
from tests.certificates import make_certificates
from tidings.common.v1.instance_pb2 import Instance

USERS, LOG, ECHO = "tidings.store.v1.UserService", "tidings.store.v1.MessageLogService", "tidings.test.Echo"
GET, LIST, LAST_SEEN, APPEND = f"/{USERS}/GetUsers", f"/{USERS}/ListUsers", f"/{USERS}/RecordLastSeen", f"/{LOG}/Append"
HEALTH = "/grpc.health.v1.Health/Check"
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates of a mesh."""
    return make_certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of another mesh."""
    return make_certificates(tmp_path_factory.mktemp("theirs"))


async def one(_: bytes, __: Any) -> bytes:
    """Answers."""
    return b"in"


async def many(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    """Answers each."""
    async for _request in requests:
        yield b"in"


HANDLERS: dict[str, dict[str, Any]] = {
    USERS: {name: grpc.unary_unary_rpc_method_handler(one) for name in ("GetUsers", "ListUsers", "RecordLastSeen")},
    LOG: {"Append": grpc.stream_stream_rpc_method_handler(many)},
    ECHO: {"Echo": grpc.unary_unary_rpc_method_handler(one)},
}


@asynccontextmanager
async def served(telemetry: Telemetry, tls: MutualTls) -> AsyncIterator[str]:
    """A server under a certificate; gives its address."""
    handlers = tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in HANDLERS.items())
    add = {USERS: lambda server: server.add_generic_rpc_handlers(handlers)}
    async with rpc.serve("127.0.0.1:0", add, telemetry, reflect=True, drain_seconds=0.1, door=MeshDoor(tls)) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
async def store(telemetry: Telemetry, ours: Path) -> AsyncIterator[str]:
    """The address of a store."""
    async with served(telemetry, MutualTls.in_folder(ours, "store")) as address:
        yield address


async def reason(channel: Any, path: str) -> str:
    """Why a call is refused; empty when it isn't."""
    try:
        with rpc.named_errors():
            if path == APPEND:
                assert await channel.stream_stream(path)(iter([b""]), timeout=5).read() == b"in"
            else:
                assert await channel.unary_unary(path)(b"", timeout=5) in {b"in", b"\x08\x01"}
    except TidingsError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("router", {GET, LAST_SEEN, APPEND, HEALTH}),
        ("tagsvc", {GET, LIST, HEALTH}),
        ("edge", {HEALTH}),
        ("store", {HEALTH}),
        ("operator", {HEALTH}),
    ],
)
async def test_a_role_may_do_what_the_table_says_and_nothing_else(
    telemetry: Telemetry, ours: Path, store: str, role: str, allowed: set[str]
) -> None:
    async with rpc.channel(store, telemetry, "store", MutualTls.in_folder(ours, role)) as channel:
        for path in (GET, LIST, LAST_SEEN, APPEND, HEALTH, f"/{ECHO}/Echo"):
            assert await reason(channel, path) == ("" if path in allowed else "PERMISSION_DENIED"), path


async def test_a_refusal_names_the_role_the_method_and_who_may(telemetry: Telemetry, ours: Path, store: str) -> None:
    async with rpc.channel(store, telemetry, "store", MutualTls.in_folder(ours, "edge")) as channel:
        for path, who in ((LIST, "only scheduler, tagsvc may"), (f"/{ECHO}/Echo", "nobody in the mesh may")):
            method: Any = channel.unary_unary(path)
            with pytest.raises(TidingsError) as raised, rpc.named_errors():
                await method(b"", timeout=5)
            assert f"edge may not call {path}; {who}" in raised.value.message


async def test_reflection_is_for_operators(ours: Path, store: str, telemetry: Telemetry) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async with rpc.operator_channel(store, "store", ours) as channel:
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
        listed = [service.name async for answer in answers for service in answer.list_services_response.service]
    assert USERS in listed
    async with rpc.channel(store, telemetry, "store", MutualTls.in_folder(ours, "router")) as channel:
        with pytest.raises(TidingsError) as raised, rpc.named_errors():
            answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
            assert [answer async for answer in answers]
    assert raised.value.reason == "PERMISSION_DENIED"


async def test_without_a_certificate_of_this_mesh_nobody_gets_in(
    telemetry: Telemetry, ours: Path, theirs: Path, store: str
) -> None:
    name = [("grpc.ssl_target_name_override", "store.tidings")]
    bare = grpc.ssl_channel_credentials((ours / "ca.pem").read_bytes())
    stranger = MutualTls.in_folder(theirs, "router")
    forged = MutualTls((ours / "ca.pem").read_bytes(), stranger.certificate, stranger.key)
    for channel in (
        rpc.channel(store, telemetry),
        grpc.aio.secure_channel(store, bare, options=name),
        rpc.channel(store, telemetry, "store", stranger),
        rpc.channel(store, telemetry, "store", forged),
    ):
        async with channel:
            assert await reason(channel, HEALTH) == "UNAVAILABLE"


async def test_a_certificate_that_has_ended_opens_nothing(telemetry: Telemetry, ours: Path, store: str) -> None:
    authority, ca = Folder(ours, NOW).authority(), (ours / "ca.pem").read_bytes()
    ended = certificates.issue(authority, "router", NOW - datetime.timedelta(days=2), 1)
    async with rpc.channel(store, telemetry, "store", MutualTls(ca, ended.certificate_pem, ended.key_pem)) as channel:
        assert await reason(channel, GET) == "UNAVAILABLE"


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["spiffe://tidings/janitor"],
        ["spiffe://elsewhere/router"],
        ["spiffe://tidings/router", "spiffe://tidings/tagsvc"],
    ],
)
async def test_a_certificate_of_our_authority_without_exactly_one_role_may_do_nothing(
    telemetry: Telemetry, ours: Path, store: str, names: list[str]
) -> None:
    tls = _with_names(ours, [x509.DNSName("router.tidings"), *map(x509.UniformResourceIdentifier, names)])
    async with rpc.channel(store, telemetry, "store", tls) as channel:
        assert await reason(channel, GET) == await reason(channel, HEALTH) == "PERMISSION_DENIED"


def _with_names(folder: Path, names: list[x509.GeneralName]) -> MutualTls:
    authority, key = Folder(folder, NOW).authority(), ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "router")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(hours=1))
        .not_valid_after(NOW + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    pair = certificates.Pair(builder.sign(authority.key, hashes.SHA256()), key)
    return MutualTls(authority.certificate_pem, pair.certificate_pem, pair.key_pem)


async def test_another_service_than_the_one_meant_is_refused(telemetry: Telemetry, ours: Path) -> None:
    async with served(telemetry, MutualTls.in_folder(ours, "edge")) as address:
        router = MutualTls.in_folder(ours, "router")
        async with rpc.channel(address, telemetry, "store", router) as channel:
            assert await reason(channel, GET) == "UNAVAILABLE"
        async with rpc.channel(address, telemetry, "edge", router) as channel:
            assert await reason(channel, GET) == ""


async def test_a_pool_refuses_who_registered_as_another_service(telemetry: Telemetry, ours: Path, store: str) -> None:
    registry, router = MemoryRegistry(), MutualTls.in_folder(ours, "router")

    async def asked(address: str) -> bytes:
        async with (
            registry.register(Instance(service="store", instance_id="store-1", grpc_address=address)),
            NodePool.open(registry, "store", telemetry, tls=router) as pool,
        ):
            async for nodes in registry.watch("store"):
                pool._update(nodes)
                break
            call: Any = lambda node: node.channel.unary_unary(GET)  # noqa: E731
            return bytes(await pool.call(call, b"", timeout=5))

    assert await asked(store) == b"in"
    async with served(telemetry, MutualTls.in_folder(ours, "edge")) as impostor:
        with pytest.raises(TidingsError) as raised:
            await asked(impostor)
    assert raised.value.reason == "UNAVAILABLE"


def test_without_settings_the_mesh_speaks_in_plain_text() -> None:
    assert MutualTls.of("store", ServiceSettings()) is None
    assert MeshDoor.of(None) is None


def test_a_service_takes_only_its_own_certificate(ours: Path, theirs: Path, tmp_path: Path) -> None:
    found = MutualTls.of("store", ServiceSettings(**settings_in(ours, "store")))  # type: ignore[arg-type]
    assert found == MutualTls.in_folder(ours, "store")
    assert "PRIVATE" not in repr(found)
    text = tmp_path / "notes.txt"
    text.write_text("not PEM")
    ca, certificate, key = ours / "ca.pem", ours / "store.pem", ours / "store.key"
    for files, said in (
        ((ca, ours / "edge.pem", ours / "edge.key"), "is for edge, not for store"),
        ((ca, ca, ours / "ca.key"), "is for no role of a mesh, not for store"),
        ((theirs / "ca.pem", certificate, key), "not from this authority"),
        ((ca, certificate, theirs / "store.key"), "don't belong together"),
        ((ca, certificate, tmp_path / "none.key"), "can't read .*none.key"),
        ((ca, text, key), "the certificate of store holds no certificate"),
        ((ca, certificate, text), "key of store can't be read"),
        ((text, certificate, key), "notes.txt holds no certificate"),
    ):
        with pytest.raises(CertificateError, match=said):
            MutualTls.read("store", *files)


def test_a_service_does_not_start_with_a_certificate_that_has_ended(ours: Path, tmp_path: Path) -> None:
    folder = Folder(tmp_path, NOW - datetime.timedelta(days=10))
    folder.make_authority(30)
    folder.make(folder.authority(), "store", 5)
    with pytest.raises(CertificateError, match="certificate of store ended on"):
        MutualTls.in_folder(tmp_path, "store")
    assert all(MutualTls.in_folder(ours, role) for role in ROLES)
